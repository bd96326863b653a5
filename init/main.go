// Command init is the first program of a node, twice: stage 0 in the initramfs
// finds the slot and switches to its root, then PID 1 runs the node until it shuts
// it down. By its first argument it is also the network and clock services and the
// launcher of others; by the name it is called under it is the kernel's modprobe.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/guard"
	"kogge.example/init/module"
	"kogge.example/init/mount"
)

// roleBoot is the argument with which stage 0 executes PID 1.
const roleBoot = "boot"

func main() {
	switch filepath.Base(os.Args[0]) {
	case "modprobe":
		os.Exit(modprobe(os.Args[1:]))
	case "init":
	default:
		unknown(os.Args[0])
	}
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch {
	case role == roleBoot && os.Getpid() == 1:
		pid1()
	case os.Getpid() == 1: // the kernel may pass words of its command line
		err := stage0()
		guard.Kmsg("stage 0: " + err.Error())
		time.Sleep(10 * time.Second) // somebody may read it
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	default:
		unknown(role)
	}
}

// unknown ends a call under a name that we do not know. It touches nothing.
func unknown(name string) {
	fmt.Fprintf(os.Stderr, "init: %q is no role of this program\n", name)
	os.Exit(2)
}

// modprobe answers the kernel's request for a module: "-q -- NAME".
func modprobe(args []string) int {
	dir, err := module.Release()
	if err != nil {
		return 1
	}
	x, err := module.Open(dir)
	if err != nil {
		return 1
	}
	for _, name := range args {
		if name == "" || name[0] == '-' {
			continue
		}
		if found, err := x.Load(name); err != nil || !found {
			return 1
		}
	}
	return 0
}

func pid1() {
	if err := mount.Early(); err != nil {
		guard.Kmsg(err.Error())
	}
	b, err := readBoot()
	if err != nil {
		guard.Kmsg(err.Error())
	}
	fmt.Println("kogge:", b)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
