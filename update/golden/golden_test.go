package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// other is a test of another package: it keeps what Compare says to it.
type other struct {
	testing.TB
	said string
}

func (o *other) Name() string                   { return "TestLayout/small_disk" }
func (o *other) Helper()                        {}
func (o *other) Errorf(format string, a ...any) { o.said += fmt.Sprintf(format, a...) }
func (o *other) Fatalf(format string, a ...any) { o.Errorf(format, a...); runtime.Goexit() }
func (o *other) Fatal(a ...any)                 { o.Fatalf("%s", fmt.Sprint(a...)) }

// compare returns what a test that compares got is told.
func compare(t *testing.T, updating bool, name, got string) string {
	t.Helper()
	before := *update
	*update = updating
	defer func() { *update = before }()
	o := &other{TB: t}
	done := make(chan struct{})
	go func() { // of its own, which Fatal ends
		defer close(done)
		Compare(o, name, got)
	}()
	<-done
	return o.said
}

// TestCompare follows one file of testdata: not there yet, made, as it should be, no
// longer as it should be, rewritten.
func TestCompare(t *testing.T) {
	module := t.TempDir()
	pkg := filepath.Join(module, "disk", "layout")
	if err := os.MkdirAll(pkg, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(module, "go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(pkg)
	const name, command = "small/disk.txt", "go test ./disk/layout -run '^TestLayout$' -update"
	for _, c := range []struct {
		title    string
		updating bool
		got      string
		file     string
		says     []string
	}{
		{"not there", false, "ESP\nSTATE\n", "", []string{"testdata/small/disk.txt: no such file", command}},
		{"made", true, "ESP\nSTATE\n", "ESP\nSTATE\n", nil},
		{"the same", false, "ESP\nSTATE\n", "ESP\nSTATE\n", nil},
		{"another", false, "ESP\nROOT-A\n", "ESP\nSTATE\n", []string{"testdata/small/disk.txt (-want +got; " + command, "STATE", "ROOT-A"}},
		{"rewritten", true, "ESP\nROOT-A\n", "ESP\nROOT-A\n", nil},
		{"the same again", false, "ESP\nROOT-A\n", "ESP\nROOT-A\n", nil},
	} {
		said := compare(t, c.updating, name, c.got)
		if (said == "") != (len(c.says) == 0) {
			t.Errorf("%s: says %q", c.title, said)
		}
		for _, part := range c.says {
			if !strings.Contains(said, part) {
				t.Errorf("%s: says %q, want %q in it", c.title, said, part)
			}
		}
		file, err := os.ReadFile(filepath.Join("testdata", name))
		if string(file) != c.file || (err != nil) != (c.file == "") {
			t.Errorf("%s: the file holds %q, %v, want %q", c.title, file, err, c.file)
		}
	}
	if err := os.RemoveAll("testdata"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if said := compare(t, true, name, "ESP\n"); !strings.Contains(said, "testdata") {
		t.Errorf("where no file can be made: says %q", said)
	}
}
