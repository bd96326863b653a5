package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kogge.example/image/debian"
	"kogge.example/image/debian/archive"
	"kogge.example/image/disk"
	"kogge.example/update/osrelease"
)

// TestMarkedImage builds where a locked package has left the mirror for a newer one, and
// without one of the suites: the image says both, in the root and before it is
// started, and no release can be made so.
func TestMarkedImage(t *testing.T) {
	_, _, o := build(t)
	const name, newer = "linux-image-cloud-amd64", "9999-1" // the image has no file of it
	lock, err := debian.LoadLock(o.Board.Name)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := lock.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	// All else is in the cache already.
	cached := o.Packages.Dir
	o.Packages.Dir = t.TempDir()
	for _, folder := range []string{"deb", "files"} {
		names, err := os.ReadDir(filepath.Join(cached, folder))
		if err == nil {
			err = os.Mkdir(filepath.Join(o.Packages.Dir, folder), 0o755)
		}
		for _, e := range names {
			if !strings.HasPrefix(e.Name(), fmt.Sprintf("%x", locked.SHA256)) {
				err = errors.Join(err, os.Symlink(filepath.Join(cached, folder, e.Name()), filepath.Join(o.Packages.Dir, folder, e.Name())))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a := archive.New(t)
	a.Publish(t, "trixie", name+" "+newer)
	a.Publish(t, "trixie-updates")
	o.Packages.Without = []string{"trixie-security"}
	var said []string
	o.Packages.Say = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	o.Say = o.Packages.Say
	path := filepath.Join(t.TempDir(), "marked.img")
	built, err := Build(t.Context(), o, path)
	if err != nil {
		t.Fatal(err)
	}
	const marks = "unlocked,without-trixie-security"
	if built.Marks != marks || !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "WARNING: package "+locked.String()+" has left") }) {
		t.Errorf("marks %q, said %q", built.Marks, said)
	}
	facts, err := osrelease.Read(filepath.Join(unpackRoot(t, path, o), osrelease.File))
	want := fmt.Sprintf("[%s=%s:amd64 instead of %s] [trixie-security]", name, newer, locked)
	if got := fmt.Sprint(facts.Unlocked, facts.WithoutSuites); err != nil || got != want {
		t.Errorf("the root says %s, want %s (%v)", got, want, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := disk.Inspect(f, st.Size()); err != nil || c.Marks != marks || c.String() != "Kogge 1.0-test for board qemu-x86_64 (unlocked, without-trixie-security)" {
		t.Errorf("the image says %q, %s, %v", c.Marks, c, err)
	}
	for _, without := range [][]string{o.Packages.Without, nil} {
		o.Packages.Without = without
		if without == nil {
			a.Publish(t, "trixie-security")
		}
		if _, err := Parts(t.Context(), o); !errors.Is(err, ErrMarked) {
			t.Errorf("a release, without %v: %v", without, err)
		}
	}
	o.Packages.Locked = true
	for what, make := range map[string]func() error{
		"an image":  func() error { _, err := Build(t.Context(), o, path); return err },
		"a release": func() error { _, err := Parts(t.Context(), o); return err },
	} {
		if err := make(); !errors.Is(err, debian.ErrGone) {
			t.Errorf("%s, locked: %v", what, err)
		}
	}
}
