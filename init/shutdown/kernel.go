package shutdown

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/cgroup"
	"kogge.example/init/guard"
	"kogge.example/update/mountinfo"
)

// kernel is the machine that we run on.
type kernel struct{ o Options }

func (kernel) now() time.Time        { return time.Now() }
func (kernel) pause(d time.Duration) { time.Sleep(d) }

func (kernel) processes() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Kernel threads and zombies have no program.
		if _, err := os.Readlink("/proc/" + e.Name() + "/exe"); errors.Is(err, os.ErrNotExist) {
			continue
		}
		comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
		names = append(names, fmt.Sprintf("%s[%d]", strings.TrimSpace(string(comm)), pid))
	}
	return names, nil
}

func (kernel) terminate() error { return everybody(unix.SIGTERM) }

func (k kernel) kill() error {
	var errs []error
	if t := k.o.Cgroups; !t.None() { // at once, also what is frozen or forks
		errs = append(errs, t.Kill(cgroup.Workload), t.Kill(cgroup.System))
	}
	return errors.Join(append(errs, everybody(unix.SIGKILL))...)
}

// everybody signals all processes but ourselves. Only PID 1 means that: in any
// other process, such as a test, it would reach the whole machine.
func everybody(sig unix.Signal) error {
	if os.Getpid() != 1 {
		return errors.New("not PID 1")
	}
	if err := unix.Kill(-1, sig); err != nil && err != unix.ESRCH {
		return err
	}
	return nil
}

func (kernel) sync(limit time.Duration) error {
	return within(limit, func() error { unix.Sync(); return nil })
}

func (kernel) mounts() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mounts, err := mountinfo.Parse(string(b))
	if err != nil {
		return nil, err
	}
	var targets []string
	for _, m := range mounts {
		targets = append(targets, m.Target)
	}
	return targets, nil
}

func (kernel) unmount(target string, limit time.Duration) error {
	return within(limit, func() error { return unix.Unmount(target, unix.UMOUNT_NOFOLLOW) })
}

func (kernel) readonly(target string, limit time.Duration) error {
	return within(limit, func() error {
		return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	})
}

func (k kernel) patience() error { return k.o.Dog.SetMax() }

func (kernel) reboot(how How) error {
	if os.Getpid() != 1 {
		return errors.New("not PID 1")
	}
	if how == Poweroff {
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// within runs a system call that may hang in the kernel and waits for it until
// limit is over. One that hangs keeps its thread: there is no way to take it back.
func within(limit time.Duration, call func() error) error {
	done := make(chan error, 1)
	guard.Go("shutdown", func() { done <- call() })
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("not done within %v", limit.Round(time.Millisecond))
	}
}
