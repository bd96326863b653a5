// Package namespace is, for tests, a second run of a test in Linux namespaces of its
// own: what it mounts, connects or starts there is gone with it.
//
// In comes a test and the namespaces it wants; out comes the output of its second run,
// and its failure. The package sets up no network and asks nobody's leave: a test that
// is not root skips itself and says what it needs root for.
package namespace

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// rootEnv marks the second run; its value is the folder for privateMounts.
const rootEnv = "KOGGE_TEST_NAMESPACE_ROOT"

// Run runs the calling test, one of top level, again in the namespaces of flags
// (CLONE_NEW*), with env ("NAME=value") beside the environment, and says whether this
// is that run:
//
//	if namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
//		// the test
//	}
//
// Outside it returns false once the second run has ended, with its output in the log;
// the test fails if that run failed. A second run does not outlive the first. Inside,
// CLONE_NEWNS brings mounts that the host does not see, and CLONE_NEWPID, which needs
// CLONE_NEWNS, a /proc to match; its end takes every process with it.
func Run(t *testing.T, flags uintptr, env ...string) (inside bool) {
	t.Helper()
	if root := os.Getenv(rootEnv); root != "" {
		if err := enter(flags, root); err != nil {
			t.Fatalf("enter namespaces: %v", err)
		}
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), env...), rootEnv+"="+newRoot(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("run in namespaces: %v", err)
	}
	return false
}

// enter makes the namespaces of this process fit to work in.
func enter(flags uintptr, root string) error {
	if flags&unix.CLONE_NEWNS == 0 {
		return nil // what we mounted would be the host's
	}
	if err := privateMounts(root); err != nil {
		return err
	}
	if flags&unix.CLONE_NEWPID != 0 {
		return os.NewSyscallError("mount /proc", unix.Mount("proc", "/proc", "proc", 0, ""))
	}
	return nil
}

// privateMounts keeps what this mount namespace mounts from the host. In a chroot,
// where / is no mount point and neither the kernel nor runc could make it private,
// the same tree at dir becomes the root.
func privateMounts(dir string) error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err != unix.EINVAL {
		return os.NewSyscallError("make / private", err)
	}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := unix.Mount("/", dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &os.PathError{Op: "bind / to", Path: dir, Err: err}
	}
	if err := unix.Mount("", dir, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return &os.PathError{Op: "make private", Path: dir, Err: err}
	}
	return errors.Join(os.Chdir(dir), unix.Chroot("."), os.Chdir(here))
}

// newRoot is the folder for privateMounts. On a host that shares its mounts the
// new root shows up there too, so it goes with the test.
func newRoot(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
