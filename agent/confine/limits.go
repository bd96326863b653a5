package confine

import (
	"context"
	"fmt"
	"log"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// Most is the largest part of what all containers have together that one of them can have,
// so that the others go on when it takes all it can get; 0: no bound.
type Most struct {
	Memory int64 // bytes
	Tasks  int64 // processes and threads
}

// MostOf is what one container can have of what all have, which is memory bytes and tasks
// processes and threads; 0: no bound. Of memory it is seven eighths: a node of 256 MiB, where
// all have 124 MiB, runs one program of 110 MB (105 MiB), and has some left for its shim and
// for others; with more, those would be what the kernel kills when one container holds
// memory that it has no process to kill for.
func MostOf(memory, tasks uint64) Most {
	return Most{Memory: int64(memory / 8 * 7), Tasks: int64(tasks / 4 * 3)}
}

// oomScore puts a container's processes before those of the node, and before its shim, when
// the kernel has to kill somebody for memory.
const oomScore = 200

// Limits bounds what c takes of the node: to what it says, and never to more than most.
func Limits(c workload.Container, cgroup string, most Most) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Linux.CgroupsPath = cgroup
		score := oomScore
		s.Process.OOMScoreAdj = &score
		r := s.Linux.Resources
		pids := AtMost(c.Pids, most.Tasks)
		if pids != c.Pids {
			log.Printf("container %s: pids_limit lowered to %d: what others and the node need is kept", c.ID, pids)
		}
		r.Pids = &specs.LinuxPids{Limit: &pids}
		memory := AtMost(c.Memory, most.Memory)
		if c.Memory > 0 && memory != c.Memory {
			log.Printf("container %s: mem_limit lowered to %d bytes: what others and the node need is kept", c.ID, memory)
		}
		if memory > 0 {
			// Memory and swap in one: a node with swap must not give more of it.
			r.Memory = &specs.LinuxMemory{Limit: &memory, Swap: &memory}
		}
		if c.CPUs > 0 {
			period := uint64(100_000) // microseconds; the kernel's default
			quota := max(int64(float64(c.CPUs)*float64(period)), 1_000)
			r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
		}
		return nil
	}
}

// AtMost is limit, but no more than most; of either 0 means none.
func AtMost(limit, most int64) int64 {
	if most > 0 && (limit <= 0 || limit > most) {
		return most
	}
	return limit
}

// terminals is how many a container can have at a time, of so many that all can have: an
// eighth. What is written to one waits in memory of the kernel that counts as nobody's, up to
// 128 KiB.
func terminals(all int64) int64 { return min(max(all/8, 16), 128) }

// FewTerminals bounds them.
func FewTerminals(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	// What is reserved is for the node's own.
	all := whole("/proc/sys/kernel/pty/max") - whole("/proc/sys/kernel/pty/reserve")
	for i, m := range s.Mounts {
		if m.Type == "devpts" {
			s.Mounts[i].Options = append(m.Options, fmt.Sprintf("max=%d", terminals(all)))
		}
	}
	return nil
}

// Files is how many files a file system in memory of so many bytes can have: one for each page
// that it can fill. What the kernel keeps of a file beside its pages is not part of the size,
// and its access lists count as nobody's.
func Files(size int64) int64 { return max(size/4096, 64) }

// FewFiles bounds those of file systems in memory that have no bound yet.
func FewFiles(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	for i, m := range s.Mounts {
		if m.Type != "tmpfs" || slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "nr_inodes=") }) {
			continue
		}
		size, err := sizeOf(m.Options)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		if size == 0 { // no bound at all, where the node has none
			continue
		}
		s.Mounts[i].Options = append(slices.Clone(m.Options), fmt.Sprintf("nr_inodes=%d", Files(size)))
	}
	return nil
}

// sizeOf is the size of a file system in memory in bytes: of the last option that says so.
func sizeOf(options []string) (size int64, err error) {
	for _, o := range options {
		text, ok := strings.CutPrefix(o, "size=")
		if !ok {
			continue
		}
		number := strings.TrimRight(text, "kmg")
		unit := map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[text[len(number):]]
		if size, err = strconv.ParseInt(number, 10, 64); err != nil || unit == 0 || size < 0 || size > math.MaxInt64/unit {
			return 0, fmt.Errorf("option %s is no size", o)
		}
		size *= unit
	}
	return size, nil
}

// defaultUlimits are those of a process that c does not name. The soft limit of files stays
// where programs with select(2) still work. Pending signals, message queues and locked memory
// are the kernel's own for a machine of 1 GiB: the node's programs have no limit there, and
// a container would inherit that.
var defaultUlimits = []workload.Ulimit{
	{Name: "nofile", Soft: 1024, Hard: 65536},
	{Name: "memlock", Soft: 8 << 20, Hard: 8 << 20},
	{Name: "msgqueue", Soft: 819200, Hard: 819200},
	{Name: "sigpending", Soft: 4096, Hard: 4096},
}

// Ulimits limits each process: to what c says, else to [defaultUlimits], and never beyond this process's own hard limits, which on a node are those that PID 1
// gives every service. A value that is cut down is a line in the log.
func Ulimits(c workload.Container) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		all := slices.Clone(c.Ulimits)
		for _, d := range defaultUlimits {
			if !slices.ContainsFunc(all, func(u workload.Ulimit) bool { return u.Name == d.Name }) {
				all = append(all, d)
			}
		}
		s.Process.Rlimits = nil
		for _, u := range all {
			number, known := rlimits[u.Name]
			if !known {
				return fmt.Errorf("ulimit %s does not exist", u.Name)
			}
			var own unix.Rlimit
			if err := unix.Getrlimit(number, &own); err != nil {
				return fmt.Errorf("ulimit %s: %w", u.Name, err)
			}
			r := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: min(amount(u.Soft), own.Max), Hard: min(amount(u.Hard), own.Max)}
			if len(c.Ulimits) > 0 && (amount(u.Hard) > own.Max || amount(u.Soft) > own.Max) {
				log.Printf("container %s: ulimit %s lowered to the node's %d", c.ID, u.Name, own.Max)
			}
			if r.Soft > r.Hard {
				return fmt.Errorf("ulimit %s: soft %d is above hard %d", u.Name, r.Soft, r.Hard)
			}
			s.Process.Rlimits = append(s.Process.Rlimits, r)
		}
		return nil
	}
}

// amount is a limit as the kernel counts it.
func amount(n int64) uint64 {
	if n < 0 {
		return unix.RLIM_INFINITY
	}
	return uint64(n)
}

// rlimits are the limits of setrlimit(2).
var rlimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}
