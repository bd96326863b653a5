package images

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"kogge.example/agent/tarball"
)

// TestRefusals: what one release refuses another one looks at, and a file that cannot be read
// refuses nothing.
func TestRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kogge", "preloads.json")
	is := func(what, release string, want past) {
		t.Helper()
		if got := readPast(file, release); !got.same(want) || got.Release != release {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	is("no file", "1.0", past{})
	all := past{Release: "1.0", Refused: map[string]string{"web.tar 7 8": "it is empty"}, Beside: map[string][]string{"old.tar 1 2": {"example.invalid/web:1"}}}
	if err := all.write(file); err != nil {
		t.Fatal(err)
	}
	is("a file", "1.0", all)
	is("another release", "1.1", past{})
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	is("half a file", "1.0", past{})
}

// TestDamaged: what may pass is no fault of the file, whatever it was about.
func TestDamaged(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("import: %w", tarball.Refuse(errors.New("it has no image with a name"))), true},
		{fmt.Errorf("import: it is only a part of a tar: %w", io.ErrUnexpectedEOF), true},
		{fmt.Errorf("import: %w", flate.CorruptInputError(7)), true},
		{errors.New(`import: failed to resolve layers: layer "layer0.tar" not found`), true},
		{errors.New("unpack: wrong diff id calculated on extraction"), true},
		{errors.New("unpack: mount callback failed on /tmp/x: archive/tar: invalid tar header"), true},
		{fmt.Errorf("unpack: archive/tar: write too long: %w", unix.ENOSPC), false},
		{errors.New("unpack: unexpected EOF: read /state/x: input/output error"), false},
		{fmt.Errorf("import: unexpected EOF: %w", context.Canceled), false},
		{fmt.Errorf("unpack: error reading from server: unexpected EOF: %w", errdefs.ErrUnavailable), false},
		{fmt.Errorf("label a:1: image %q: %w", "a:1", errdefs.ErrNotFound), false},
		{errors.New("something else"), false},
	} {
		if got := damaged(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
