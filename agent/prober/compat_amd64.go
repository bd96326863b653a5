package main

import (
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// int80 is a system call as a 32-bit program makes it. A kernel without such calls kills
// who tries.
func int80(number, a1, a2, a3, a4, a5 uintptr) uintptr

// x32 marks the calls of the third family that the kernel may have.
const x32 = 0x40000000

// Numbers of 32-bit calls.
//
// Source: arch/x86/entry/syscalls/syscall_32.tbl of the kernel.
const (
	socketcall32 = 102
	socket32     = 359
	socketpair32 = 360
)

// refused32 are 32-bit calls of which no container may make any, with arguments that do
// nothing where one gets through.
var refused32 = []struct {
	name   string
	number uintptr
	arg    uintptr
}{
	{"mount", 21, 0}, {"umount2", 52, 0}, {"acct", 51, 0}, {"swapon", 87, 0}, {"swapoff", 115, 0}, {"reboot", 88, 0},
	{"syslog", 103, 9}, {"init_module", 128, 0}, {"delete_module", 129, 0}, {"quotactl", 131, 0}, {"sethostname", 74, 0}, {"setdomainname", 121, 0},
	{"pivot_root", 217, 0}, {"kexec_load", 283, 0}, {"add_key", 286, 0}, {"request_key", 287, 0}, {"keyctl", 288, 0},
	{"clone in a user namespace", 120, unix.CLONE_NEWUSER}, {"unshare", 310, unix.CLONE_NEWUSER}, {"setns", 346, ^uintptr(0)},
	{"perf_event_open", 336, 0}, {"fanotify_init", 338, 0}, {"open_by_handle_at", 342, 0}, {"kcmp", 349, 0}, {"finit_module", 350, ^uintptr(0)},
	{"bpf", 357, 0}, {"userfaultfd", 374, 0}, {"io_uring_setup", 425, 0}, {"open_tree", 428, 0}, {"move_mount", 429, 0}, {"fsopen", 430, 0},
	{"clone3", 435, 0}, {"pidfd_getfd", 438, ^uintptr(0)}, {"mount_setattr", 442, 0}, {"iopl", 110, 3}, {"ioperm", 101, 0}, {"vm86", 166, 0},
	{"uselib", 86, 0}, {"personality", 136, 0x0040000}, {"settimeofday", 79, 0}, {"clock_settime", 264, ^uintptr(0)},
}

// compat tries doors of another width and returns what came of them, in words.
func compat(door string) string {
	switch door {
	case "socketcall":
		// The arguments have to lie where 32 bits lead to.
		place, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
		if err != nil {
			return err.Error()
		}
		copy(unsafe.Slice((*uint32)(unsafe.Pointer(&place[0])), 3), []uint32{unix.AF_ALG, unix.SOCK_SEQPACKET, 0})
		return word(int80(socketcall32, 1, uintptr(unsafe.Pointer(&place[0])), 0, 0, 0))
	case "socket":
		return word(int80(socket32, unix.AF_ALG, unix.SOCK_SEQPACKET, 0, 0, 0))
	case "socketpair":
		return word(int80(socketpair32, unix.AF_ALG, unix.SOCK_SEQPACKET, 0, 0, 0))
	case "x32":
		_, _, errno := unix.RawSyscall(x32+unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		return word(-uintptr(errno))
	}
	var open []string
	for _, c := range refused32 {
		if said := word(int80(c.number, c.arg, 0, 0, 0, 0)); said != "EPERM" && said != "ENOSYS" {
			open = append(open, fmt.Sprintf("%s (%s)", c.name, said))
		}
	}
	if open != nil {
		return strings.Join(open, ", ")
	}
	return "EPERM"
}

// word is what the kernel answered.
func word(answer uintptr) string {
	if n := int32(answer); n < 0 {
		return unix.ErrnoName(syscall.Errno(-n))
	}
	return "ALLOWED"
}
