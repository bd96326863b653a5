package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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
	// What all sockets may hold, in pages of memory: a tenth of it by itself, for all network
	// namespaces. It too is charged to the container that holds it.
	if memory, _ := machineSize(""); memory > 0 {
		pages := strconv.FormatInt(memory/int64(os.Getpagesize()), 10)
		for _, name := range []string{"net.ipv4.tcp_mem", "net.ipv4.udp_mem"} {
			errs = append(errs, set(name, pages+" "+pages+" "+pages))
		}
	}
	if runtime.GOARCH == "amd64" {
		errs = append(errs, set("vm.lowmem_reserve_ratio", isaReserve))
	}
	return errors.Join(errs...)
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
