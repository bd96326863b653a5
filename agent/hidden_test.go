package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/confine"
)

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
