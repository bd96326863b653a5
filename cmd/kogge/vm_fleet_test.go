package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/qemu"
	"kogge.example/update/fleet"
)

// TestVMFleetKept: the keys of a fleet of VMs are removed only by who has made them, and while none
// of the VMs runs.
func TestVMFleetKept(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("KOGGE_CONFIG", filepath.Join(dir, "config"))
	t.Setenv("KOGGE_CACHE", filepath.Join(dir, "cache"))
	kept := func(what string, n int, ring *keyring.Keyring, want error) {
		t.Helper()
		if _, err := newVMFleet(n); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := keyring.Load(ring.Dir); err != nil || now.Genesis.ID() != ring.Genesis.ID() {
			t.Errorf("%s: the keys are gone: %v", what, err)
		}
	}
	first, err := newVMFleet(3)
	must(t, err)
	// n2 is this program: it surely runs.
	stat, err := os.ReadFile("/proc/self/stat")
	must(t, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(t, err)
	vm, err := vmDir("n2")
	must(t, err)
	must(t, os.MkdirAll(vm, 0o700))
	must(t, os.WriteFile(filepath.Join(vm, "vm.json"), fmt.Appendf(nil, `{"version":1,"name":"n2","process":{"pid":%d,"start":%s,"boot":%q}}`, os.Getpid(), fields[19], strings.TrimSpace(string(boot))), 0o600))
	kept("while one runs", 3, first, qemu.ErrRunning)
	if _, err := newVMFleet(1); err != nil {
		t.Errorf("n2 runs, and is none of its VMs: %v", err)
	}
	second, err := keyring.Load(first.Dir)
	must(t, err)
	must(t, operate.RememberNode(second, "n2", operate.Node{Address: "127.0.0.1:1"}))
	kept("while one runs that has joined", 1, second, qemu.ErrRunning)
	must(t, os.RemoveAll(vm))
	third, err := newVMFleet(3)
	must(t, err)
	if third.Genesis.ID() == second.Genesis.ID() {
		t.Error("the old fleet is still there")
	}
	// One that somebody has created for trying things out, under the same name.
	must(t, os.RemoveAll(third.Dir))
	own, err := keyring.CreateWith(fleet.TrialPolicy(), vmFleet, "ada", third.Certificate().Leaf.NotBefore)
	must(t, err)
	must(t, own.Save(third.Dir, ""))
	kept("of somebody", 3, own, nil)
}
