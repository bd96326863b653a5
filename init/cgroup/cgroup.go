// Package cgroup keeps the node's cgroup v2 layout.
//
// A mounted hierarchy comes in; the groups /init, /system/<service>,
// /workload/.shims and /workload/<id> go out, with the controllers that containers
// need switched on, and with bounds that keep room for the node whatever containers
// do ([Bounds]). It mounts nothing, and leaves the groups below /workload to the agent.
//
// Source: Documentation/admin-guide/cgroup-v2.rst in the kernel tree.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The groups of a node, as paths below the root of the hierarchy.
const (
	Init     = "init"
	System   = "system"
	Workload = "workload"
	// Shims lies with the containers, as there is a shim for each: what they need is part
	// of what all containers can have. No container's name begins with a dot.
	Shims = Workload + "/.shims"
)

// controllers are those that a container's limits need; see [Tree.Setup].
var controllers = []string{"cpu", "cpuset", "io", "memory", "pids"}

// Tree is the folder at which a cgroup v2 hierarchy is mounted. The empty Tree
// is a machine without one: nothing can be done with it but to ask [Tree.None].
type Tree string

// Open returns the hierarchy mounted at dir, or an error that says what is
// there instead.
func Open(dir string) (Tree, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return "", fmt.Errorf("open cgroup hierarchy %s: %w", dir, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return "", fmt.Errorf("open cgroup hierarchy %s: not cgroup v2 (file system type %#x)", dir, fs.Type)
	}
	return Tree(dir), nil
}

// None says that there is no hierarchy.
func (t Tree) None() bool { return t == "" }

// Setup makes the node's groups, moves the calling process into /init, and
// switches the controllers on in the root, /system and /workload. Controllers
// that the kernel lacks are named in the error; the rest is done all the same.
func (t Tree) Setup() error {
	var errs []error
	for _, name := range []string{Init, System, Workload, Shims} {
		errs = append(errs, t.Make(name))
	}
	// A group with processes of its own cannot hand controllers down, so PID 1
	// leaves the root first. Kernel threads may stay.
	errs = append(errs, t.write(Init, "cgroup.procs", "0"))
	have, err := os.ReadFile(t.file("", "cgroup.controllers"))
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("read cgroup controllers: %w", err))...)
	}
	var lacking []string
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(string(have)), c) {
			lacking = append(lacking, c)
			continue
		}
		for _, name := range []string{"", System, Workload} {
			// One at a time: the kernel takes all of a line or nothing.
			errs = append(errs, t.write(name, "cgroup.subtree_control", "+"+c))
		}
	}
	if lacking != nil {
		errs = append(errs, fmt.Errorf("cgroup controllers missing in the kernel: %s", strings.Join(lacking, " ")))
	}
	return errors.Join(errs...)
}

// Make creates the group name if it is not there.
func (t Tree) Make(name string) error {
	err := os.Mkdir(t.file(name, ""), 0o755)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make cgroup /%s: %w", name, err)
	}
	return nil
}

// Renew makes the group name anew, with nothing left of a former one; an error
// says that somebody still lives there.
//
// Into a group that was once killed no process can be started: since Linux 6.14,
// and in the stable 6.12 that took over commit b69bb476dee9, clone3 compares the
// group's count of kills with that of the parent's group, and kills the child
// (seen with 6.18; mended by 8e3599202166). A new group counts from zero, as /init
// does, which is never killed.
func (t Tree) Renew(name string) error {
	if err := t.remove(name); err != nil {
		return err
	}
	return t.Make(name)
}

// remove removes a group and those below it.
func (t Tree) remove(name string) error {
	entries, err := os.ReadDir(t.file(name, ""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove cgroup /%s: %w", name, err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := t.remove(name + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	// rmdir alone: os.Remove would try to unlink first.
	if err := unix.Rmdir(t.file(name, "")); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove cgroup /%s: %w", name, err)
	}
	return nil
}

// Put moves a living process into the group name.
func (t Tree) Put(name string, pid int) error {
	return t.write(name, "cgroup.procs", strconv.Itoa(pid))
}

// OpenGroup returns a descriptor of the group name, for CLONE_INTO_CGROUP. The
// caller closes it.
func (t Tree) OpenGroup(name string) (fd int, err error) {
	fd, err = unix.Open(t.file(name, ""), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open cgroup /%s: %w", name, err)
	}
	return fd, nil
}

// Kill sends SIGKILL to every process in the group name and below it, in one
// step that a fork bomb cannot outrun. It does not wait; a group that is not
// there has no processes.
func (t Tree) Kill(name string) error {
	err := t.write(name, "cgroup.kill", "1")
	if errors.Is(err, os.ErrNotExist) {
		if _, gone := os.Stat(t.file(name, "")); errors.Is(gone, os.ErrNotExist) {
			return nil
		}
	}
	return err
}

// Signal sends sig once to each process that is in the group name or below it
// as the group is read.
func (t Tree) Signal(name string, sig unix.Signal) error {
	pids, err := t.procs(name)
	for _, pid := range pids {
		if kill := unix.Kill(pid, sig); kill != nil && kill != unix.ESRCH && err == nil {
			err = fmt.Errorf("signal process %d of cgroup /%s: %w", pid, name, kill)
		}
	}
	return err
}

// Populated says whether a process lives in the group name or below it. A group
// that is not there has none.
func (t Tree) Populated(name string) (bool, error) {
	b, err := os.ReadFile(t.file(name, "cgroup.events"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup /%s: %w", name, err)
	}
	return strings.Contains("\n"+string(b), "\npopulated 1"), nil
}

// Wait returns nil as soon as nobody lives in the group name, or the error of ctx.
func (t Tree) Wait(ctx context.Context, name string) error {
	const pause = 20 * time.Millisecond
	for {
		living, err := t.Populated(name)
		if err != nil || !living {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for cgroup /%s to empty: %w", name, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Of returns the path of the group in which process pid lives, without its
// leading slash, as the process that asks sees it.
func Of(pid int) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(b)) {
		// 0::/path is cgroup v2's line; other numbers are v1 hierarchies.
		if path, ok := strings.CutPrefix(line, "0::/"); ok {
			return strings.TrimRight(path, "\n"), nil
		}
	}
	return "", fmt.Errorf("read cgroup of process %d: no cgroup v2 line", pid)
}

// procs lists the processes of a group and of all below it.
func (t Tree) procs(name string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(t.file(name, ""), func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // removed under our eyes: nobody lives there
		}
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for _, field := range strings.Fields(string(b)) {
			// 0 stands for a process outside our PID namespace.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return pids, fmt.Errorf("list cgroup /%s: %w", name, err)
	}
	return pids, nil
}

func (t Tree) file(name, file string) string {
	return filepath.Join(string(t), filepath.FromSlash(name), file)
}

func (t Tree) write(name, file, value string) error {
	f, err := os.OpenFile(t.file(name, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set cgroup /%s %s: %w", name, file, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("set cgroup /%s %s to %q: %w", name, file, value, err)
	}
	return nil
}
