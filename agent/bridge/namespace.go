package bridge

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

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
		err = owned(owner, mount)
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

// owned calls mount with the folder in /proc of a process that is in a user namespace of
// owner's ids and a network namespace of that. The namespace is that user's who is root in
// it: what its processes hold of the kernel is counted as his, and not root's for all
// containers.
func owned(owner workload.Owner, mount func(process string) error) error {
	var ids []syscall.SysProcIDMap
	for _, m := range owner.Mappings() {
		ids = append(ids, syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Node), Size: int(m.Size)})
	}
	done := make(chan error)
	go func() {
		// The thread has another user for good: it stays locked, so it ends with this
		// goroutine and runs no other. Until then it traces the process.
		runtime.LockOSThread()
		process, err := held(int(owner.First), ids)
		if err == nil {
			err = mount(fmt.Sprintf("/proc/%d", process.Pid))
			_ = process.Kill()
			_, waited := process.Wait()
			err = errors.Join(err, waited)
		}
		done <- err
	}()
	return <-done
}

// held starts a process in new namespaces, as the user id, but with this one's capabilities,
// without which nobody maps ids. The process stands still: it is traced from before its
// program begins.
func held(id int, ids []syscall.SysProcIDMap) (*os.Process, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if err := unix.Capget(&header, &has[0]); err != nil {
		return nil, os.NewSyscallError("capget", err)
	}
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(id), same); errno != 0 { // of this thread alone
		return nil, os.NewSyscallError("setresuid", errno)
	}
	if err := unix.Capset(&header, &has[0]); err != nil {
		return nil, os.NewSyscallError("capset", err)
	}
	return os.StartProcess("/proc/self/exe", []string{"namespace"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, Unshareflags: unix.CLONE_NEWNET,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Ptrace: true, Pdeathsig: unix.SIGKILL,
	}})
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
