package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/confine"
)

// TestEndsHog: a hog whose sockets are full of what nobody reads is found by what the kernel
// tells of it, and ended by the kernel. How much memory is left is told by files of the test.
func TestEndsHog(t *testing.T) {
	group, ok := ownGroup(t)
	if !ok {
		t.Log("no cgroup v2 that this user may write to")
		return
	}
	hog := filepath.Join(t.TempDir(), "hog")
	out, err := exec.Command("go", "build", "-o", hog, "kogge.example/qemu/e2e/hog").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	root := t.TempDir()
	instance := filepath.Join(root, "workload", "pg.hog-1")
	must(t, os.MkdirAll(instance, 0o755))
	for _, file := range []string{"cgroup.procs", "cgroup.kill"} {
		must(t, os.Symlink(filepath.Join(group, file), filepath.Join(instance, file)))
	}
	for file, text := range map[string]string{
		"meminfo": "MemTotal: 240000 kB\nMemAvailable: 10000 kB\n", "workload/memory.max": "200000000\n", "workload/memory.current": "1000000\n",
	} {
		must(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644))
	}
	dir, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(dir)
	limit, end := context.WithTimeout(t.Context(), 2*time.Minute)
	defer end()
	cmd := exec.CommandContext(limit, "/bin/sh", "-c", `ulimit -n 64; exec "$@"`, "sh", hog, "messages", "/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: dir, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	must(t, os.Symlink(fmt.Sprint("/proc/", cmd.Process.Pid), filepath.Join(root, fmt.Sprint(cmd.Process.Pid))))
	var p parts
	ctx, cancel := context.WithCancel(t.Context())
	done := alongside(ctx, func(ctx context.Context) {
		p.watchMemory(ctx, confine.Looker{Proc: root, Cgroups: root, Group: "/workload"})
	})
	defer func() { cancel(); done() }()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" || limit.Err() != nil {
		t.Errorf("the hog ends: %v", err)
	}
	all, _, _ := p.events.After(0)
	if len(all) != 1 || all[0].Object != "pg.hog-1" || !strings.HasSuffix(all[0].Text, " MiB of kernel memory that does not count against its limit, unread in its sockets") {
		t.Errorf("%+v", all)
	}
	t.Logf("%+v", all)
}

// ownGroup makes a group of the host's cgroup v2, where there is one.
func ownGroup(t *testing.T) (string, bool) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[2] == "cgroup2" {
			if group, err := os.MkdirTemp(f[1], "kogge-test"); err == nil {
				t.Cleanup(func() { must(t, os.Remove(group)) })
				return group, true
			}
		}
	}
	return "", false
}

// TestWatchMemory: the container that holds memory which counts against no limit is ended
// once, with words, and nobody is before it or after it.
func TestWatchMemory(t *testing.T) {
	root := t.TempDir()
	write := func(file, text string) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, file+".new"), []byte(text), 0o644))
		must(t, os.Rename(filepath.Join(root, file+".new"), filepath.Join(root, file))) // none sees half of it
	}
	memory := func(available int) {
		write("meminfo", fmt.Sprintf("MemTotal: 1024000 kB\nMemAvailable: %d kB\n", available<<10))
	}
	memory(500)
	write("workload/memory.max", "851443712\n")
	write("workload/memory.current", "104857600\n")
	for name, objects := range map[string]int{"pg.hog": 50 << 20, "pg.web": 2 << 20} {
		write("workload/"+name+"/memory.stat", fmt.Sprintf("slab_unreclaimable %d\n", objects))
		write("workload/"+name+"/cgroup.kill", "")
		write("workload/"+name+"/cgroup.procs", "1\n")
	}
	killed := func(name string) bool {
		text, err := os.ReadFile(filepath.Join(root, "workload", name, "cgroup.kill"))
		must(t, err)
		return len(text) > 0
	}
	synctest.Test(t, func(t *testing.T) {
		var p parts
		ctx, cancel := context.WithCancel(t.Context())
		done := alongside(ctx, func(ctx context.Context) {
			p.watchMemory(ctx, confine.Looker{Proc: root, Cgroups: root, Group: "/workload"})
		})
		defer func() { cancel(); done() }()
		time.Sleep(time.Minute)
		if all, _, _ := p.events.After(0); len(all) > 0 || killed("pg.hog") {
			t.Errorf("with room enough: %+v", all)
		}
		memory(40)
		time.Sleep(confine.Settled)
		all, _, _ := p.events.After(0)
		const want = "ended by the node: 672 MiB of kernel memory count against nobody's limit, and of what such memory hangs on (files, sockets) it held most, 50 MiB"
		if len(all) != 1 || !killed("pg.hog") || all[0].Object != "pg.hog" || all[0].What != "out of memory" || all[0].Text != want {
			t.Errorf("%+v", all)
		}
		// Its processes end slowly: meanwhile nobody else is to blame.
		write("workload/pg.web/memory.stat", "slab_unreclaimable 80000000\n")
		time.Sleep(goneWithin / 2)
		memory(700)
		write("workload/pg.hog/cgroup.procs", "")
		time.Sleep(time.Minute)
		if all, _, _ := p.events.After(0); len(all) != 1 || killed("pg.web") {
			t.Errorf("afterwards: %+v", all)
		}
		// None of those that are left holds enough.
		write("workload/pg.hog/memory.stat", "slab_unreclaimable 0\n")
		write("workload/pg.web/memory.stat", "slab_unreclaimable 1000000\n")
		memory(40)
		time.Sleep(time.Minute)
		if all, _, _ := p.events.After(0); len(all) != 1 || killed("pg.web") {
			t.Errorf("nobody to blame: %+v", all)
		}
	})
}
