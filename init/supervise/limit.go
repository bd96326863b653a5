package supervise

import (
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limit takes all capabilities but keep (CAP_ numbers) from the whole running
// process, for good and from every descendant, and sets no_new_privs: what
// [Service.Limit] does to a program that cannot do it itself, without the cost of
// one more exec. It has to come before the process does anything for others.
func Limit(keep ...int) error {
	for c := range unix.CAP_LAST_CAP + 1 {
		if slices.Contains(keep, c) {
			continue
		}
		// EINVAL: an older kernel does not know the capability.
		if err := everyThread(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c)); err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := everyThread(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := capabilities(keep)
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0]))); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// everyThread makes a system call in all threads of the process: capabilities
// belong to a thread.
func everyThread(call, a, b uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(call, a, b, 0); errno != 0 {
		return errno
	}
	return nil
}

// capabilities are the kernel's sets with exactly keep, none of it inheritable.
func capabilities(keep []int) (data [2]unix.CapUserData) {
	for _, c := range keep {
		bit := uint32(1) << (c % 32)
		data[c/32].Effective |= bit
		data[c/32].Permitted |= bit
	}
	return data
}
