package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aio takes contexts of asynchronous input and output, whose events the kernel counts for
// all containers together.
func aio(string) error {
	for n := 0; ; n++ {
		var context uintptr
		if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1024, uintptr(unsafe.Pointer(&context)), 0); errno != 0 {
			return fmt.Errorf("context %d: %w", n, errno)
		}
	}
}
