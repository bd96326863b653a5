package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kogge.example/init/cgroup"
)

// sysctls are the kernel's settings that every node has. Names have dots for
// slashes, as people write them.
//
// Source: Documentation/admin-guide/sysctl/ in the kernel tree; the values of
// fs.protected_* are those that containers meet on most hosts.
var sysctls = []struct{ name, value string }{
	// Links, pipes and files in folders that all may write to deceive nobody.
	{"fs.protected_hardlinks", "1"},
	{"fs.protected_symlinks", "1"},
	{"fs.protected_fifos", "1"},
	{"fs.protected_regular", "1"},
	// The kernel's addresses and log are for the node's own programs.
	{"kernel.kptr_restrict", "1"},
	{"kernel.dmesg_restrict", "1"},
	// The console shows of the kernel's log what is critical and worse, which is what PID 1 has to
	// say, too (see guard.Kmsg). An error may bear the name of a process, which a container has
	// chosen, as it is: with what terminals obey. The log, where that is escaped, keeps it.
	{"kernel.printk", "3"},
	// Counts for the whole kernel, or for all user namespaces that root has made: one
	// container could use them up for all others and for the node. What they count is
	// charged to the container's memory, which is what bounds it. systemd does so with the
	// first: NEWS of version 240.
	{"fs.file-max", strconv.Itoa(math.MaxInt)}, // a long
	{"fs.aio-max-nr", strconv.Itoa(math.MaxInt32)},
	{"fs.inotify.max_user_instances", strconv.Itoa(math.MaxInt32)}, // an int, as the next
	{"fs.inotify.max_user_watches", strconv.Itoa(math.MaxInt32)},
	{"net.ipv4.tcp_max_orphans", strconv.Itoa(math.MaxInt32)},
	// By itself the kernel takes a number that goes by its memory: at 256 MiB one
	// container may have more processes than that. See cgroup.Bounds.
	{"kernel.threads-max", "32768"},
}

// isaReserve frees what the kernel keeps for ISA cards: of each GiB, 4 MB that no
// program may have, in the 16 MB that such a card could reach. The other numbers
// are the kernel's own. On ARM the same zone is for devices that nodes do have.
const isaReserve = "65536 256 32"

// setSysctls sets them, all that it can, below root, which is /proc/sys.
func setSysctls(root string) error {
	set := func(name, value string) error {
		return os.WriteFile(filepath.Join(root, strings.ReplaceAll(name, ".", "/")), []byte(value), 0)
	}
	var errs []error
	for _, s := range sysctls {
		errs = append(errs, set(s.name, s.value))
	}
	if memory, _ := machineSize(""); memory > 0 {
		for _, name := range []string{"net.ipv4.tcp_mem", "net.ipv4.udp_mem"} {
			errs = append(errs, set(name, socketMemory(memory, int64(os.Getpagesize()))))
		}
		errs = append(errs, set("kernel.pty.max", strconv.FormatInt(terminals(memory), 10)))
	}
	if runtime.GOARCH == "amd64" {
		errs = append(errs, set("vm.lowmem_reserve_ratio", isaReserve))
	}
	return errors.Join(errs...)
}

// socketMemory is what all sockets may hold, in pages of a machine with so many bytes: a tenth
// of them by the kernel itself, for all network namespaces. It is what all containers can have:
// with less, one that holds as much as it may would take the word from all others. What waits to
// be read counts as its container's, but not before a connection is accepted: so the bound is not
// the whole machine, and the agent looks at what waits (see confine.Looker). From half of it on
// the room of a single socket does not grow.
func socketMemory(memory, page int64) string {
	most := (memory - cgroup.Reserve(memory)) / page
	return fmt.Sprintf("%d %d %d", most/2, most, most)
}

// terminals is how many there can be of a machine with so many bytes. What waits in one, up to
// 128 KiB, counts as nobody's: those of all containers take a sixteenth of the memory. The kernel
// keeps 1024 of them for others than containers (kernel.pty.reserve).
func terminals(memory int64) int64 {
	const most, kept = 3072, 1024
	return kept + min(max(memory/16/(128<<10), most/24), most)
}

// machineSize is what programs can have of this machine: bytes of memory, and processes and
// threads by the settings of the kernel in folder. 0 is what it does not say.
func machineSize(folder string) (memory, tasks int64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		memory = int64(info.Totalram) * int64(info.Unit)
	}
	for _, name := range []string{"threads-max", "pid_max"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return memory, 0
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return memory, 0
		}
		if tasks == 0 || n < tasks {
			tasks = n
		}
	}
	return memory, tasks
}
