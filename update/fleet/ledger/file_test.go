package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// written is the file of a ledger.
func written(t testing.TB, w *ledgertest.Fleet) []byte {
	t.Helper()
	var b bytes.Buffer
	err := ledger.WriteFile(&b, w.Genesis)
	for i, e := range w.Entries {
		err = errors.Join(err, ledger.WriteEntry(&b, int64(i+1), e))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestFile verifies a file as it was written, refuses it with any byte changed, and with any
// end that is not the end of an entry.
func TestFile(t *testing.T) {
	w := ledgertest.Founded(t, 4, 2)
	raw := written(t, w)
	l, _, err := ledger.Read(bytes.NewReader(raw), w.Genesis)
	if err != nil || l.State().Tree != w.Log.State().Tree {
		t.Fatal(err)
	}
	ends := map[int]int64{} // of whole entries
	for n := range w.Entries {
		ends[len(written(t, &ledgertest.Fleet{Genesis: w.Genesis, Entries: w.Entries[:n]}))] = int64(n)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1 << (i % 7)
		if _, _, err := ledger.Read(bytes.NewReader(bad), w.Genesis); err == nil {
			t.Errorf("byte %d changed: taken", i)
		} else if strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("byte %d changed: %q", i, err)
		}
		l, _, err := ledger.Read(bytes.NewReader(raw[:i]), w.Genesis)
		if n, ok := ends[i]; ok != (err == nil) || ok && l.State().Height != n {
			t.Errorf("cut at byte %d: height %d, %v", i, l.State().Height, err)
		}
	}
	if _, _, err := ledger.Read(bytes.NewReader(raw), ledgertest.Begun(t, 4).Genesis); !errors.Is(err, ledger.ErrFile) {
		t.Errorf("the file of another fleet: %v", err)
	}
	if _, _, err := ledger.Read(io.MultiReader(bytes.NewReader(raw), strings.NewReader("\x1b[2J")), w.Genesis); !errors.Is(err, ledger.ErrFile) {
		t.Errorf("something behind it: %v", err)
	}
	large := fmt.Sprintf("%srecord 1 %d\n", raw[:min(len(raw), bytes.Index(raw, []byte("record 1 ")))], int64(1<<40))
	if _, _, err := ledger.Read(strings.NewReader(large), w.Genesis); !errors.Is(err, ledger.ErrFile) {
		t.Errorf("a record of a TiB: %v", err)
	}
}

// FuzzFile reads what somebody calls a ledger.
func FuzzFile(f *testing.F) {
	w := ledgertest.Founded(f, 4, 2)
	f.Add(written(f, w))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := ledger.OpenFile(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for range 10 {
			if _, err := file.Next(); err != nil {
				break
			}
		}
		_, _, _ = ledger.Read(bytes.NewReader(raw), w.Genesis)
	})
}
