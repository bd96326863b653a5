package machine

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Groups reads what groups of processes have used, from the one hierarchy of a node or
// from those of cgroup v1, one for each controller, on which tests run.
//
// Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ in the kernel tree.
type Groups struct {
	root string
	v1   bool
}

func OpenGroups(root string) Groups {
	_, err := os.Stat(filepath.Join(root, "cgroup.controllers"))
	return Groups{root, err != nil}
}

// Use is what one group has used.
type Use struct {
	CPU                   time.Duration
	Memory, Cache, Limit  uint64 // bytes; memory with its cache, some of which may be dropped at once; 0: no limit
	Processes, MostOfThem uint64 // and threads; 0: no limit
	Received, Sent        uint64 // bytes
}

// file is a file of a group: of a controller, and by its name in each version.
func (c Groups) file(group, controller, v1, v2 string) string {
	if c.v1 {
		return filepath.Join(c.root, controller, group, v1)
	}
	return filepath.Join(c.root, group, v2)
}

// Of reads a group; false: there is none.
func (c Groups) Of(group string) (Use, bool) {
	var u Use
	memory, ok := number(c.file(group, "memory", "memory.usage_in_bytes", "memory.current"), "")
	if !ok {
		return Use{}, false
	}
	u.Memory = uint64(memory)
	if inactive, ok := number(c.file(group, "memory", "memory.stat", "memory.stat"), c.word("total_inactive_file", "inactive_file")); ok {
		u.Cache = min(uint64(inactive), u.Memory)
	}
	u.Limit = limitOf(c.file(group, "memory", "memory.limit_in_bytes", "memory.max"))
	if cpu, ok := number(c.file(group, "cpuacct", "cpuacct.usage", "cpu.stat"), c.word("", "usage_usec")); ok && c.v1 {
		u.CPU = time.Duration(cpu)
	} else if ok {
		u.CPU = time.Duration(cpu) * time.Microsecond
	}
	if n, ok := number(c.file(group, "pids", "pids.current", "pids.current"), ""); ok {
		u.Processes = uint64(n)
	}
	u.MostOfThem = limitOf(c.file(group, "pids", "pids.max", "pids.max"))
	return u, true
}

func (c Groups) word(v1, v2 string) string {
	if c.v1 {
		return v1
	}
	return v2
}

// Network adds what the first process of the group sees of its network.
func (c Groups) Network(group string, u *Use) {
	pids, err := os.ReadFile(c.file(group, "pids", "cgroup.procs", "cgroup.procs"))
	if err != nil {
		return
	}
	if first := strings.Fields(string(pids)); len(first) > 0 {
		u.Received, u.Sent = traffic(filepath.Join("/proc", first[0], "net/dev"), func(string) bool { return true })
	}
}

// traffic sums the bytes of the interfaces in a file like /proc/net/dev, without the
// loopback.
func traffic(file string, counts func(name string) bool) (received, sent uint64) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(data)) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || len(f) < 16 || name == "lo" || !counts(name) {
			continue
		}
		in, _ := strconv.ParseUint(f[0], 10, 64) // the kernel wrote them
		out, _ := strconv.ParseUint(f[8], 10, 64)
		received, sent = received+in, sent+out
	}
	return received, sent
}

// limitOf reads a file with a limit; 0: none. In version 1 none is a number close to the
// largest that there is.
func limitOf(file string) uint64 {
	n, ok := number(file, "")
	if !ok || n <= 0 || n > math.MaxInt64/2 {
		return 0
	}
	return uint64(n)
}

// number reads the number behind key, or the only one of the file if key is "". A
// container that does not run has none.
func number(file, key string) (float64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 0 || key != "" && (f[0] != key || len(f) < 2) {
			continue
		}
		n, err := strconv.ParseFloat(f[len(f)-1], 64)
		return n, err == nil
	}
	return 0, false
}
