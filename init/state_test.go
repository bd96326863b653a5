package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUnreadable: a file of STATE that cannot be read is not one that is not there. A
// folder in its place cannot be read by anybody.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	folder, none := filepath.Join(dir, "folder"), filepath.Join(dir, "none")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if data, err := readFile(none); data != nil || err != nil {
		t.Errorf("a file that is not there: %q, %v", data, err)
	}
	if _, err := readFile(folder); err == nil {
		t.Error("a file that cannot be read is no error")
	}
	if hash, err := readRecord(none); hash != "" || err != nil {
		t.Errorf("no record: %q, %v", hash, err)
	}
	if _, err := readRecord(folder); err == nil {
		t.Error("a record that cannot be read is no error")
	}
	hash := strings.Repeat("0f", 32)
	for text, want := range map[string]string{hash + "\n": hash, hash: hash, "": "", "\n": "", hash[:63]: "", strings.Repeat("\x00", 65): "", hash + "0f": ""} {
		file := filepath.Join(dir, "record")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readRecord(file); got != want || (err == nil) != (want != "") {
			t.Errorf("record %q: %q, %v", text, got, err)
		}
	}
}

// TestMachineID: an id that cannot be read stays for a later boot, and a damaged one is
// replaced and said.
func TestMachineID(t *testing.T) {
	const own = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		name    string
		text    string // "-": there is no file; "/": a folder is in its place
		keep    bool
		kept    bool // the id is what the file has afterwards
		problem string
	}{
		{"none", "-", true, true, ""},
		{"none, in memory", "-", false, false, ""},
		{"its own", own + "\n", true, true, ""},
		{"unreadable", "/", true, false, "cannot be read"},
		{"empty", "", true, true, "was damaged"},
		{"zeros", strings.Repeat("\x00", 33), true, true, "was damaged"},
		{"no hex digits", strings.Repeat("z", 32), true, true, "was damaged"},
	} {
		file := filepath.Join(t.TempDir(), "machine-id")
		var err error
		switch c.text {
		case "-":
		case "/":
			err = os.Mkdir(file, 0o700)
		default:
			err = os.WriteFile(file, []byte(c.text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		id, err := machineIDOf(file, c.keep)
		if !isHex(id, 32) || c.text == own+"\n" && id != own || (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %q, %v", c.name, id, err)
		}
		if text, err := os.ReadFile(file); (string(text) == id+"\n") != c.kept || c.text == "-" && !c.keep && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file has %q, %v", c.name, text, err)
		}
		if c.text == "/" {
			if st, err := os.Stat(file); err != nil || !st.IsDir() {
				t.Errorf("%s: it was replaced: %v", c.name, err)
			}
		}
	}
}

// TestCheckLimit: a check may take as long as its disk makes it.
func TestCheckLimit(t *testing.T) {
	for gib, want := range map[int64]time.Duration{0: 30 * time.Minute, 1: 32 * time.Minute, 64: 158 * time.Minute, 2048: 4126 * time.Minute} {
		if got := checkLimit(gib << 30); got != want {
			t.Errorf("%d GiB: %s, want %s", gib, got, want)
		}
	}
	if got := checkLimit(-1); got != 30*time.Minute {
		t.Errorf("no STATE: %s", got)
	}
}
