package superblock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// made is a file system of 64 MiB.
func made(t testing.TB, options ...string) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ext4")
	if out, err := exec.Command("mke2fs", append(append([]string{"-q", "-t", "ext4", "-b", "4096"}, options...), name, "64M")...).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func checked(t *testing.T, f *os.File, args ...string) int {
	t.Helper()
	cmd := exec.Command("e2fsck", append(args, f.Name())...)
	if out, err := cmd.CombinedOutput(); cmd.ProcessState == nil {
		t.Fatalf("e2fsck: %v: %s", err, out)
	}
	return cmd.ProcessState.ExitCode()
}

// TestRestore: a superblock of which either half is another's is made whole from its copy,
// and e2fsck repairs the rest without a question.
func TestRestore(t *testing.T) {
	for half, name := range []string{"the first half", "the second half"} {
		f := made(t)
		if err := Save(f); err != nil {
			t.Fatal(err)
		}
		if done, err := Restore(f); done || err != nil {
			t.Errorf("%s: restored what was whole: %v, %v", name, done, err)
		}
		torn := bytes.Repeat([]byte{0x5a}, 100)
		if _, err := f.WriteAt(torn, int64(offset+half*512+100)); err != nil {
			t.Fatal(err)
		}
		if err := Save(f); err != nil { // a torn one is nothing to keep
			t.Fatal(err)
		}
		if status := checked(t, f, "-p"); status != 8 {
			t.Errorf("%s: torn, and e2fsck says %d", name, status)
		}
		if done, err := Restore(f); !done || err != nil {
			t.Errorf("%s: %v, %v", name, done, err)
		}
		if status := checked(t, f, "-f", "-p"); status > 1 {
			t.Errorf("%s: e2fsck says %d", name, status)
		}
		if status := checked(t, f, "-f", "-n"); status != 0 {
			t.Errorf("%s: after the repair e2fsck says %d", name, status)
		}
	}
}

// TestNoCopy: without a whole copy nothing is written, whatever there is.
func TestNoCopy(t *testing.T) {
	for name, f := range map[string]*os.File{"never saved": made(t), "without checksums": made(t, "-O", "^metadata_csum")} {
		if name == "without checksums" {
			if err := Save(f); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.WriteAt(make([]byte, 512), offset); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if done, err := Restore(f); done || err != nil {
			t.Errorf("%s: %v, %v", name, done, err)
		}
		if after, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: written to, %v", name, err)
		}
	}
}

// memory is a device of a test.
type memory []byte

func (m memory) ReadAt(p []byte, at int64) (int, error)  { return copy(p, m[at:]), nil }
func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }
func (m memory) Sync() error                             { return nil }

