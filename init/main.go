// Command init is the first program of a node, twice: stage 0 in the initramfs
// finds the slot and switches to its root, then PID 1 runs the node until it shuts
// it down. By its first argument it is also the network and clock services and the
// launcher of others; by the name it is called under it is the kernel's modprobe,
// poweroff and reboot.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/module"
	"kogge.example/init/supervise"
)

func main() {
	role := ""
	if len(os.Args) > 1 {
		role = os.Args[1]
	}
	switch name := filepath.Base(os.Args[0]); {
	case name == "modprobe":
		os.Exit(modprobe(os.Args[1:]))
	case name == "poweroff" || name == "reboot":
		exit(end(name))
	case name != "init" && name != filepath.Base(self):
		unknown(name)
	case os.Getpid() == 1: // whatever words the kernel passes on
		b, dog, err := stage0()
		if err != nil {
			fail(err)
		}
		pid1(b, dog)
	case role == "launch":
		exit(supervise.Launch(os.Args[2:]))
	case role == "network":
		exit(networkService())
	case role == "clock":
		exit(clockService())
	default:
		unknown(role)
	}
}

// unknown ends a call under a name that we do not know. It touches nothing: the
// kernel may call us for reasons of its own.
func unknown(name string) {
	fmt.Fprintf(os.Stderr, "init: %q is not a role of this program\n", name)
	os.Exit(2)
}

// exit ends a role that is not PID 1.
func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fail ends a boot that could not reach the root file system. The message stays
// long enough to be read; the restart uses up a try.
func fail(err error) {
	guard.Kmsg("stage 0: " + err.Error() + "; restart in 10 seconds")
	time.Sleep(10 * time.Second)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// modprobe answers the kernel's request for a module: "-q -- NAME".
func modprobe(args []string) int {
	x, err := openModules()
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

// openModules reads the index of the running kernel's modules.
func openModules() (*module.Index, error) {
	dir, err := module.Release()
	if err != nil {
		return nil, err
	}
	return module.Open(dir)
}

// end asks PID 1 for a poweroff or reboot, on behalf of the kernel: it calls
// /sbin/poweroff when the machine is about to overheat.
func end(how string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := control.Dial(ctx, control.Path)
	if err != nil {
		return err
	}
	defer c.Close()
	if how == "poweroff" {
		return c.Poweroff(ctx)
	}
	return c.Reboot(ctx)
}
