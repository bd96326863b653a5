package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/init/mount"

	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// TestRoles calls the program under names and with roles that are none of its own:
// it says so, exits with 2, and touches nothing. The kernel calls it as modprobe.
func TestRoles(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	for _, c := range []struct {
		args []string // with the name in front
		exit int
		err  string
	}{
		{[]string{"foo"}, 2, `init: "foo" is not a role of this program`},
		{[]string{"/sbin/foo", "network"}, 2, `init: "foo" is not a role of this program`},
		{[]string{""}, 2, `init: "." is not a role of this program`},
		{[]string{"init"}, 2, `init: "" is not a role of this program`},
		{[]string{"/init", "foo"}, 2, `init: "foo" is not a role of this program`},
		{[]string{"init", "--help"}, 2, `init: "--help" is not a role of this program`},
		{[]string{"init", "", "network"}, 2, `init: "" is not a role of this program`},
		{[]string{"exe", "pid1"}, 2, `init: "pid1" is not a role of this program`},
		{[]string{"init", "modprobe"}, 2, `init: "modprobe" is not a role of this program`},
		{[]string{"init", "launch"}, 1, "init: "},
		// On a machine without our modules, or without this one.
		{[]string{"/sbin/modprobe", "-q", "--", "kogge-no-such-module"}, 1, ""},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			dir := t.TempDir()
			cmd := exec.CommandContext(ctx, program)
			cmd.Args, cmd.Dir, cmd.Env = c.args, dir, []string{"HOME=" + dir, "TMPDIR=" + dir}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != c.exit || !strings.Contains(string(out), c.err) || strings.Contains(string(out), "goroutine") {
				t.Errorf("%v: %s", err, out)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
	if _, err := os.Stat(runDir); err == nil {
		t.Errorf("there is a %s", runDir)
	}
}

// TestReadBootPartition looks for a node.yaml on boot partitions good and bad.
func TestReadBootPartition(t *testing.T) {
	const size = 40 << 20
	with := func(files map[string]string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "esp")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var entries []fat.File
		for name, text := range files {
			entries = append(entries, fat.File{Path: name, Size: int64(len(text)), Data: strings.NewReader(text)})
		}
		if err := errors.Join(f.Truncate(size), fat.Format(f, fat.Spec{Size: size, Label: "KOGGE", When: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, entries)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	table := gpt.Table{Partitions: []gpt.Partition{{Number: 1, Name: partition.ESP, First: 64, Last: 64 + size/gpt.SectorSize - 1}}}
	for _, c := range []struct {
		name string
		disk mount.Disk
		want string
		err  bool
	}{
		{name: "no disk"},
		{name: "a seed", disk: mount.Disk{Name: "x", Parts: map[string]string{partition.ESP: with(map[string]string{bootSeed: "hostname: x\n"})}, Table: table}, want: "hostname: x\n"},
		{name: "no seed", disk: mount.Disk{Name: "x", Parts: map[string]string{partition.ESP: with(nil)}, Table: table}},
		{name: "no FAT", disk: mount.Disk{Name: "x", Parts: map[string]string{partition.ESP: garbage}, Table: table}, err: true},
		{name: "no device", disk: mount.Disk{Name: "x", Parts: map[string]string{partition.ESP: garbage + ".gone"}, Table: table}, err: true},
		{name: "no partition", disk: mount.Disk{Name: "x", Parts: map[string]string{partition.ESP: garbage}}, err: true},
	} {
		data, err := readBootPartition(c.disk, bootSeed)
		if string(data) != c.want || (data == nil) != (c.want == "") || (err != nil) != c.err {
			t.Errorf("%s: %q, %v", c.name, data, err)
		}
	}
}

// TestServices holds what a node starts against what DESIGN promises of each: all
// are watched, and the two that are vital are those whose failure ends a trial.
func TestServices(t *testing.T) {
	var names, vital []string
	for _, s := range (&node{}).services() {
		names = append(names, s.Name)
		if s.Vital {
			vital = append(vital, s.Name)
		}
		if !s.Notify || s.WatchdogTimeout == 0 {
			t.Errorf("%s is not watched", s.Name)
		}
		for _, after := range s.After {
			if !strings.Contains(strings.Join(names, " "), after) {
				t.Errorf("%s waits for %s, which starts later or never", s.Name, after)
			}
		}
	}
	if got := strings.Join(vital, " "); got != "containerd agent" {
		t.Errorf("vital are %q", got)
	}
}