// FuzzRestore: any bytes; what is restored is whole.
func FuzzRestore(f *testing.F) {
	seed := make([]byte, 2*size)
	if _, err := made(f).ReadAt(seed, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(seed[offset:], seed[offset:])
	f.Add(seed[offset:], seed[:size])
	f.Fuzz(func(t *testing.T, kept, super []byte) {
		d := make(memory, 2*size)
		copy(d[:size], kept)
		copy(d[offset:], super)
		was := whole(d[offset:])
		done, err := Restore(d)
		if err != nil || done && (was || !whole(d[offset:])) {
			t.Errorf("%v, %v", done, err)
		}
	})
}

// TestLook finds every backup that mke2fs makes, and the size, whatever of it is left.
func TestLook(t *testing.T) {
	const bytes = 64 << 20
	for _, c := range []struct {
		options []string
		backups int // of blocks as large as the file system's
		block   int64
	}{
		{[]string{"-b", "1024"}, 4, 1024}, // groups 1, 3, 5 and 7, of 8 MiB
		{[]string{"-b", "2048"}, 1, 2048},
		{[]string{"-b", "4096"}, 0, 4096},
		{[]string{"-b", "1024", "-O", "^metadata_csum"}, 4, 1024},
	} {
		f := made(t, c.options...)
		if s := Look(f, bytes); !s.Whole || s.Bytes != bytes || s.Unread != nil {
			t.Errorf("%v: %+v", c.options, s)
		}
		if err := Save(f); err != nil {
			t.Fatal(err)
		}
		for _, cleared := range []int64{offset, copyAt} {
			if _, err := f.WriteAt(make([]byte, size), cleared); err != nil {
				t.Fatal(err)
			}
			s := Look(f, bytes)
			known := len(s.Backups) > 0 || cleared == offset && !slices.Contains(c.options, "^metadata_csum")
			if s.Whole || (s.Bytes == bytes) != known || len(s.Backups) != c.backups || s.Unread != nil {
				t.Errorf("%v, without the one at %d: %+v", c.options, cleared, s)
			}
			for _, b := range s.Backups {
				// e2fsck finds one there, too.
				if status := checked(t, f, "-n", "-b", fmt.Sprint(b.Block), "-B", fmt.Sprint(b.BlockSize)); b.BlockSize != c.block || status&8 != 0 {
					t.Errorf("%v: e2fsck with %+v says %d", c.options, b, status)
				}
			}
		}
	}
	if s := Look(new(memory), 0); s.Whole || s.Unread != nil {
		t.Errorf("nothing: %+v", s)
	}
}

// TestLookTorn: half a superblock of another is none, but for kinds of checksums that nobody
// here can make.
func TestLookTorn(t *testing.T) {
	super := make([]byte, 2*size)
	if _, err := made(t).ReadAt(super, 0); err != nil {
		t.Fatal(err)
	}
	super[offset+700]++
	if s := Look(memory(super), 2*size); s.Whole {
		t.Errorf("torn: %+v", s)
	}
	super[offset+sumKindAt]++
	if s := Look(memory(super), 2*size); !s.Whole {
		t.Errorf("another kind of checksum: %+v", s)
	}
}

// TestLookUnreadable: what a bad sector holds is not known to be gone, and the rest is seen.
func TestLookUnreadable(t *testing.T) {
	f := made(t, "-b", "1024")
	if err := Save(f); err != nil {
		t.Fatal(err)
	}
	for bad, want := range map[int64]Sight{
		offset:      {Bytes: 64 << 20, Backups: make([]Backup, 4)},
		8193 * 1024: {Whole: true, Bytes: 64 << 20},
	} {
		s := Look(badSector{f, bad}, 64<<20)
		if s.Whole != want.Whole || s.Bytes != want.Bytes || len(s.Backups) != len(want.Backups) || errors.Is(s.Unread, errBad) == want.Whole {
			t.Errorf("the one at %d: %+v", bad, s)
		}
	}
}

// badSector is a device of which one place cannot be read.
type badSector struct {
	io.ReaderAt
	bad int64
}

var errBad = errors.New("input/output error")

func (d badSector) ReadAt(p []byte, at int64) (int, error) {
	if at == d.bad {
		return 0, errBad
	}
	return d.ReaderAt.ReadAt(p, at)
}

// FuzzLook: any bytes; no size below zero, no backup outside.
func FuzzLook(f *testing.F) {
	seed := make([]byte, 2*size)
	if _, err := made(f).ReadAt(seed, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(seed[offset:], uint32(32768))
	f.Fuzz(func(t *testing.T, super []byte, block uint32) {
		const device = 256 << 20
		s := Look(sparseDevice{super, int64(block) * 4096}, device)
		if s.Unread != nil || s.Bytes < 0 {
			t.Errorf("%+v", s)
		}
		for _, b := range s.Backups {
			if at := b.Block * b.BlockSize; at <= 0 || at > device-size {
				t.Errorf("%+v", b)
			}
		}
	})
}

// sparseDevice has one text at two places, and zeros elsewhere.
type sparseDevice struct {
	text []byte
	at   int64
}

func (d sparseDevice) ReadAt(p []byte, at int64) (int, error) {
	clear(p)
	if at == offset || at == d.at {
		copy(p, d.text)
	}
	return len(p), nil
}
