package cgroup

import (
	"errors"
	"fmt"
	"strconv"
)

// Bound is one limit or guarantee of a group.
type Bound struct{ Group, File, Value string }

// What the node's own programs are left, in bytes: a fixed part for those that every
// node runs, and an eighth of the memory for what grows with it, such as the shims, the
// kernel's tables and the pages of programs. More than maxReserve they never need.
const (
	leastReserve = 64 << 20
	maxReserve   = 512 << 20
	// initReserve is PID 1's part of it.
	initReserve = 16 << 20
)

// Reserve is how much of memory, both in bytes, the containers cannot have. A node of
// 256 MiB, of which the kernel leaves some 215 MiB, keeps 91 MiB.
func Reserve(memory int64) int64 {
	return min(leastReserve+memory/8, maxReserve, memory/2)
}

// Bounds are those of a machine whose programs can have memory bytes and tasks
// processes and threads; 0: not known, then it has no bound there.
//
// All containers together get what the reserve leaves. Within it PID 1 and the services
// keep what they use even when the kernel looks for memory everywhere: half of it
// whatever happens (memory.min), the rest as long as others have something to give
// (memory.low). On a machine so small that the reserve is half of it nothing is kept: the
// kernel has nobody else to take from then, and looks for memory where it must not again and
// again; a node of 144 MiB read its programs four times as often.
//
// Source: Documentation/admin-guide/cgroup-v2.rst in the kernel tree.
func Bounds(memory, tasks int64) []Bound {
	var all []Bound
	add := func(group, file string, value int64) {
		all = append(all, Bound{group, file, strconv.FormatInt(value, 10)})
	}
	if memory > 0 {
		reserve := Reserve(memory)
		add(Workload, "memory.max", memory-reserve)
		// Where containers have used that up, the pages of shims are not those that go: a
		// container could not be stopped without its shim.
		all = append(all, Bound{Shims, "memory.low", "max"})
		if reserve < memory/2 {
			add(System, "memory.min", reserve/2)
			add(System, "memory.low", reserve)
			add(Init, "memory.min", min(initReserve, reserve/4))
		}
	}
	if tasks > 0 {
		add(Workload, "pids.max", tasks/4*3)
	}
	return all
}

// Bind sets bounds, all that it can; the error names the others.
func (t Tree) Bind(bounds []Bound) error {
	var errs []error
	for _, b := range bounds {
		if err := t.write(b.Group, b.File, b.Value); err != nil {
			errs = append(errs, fmt.Errorf("bound: %w", err))
		}
	}
	return errors.Join(errs...)
}
