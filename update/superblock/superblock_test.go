package superblock

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
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
