package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// written is the file of a ledger.
func (w *world) written(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	err := WriteFile(&b, w.genesis)
	for i, e := range w.entries {
		err = errors.Join(err, WriteEntry(&b, int64(i+1), e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestFile verifies a file as it was written, refuses it with any byte changed, and with any
// end that is not the end of an entry.
func TestFile(t *testing.T) {
	w := founded(t, 4, 3)
	raw := w.written(t)
	l, err := Verify(bytes.NewReader(raw), w.genesis)
	if err != nil || l.State().Tree != w.log.State().Tree {
		t.Fatal(err)
	}
	ends := map[int]int64{} // of whole entries
	for n := range w.entries {
		ends[len((&world{genesis: w.genesis, entries: w.entries[:n]}).written(t))] = int64(n)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1 << (i % 7)
		if _, err := Verify(bytes.NewReader(bad), w.genesis); err == nil {
			t.Errorf("byte %d changed: taken", i)
		} else if strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("byte %d changed: %q", i, err)
		}
		l, err := Verify(bytes.NewReader(raw[:i]), w.genesis)
		if n, ok := ends[i]; ok != (err == nil) || ok && l.State().Height != n {
			t.Errorf("cut at byte %d: height %d, %v", i, l.State().Height, err)
		}
	}
	if _, err := Verify(bytes.NewReader(raw), begun(t, 4).genesis); !errors.Is(err, ErrFile) {
		t.Errorf("the file of another fleet: %v", err)
	}
	if _, err := Verify(io.MultiReader(bytes.NewReader(raw), strings.NewReader("\x1b[2J")), w.genesis); !errors.Is(err, ErrFile) {
		t.Errorf("something behind it: %v", err)
	}
	large := fmt.Sprintf("%srecord 1 %d\n", raw[:min(len(raw), bytes.Index(raw, []byte("record 1 ")))], 1<<40)
	if _, err := Verify(strings.NewReader(large), w.genesis); !errors.Is(err, ErrFile) {
		t.Errorf("a record of a TiB: %v", err)
	}
}

// FuzzFile reads what somebody calls a ledger.
func FuzzFile(f *testing.F) {
	w := founded(f, 4, 2)
	f.Add(w.written(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := OpenFile(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for range 10 {
			if _, err := file.Next(); err != nil {
				break
			}
		}
		_, _ = Verify(bytes.NewReader(raw), w.genesis)
	})
}
