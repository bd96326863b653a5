package bridge

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/containerd/containerd/v2/pkg/sys"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// nsfsMagic is NSFS_MAGIC of linux/magic.h: the file system that namespace files
// are bind mounts from.
const nsfsMagic = 0x6e736673

// isNamespace says whether a namespace is mounted on file.
func isNamespace(file string) bool {
	var st unix.Statfs_t
	return unix.Statfs(file, &st) == nil && int64(st.Type) == nsfsMagic
}

// newNamespace makes a network namespace, mounts it on file and returns it open. With an
// owner it belongs to a new user namespace, which is mounted on that one's file: only so
// do the capabilities that a container has there count in its network.
func newNamespace(file string, owner workload.Owner) (*os.File, error) {
	files := map[string]string{"net": file}
	if owner.File != "" {
		files["user"] = owner.File
	}
	for _, path := range files {
		if err := touch(path); err != nil {
			return nil, err
		}
	}
	mount := func(process string) error {
		for kind, path := range files {
			if err := unix.Mount(process+"/ns/"+kind, path, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount %s namespace on %s: %w", kind, path, err)
			}
		}
		return nil
	}
	var err error
	if owner.File != "" {
		ids := fmt.Sprintf("0:%d:%d", owner.First, workload.IDs)
		err = sys.UnshareAfterEnterUserns(ids, ids, unix.CLONE_NEWNET, func(pid int) error { return mount(fmt.Sprintf("/proc/%d", pid)) })
	} else {
		err = unshared(mount)
	}
	if err != nil {
		for _, path := range files {
			err = errors.Join(err, removeNamespace(path))
		}
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	ns, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("namespace file: %w", err)
	}
	return ns, nil
}

// unshared calls mount with the folder in /proc of a thread that is in a network
// namespace of its own.
func unshared(mount func(process string) error) error {
	done := make(chan error)
	go func() {
		// The thread is in the new namespace for good: it stays locked, so it
		// ends with this goroutine and runs no other.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = mount(fmt.Sprintf("/proc/self/task/%d", unix.Gettid()))
		}
		done <- err
	}()
	return <-done
}

// within calls f on a thread inside the network namespace: what lies below /proc/sys/net
// is that of whoever asks.
func within(ns *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, as above
		err := os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// touch makes an empty file to mount a namespace on, if there is none.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("namespace file: %w", err)
	}
	return nil
}

// removeNamespace unmounts and removes file; a missing one is no error. Processes
// in the namespace keep it alive.
func removeNamespace(file string) error {
	for isNamespace(file) {
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", file, err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("namespace file: %w", err)
	}
	return nil
}

// handleAt opens route netlink inside the namespace.
func handleAt(ns *os.File) (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in the namespace: %w", err)
	}
	return h, nil
}
