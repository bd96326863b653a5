// Package namespace is, for tests, a second run of a test in Linux namespaces of its
// own: what it mounts, connects or starts there is gone with it.
//
// In comes a test and the namespaces it wants; out comes the output of its second run,
// and its failure. The package sets up no network and asks nobody's leave: a test that
// is not root skips itself and says what it needs root for.
package namespace

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv marks the second run: "1", or "2" once it has started over in ownRoot.
const insideEnv = "KOGGE_TEST_NAMESPACE"

// Run runs the calling test, one of top level, again in the namespaces of flags
// (CLONE_NEW*), with env ("NAME=value") beside the environment, and says whether this
// is that run:
//
//	if namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
//		// the test
//	}
//
// Outside it returns false once the second run has ended, with its output in the log;
// the test fails if that run failed. With -short there is none, and the test is skipped. A second run does not outlive the first. Inside,
// CLONE_NEWUSER brings all capabilities, over what belongs to the namespaces,
// CLONE_NEWNS brings mounts that the host does not see, and CLONE_NEWPID, which needs
// CLONE_NEWNS, a /proc to match; its end takes every process with it.
func Run(t *testing.T, flags uintptr, env ...string) (inside bool) {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		if err := enter(flags); err != nil {
			t.Fatalf("enter namespaces: %v", err)
		}
		return true
	}
	if testing.Short() {
		t.Skip("runs as root in namespaces of its own: left out by -short")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), env...), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		// All ids but one: whoever compares the table with the host's can tell.
		ids := []syscall.SysProcIDMap{{Size: min(1<<32-2, math.MaxInt)}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings, cmd.SysProcAttr.GidMappingsEnableSetgroups = ids, ids, true
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("run in namespaces: %v", err)
	}
	return false
}

// enter makes the namespaces of this process fit to work in.
func enter(flags uintptr) error {
	if flags&unix.CLONE_NEWNS == 0 {
		return nil // what we mounted would be the host's
	}
	if err := privateMounts(); err != nil {
		return err
	}
	if flags&unix.CLONE_NEWPID != 0 {
		return os.NewSyscallError("mount /proc", unix.Mount("proc", "/proc", "proc", 0, ""))
	}
	return nil
}

// privateMounts keeps what this mount namespace mounts from the host.
func privateMounts() error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == unix.EINVAL && os.Getenv(insideEnv) == "1" {
		return ownRoot()
	}
	return os.NewSyscallError("make / private", err)
}

// ownRoot is for a chroot. There / is no mount point, which neither the kernel nor
// runc could make private, and the root of the mount namespace is the host's: that of
// a container would be, too, and what is to run inside of it would find itself in the
// host's files. So the tree at / becomes the root of this namespace, and the program
// starts over in it. It returns only with an error.
//
// Source: setns(2), which leads to the root of the namespace it enters, also if it is
// in that one already; pivot_root(2).
func ownRoot() error {
	runtime.LockOSThread()                    // its root is its own from here on, until the exec
	program, err := os.Open("/proc/self/exe") // its path may be another one then
	if err != nil {
		return err
	}
	defer program.Close()
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	own, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("setns", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("make the host's / private", err)
	}
	fd := int(root.Fd())
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := unix.Fchdir(tree); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// The old root lies on the new one for a moment.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("unmount the host's /", err)
	}
	if err := unix.Chdir(here); err != nil {
		return &os.PathError{Op: "chdir", Path: here, Err: err}
	}
	if err := os.Setenv(insideEnv, "2"); err != nil {
		return err
	}
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), os.Args, os.Environ())
	return &os.PathError{Op: "exec", Path: os.Args[0], Err: err}
}
