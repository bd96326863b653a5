package bridge

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nsfsMagic is NSFS_MAGIC of linux/magic.h: the file system that namespace files
// are bind mounts from.
const nsfsMagic = 0x6e736673

// isNamespace says whether a namespace is mounted on file.
func isNamespace(file string) bool {
	var st unix.Statfs_t
	return unix.Statfs(file, &st) == nil && int64(st.Type) == nsfsMagic
}

// newNamespace makes a network namespace, mounts it on file and returns it open.
func newNamespace(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("namespace file: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("namespace file: %w", err)
	}
	made := make(chan error)
	go func() {
		// The thread is in the new namespace for good: it stays locked, so it
		// ends with this goroutine and runs no other.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- fmt.Errorf("new network namespace: %w", err)
			return
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(self, file, "", unix.MS_BIND, ""); err != nil {
			made <- fmt.Errorf("mount network namespace on %s: %w", file, err)
			return
		}
		made <- nil
	}()
	if err := <-made; err != nil {
		return nil, errors.Join(err, removeNamespace(file))
	}
	ns, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("namespace file: %w", err)
	}
	return ns, nil
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
