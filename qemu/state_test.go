package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kogge.example/update/golden"
)

// TestRecordVersion1 reads the file that version 1 writes, byte by byte, and
// refuses another version in words.
func TestRecordVersion1(t *testing.T) {
	want := record{
		Version: 1, Name: "n1", Process: ident{PID: 4711, Start: 12345, Boot: "3b0cf1ab-0000-4000-8000-000000000000"},
		Started:  time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC),
		Forwards: []Forward{{Host: 8080, Guest: 80}}, Detached: true, Command: "cd /vm/n1\nqemu-system-x86_64\n",
		Images: []stamp{{Path: "/images/base.img", Size: 1 << 30, ModTime: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}},
	}
	dir := t.TempDir()
	if err := writeRecord(dir, want); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, vmFile))
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "vm-1.json", string(written))
	file := filepath.Join("testdata", "vm-1.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(file, data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseRecord("vm.json", []byte(`{"version": 2}`)); err == nil || !strings.Contains(err.Error(), "version 2 is not supported, only 1") {
		t.Errorf("version 2: %v", err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"n1","process":{"pid":1}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) { parseRecord("vm.json", data) })
}

func TestParseStat(t *testing.T) {
	const line = "4711 (qemu) system) x) S 1 4711 4711 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 5 0 987654 1 2"
	got, err := parseStat(line)
	if want := (stat{state: 'S', ticks: 127, start: 987654}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("1 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20")
	f.Add(")")
	f.Fuzz(func(t *testing.T, line string) { parseStat(line) })
}

// TestStale meets folders of machines that are gone: their process ended, or its
// number belongs to somebody else by now.
func TestStale(t *testing.T) {
	all := t.TempDir()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	self := identify(os.Getpid())
	if !self.alive() {
		t.Fatal("this process is not alive")
	}
	older, otherBoot := self, self
	older.Start--
	otherBoot.Boot = "another"
	for name, id := range map[string]ident{"ended": identify(ended.Process.Pid), "older": older, "other-boot": otherBoot, "zero": {}} {
		dir := filepath.Join(all, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeRecord(dir, record{Name: name, Process: id}); err != nil {
			t.Fatal(err)
		}
		if _, err := Attach(dir); !errors.Is(err, ErrNotRunning) {
			t.Errorf("attach to %s: %v", name, err)
		}
		// Were it to reach anybody, it would be us.
		if err := id.signal(syscall.SIGKILL); err != nil && name != "zero" {
			t.Errorf("signal %s: %v", name, err)
		}
	}
	os.MkdirAll(filepath.Join(all, "no-vm"), 0o700)
	os.MkdirAll(filepath.Join(all, "broken"), 0o700)
	os.WriteFile(filepath.Join(all, "broken", vmFile), []byte("{"), 0o600)
	os.WriteFile(filepath.Join(all, "a-file"), nil, 0o600)
	infos, err := List(all)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range infos {
		if i.Running {
			t.Errorf("%s passes for running", i.Name)
		}
		if (i.Err != nil) != (i.Name == "broken") {
			t.Errorf("%s: %v", i.Name, i.Err)
		}
		names = append(names, i.Name)
	}
	if diff := cmp.Diff([]string{"broken", "ended", "older", "other-boot", "zero"}, names); diff != "" {
		t.Error(diff)
	}
	if infos, err := List(filepath.Join(all, "missing")); err != nil || infos != nil {
		t.Errorf("list a missing folder: %v, %v", infos, err)
	}
	if err := Remove(filepath.Join(all, "no-vm")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("remove a folder without VM: %v", err)
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[1;32mready\x1b[0m\r":                "ready",
		"\x1b[2J\x1b[01;01H\x1b[=3h\x1bcBdsDxe:":  "BdsDxe:",
		"\x1b]0;title\x07text\x1b]8;;x\x1b\\link": "textlink",
		"\x1b(B\x1b)0a\tb\x00\x7f":                "a\tb",
		"half \x1b[":                              "half [",
	} {
		if got := plain([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzLines feeds a log in two pieces: the cut changes nothing, and nothing but
// line breaks and control characters is lost between the lines.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n\x1b[1mb\nc"), 3)
	f.Add([]byte(strings.Repeat("x", maxLine+3)+"\n"), 100)
	f.Fuzz(func(t *testing.T, log []byte, cut int) {
		cut = max(0, min(cut, len(log)))
		var whole, parts lineReader
		want := append(whole.add(log), whole.rest()...)
		got := append(parts.add(log[:cut]), parts.add(log[cut:])...)
		got = append(got, parts.rest()...)
		if len(log) <= maxLine { // a longer line is cut where a read ended
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(logLine{})); diff != "" {
				t.Error(diff)
			}
		}
	})
}
