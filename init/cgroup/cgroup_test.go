package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const limit = time.Minute

// TestMain lets the test binary be the process that moves itself; see TestKernel.
func TestMain(m *testing.M) {
	if dir := os.Getenv("KOGGE_TEST_SETUP"); dir != "" {
		if err := Tree(dir).Setup(); err != nil {
			os.Stdout.WriteString(err.Error())
		}
		group, err := Of(os.Getpid())
		if err != nil || !strings.HasSuffix(group, filepath.Base(dir)+"/"+Init) {
			os.Stdout.WriteString(" lives in " + group)
		}
		return
	}
	os.Exit(m.Run())
}

// paper is a folder with the files of a cgroup hierarchy and no kernel behind
// them: what is written stays to be read.
func paper(t *testing.T, controllers string) Tree {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"", Init, System, Shims, Workload} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			"cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.kill": "",
			"cgroup.controllers": controllers, "cgroup.events": "populated 0\nfrozen 0\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return Tree(dir)
}

func (t Tree) read(name, file string) string {
	b, _ := os.ReadFile(t.file(name, file))
	return string(b)
}

func TestSetup(t *testing.T) {
	tree := paper(t, "cpuset cpu io memory hugetlb pids rdma misc\n")
	if err := tree.Setup(); err != nil {
		t.Fatal(err)
	}
	if got := tree.read(Init, "cgroup.procs"); got != "0" {
		t.Errorf("/init: %q", got)
	}
	for _, name := range []string{"", System, Workload} { // on paper the last write comes to lie on top
		if got := tree.read(name, "cgroup.subtree_control"); !strings.HasPrefix(got, "+pids") {
			t.Errorf("/%s subtree_control: %q", name, got)
		}
	}
	if got := tree.read(Init, "cgroup.subtree_control"); got != "" {
		t.Errorf("/init subtree_control: %q", got)
	}
	err := paper(t, "cpu pids\n").Setup()
	if err == nil || err.Error() != "cgroup controllers missing in the kernel: cpuset io memory" {
		t.Errorf("poor kernel: %v", err)
	}
	if err := Tree(t.TempDir()).Setup(); err == nil {
		t.Error("set up an empty folder")
	}
}

func TestPopulated(t *testing.T) {
	tree := paper(t, "")
	for events, want := range map[string]bool{"populated 0\nfrozen 1\n": false, "populated 1\nfrozen 0\n": true, "frozen 0\npopulated 1\n": true, "": false} {
		if err := os.WriteFile(tree.file(System, "cgroup.events"), []byte(events), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := tree.Populated(System); got != want || err != nil {
			t.Errorf("%q: %v, %v", events, got, err)
		}
	}
	if got, err := tree.Populated("system/none"); got || err != nil {
		t.Errorf("a group that is not there: %v, %v", got, err)
	}
	if err := tree.Kill("system/none"); err != nil {
		t.Errorf("kill in a group that is not there: %v", err)
	}
	if err := os.WriteFile(tree.file(System, "cgroup.events"), []byte("populated 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := tree.Wait(ctx, System); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for the living: %v", err)
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not cgroup v2") {
		t.Errorf("a plain folder: %v", err)
	}
	if _, err := Open("/no/such/folder"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if !Tree("").None() || Tree("/x").None() {
		t.Error("None is not the empty tree")
	}
}

// TestKernel does with the kernel's own hierarchy what the other tests do on
// paper, where there is one that this user may write to. In a VM of our own
// image that is always so.
func TestKernel(t *testing.T) {
	tree, ok := own(t)
	if !ok {
		t.Log("no cgroup v2 that this user may write to: tested on paper only")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "KOGGE_TEST_SETUP="+string(tree))
	out, err := cmd.CombinedOutput()
	// The machine that tests may keep its controllers for cgroup v1.
	if text := string(out); err != nil || text != "" && !strings.HasPrefix(text, "cgroup controllers missing in the kernel:") || strings.Contains(text, " lives in ") {
		t.Errorf("setup: %v %s", err, out)
	}
	const group = System + "/test"
	if err := tree.Make(group); err != nil {
		t.Fatal(err)
	}
	fd, err := tree.OpenGroup(group)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	sleeper := exec.Command("/bin/sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & wait; wait")
	sleeper.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for pids := []int(nil); len(pids) < 3; pids, err = tree.procs("") {
		if err != nil || ctx.Err() != nil {
			t.Fatal(err, ctx.Err())
		}
	}
	if name, err := Of(sleeper.Process.Pid); err != nil || !strings.HasSuffix(name, "/"+group) {
		t.Errorf("sleeper lives in %s, %v", name, err)
	}
	if got, err := tree.Populated(System); !got || err != nil {
		t.Errorf("populated: %v, %v", got, err)
	}
	if err := tree.Signal(System, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := tree.Kill(System); err != nil {
		t.Error(err)
	}
	_ = sleeper.Wait()
	if err := tree.Wait(ctx, ""); err != nil {
		t.Error(err)
	}
	if err := tree.Renew(group); err != nil {
		t.Error(err)
	}
	again, err := tree.OpenGroup(group)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	quick := exec.Command("/bin/sleep", "0.1") // long enough to be killed
	quick.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: again}
	if err := quick.Run(); err != nil {
		t.Errorf("in a group that was killed and renewed: %v", err)
	}
	late := exec.Command("/bin/sleep", "1000")
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Put(group, late.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := tree.Renew(group); err == nil {
		t.Error("renewed with somebody in it")
	}
	if err := errors.Join(tree.Kill(group), late.Process.Kill()); err != nil {
		t.Error(err)
	}
	_ = late.Wait()
}

// own is a fresh group of the host's hierarchy.
func own(t *testing.T) (Tree, bool) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		root, err := Open(f[1])
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp(string(root), "kogge-test")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			var groups []string
			_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					groups = append(groups, path)
				}
				return nil
			})
			for _, g := range slices.Backward(groups) {
				_ = os.Remove(g)
			}
		})
		return Tree(dir), true
	}
	return "", false
}
