package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"unicode"

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

// TestFile verifies a file as it was written, and refuses it with any end that is not the end of an
// entry.
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

// saysWhere is what an operator needs of a ledger that is refused: which record, or that it is
// the genesis, and there which field; or the line, where the text itself is broken.
var saysWhere = regexp.MustCompile(`^(not a file of a ledger: line \d+: |(record \d+|not a file of a ledger.*: genesis): .*(field [a-zA-Z0-9.\[\]]+[:,]|line \d+: ))`)

// TestChangedByteIsNamed changes every byte of a ledger's file, and some of them to every other value:
// what is said of it names record and field.
func TestChangedByteIsNamed(t *testing.T) {
	w := ledgertest.Founded(t, 3, 3)
	raw := written(t, w)
	try := func(i int, b byte) {
		bad := bytes.Clone(raw)
		bad[i] = b
		_, _, err := ledger.Read(bytes.NewReader(bad), w.Genesis)
		if err == nil {
			t.Errorf("byte %d is %q: taken", i, b)
			return
		}
		if !saysWhere.MatchString(err.Error()) {
			t.Errorf("byte %d of %q is %q: %v", i, line(raw, i), b, err)
		}
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("byte %d of %q is %q: its error goes to a terminal: %q", i, line(raw, i), b, err)
		}
	}
	for i, was := range raw {
		try(i, was^1<<(i%7))
		for b := range 256 {
			if i%509 == 0 && byte(b) != was {
				try(i, byte(b))
			}
		}
	}
}

// line is the line in which a byte stands.
func line(raw []byte, i int) []byte {
	from, to := bytes.LastIndexByte(raw[:i], '\n')+1, i+bytes.IndexByte(raw[i:], '\n')
	return raw[from:max(from, to)]
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
