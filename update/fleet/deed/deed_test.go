package deed

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

var one, two = document.HashOf([]byte("one")), document.HashOf([]byte("two"))

func armed(number int64) Deed {
	return Deed{Version: 1, Number: number, Time: 1796000000, Boot: "b1", Kind: Armed, Slot: "B", Release: "1.1", Root: two, By: "the permit of owner hanse", Height: 3}
}

// TestForm holds the bytes of a deed: its hash is in what nodes have signed.
func TestForm(t *testing.T) {
	d := armed(1)
	golden.Compare(t, "deed.json", string(d.Encode()))
	got, err := Parse(d.Encode())
	if err != nil || got != d {
		t.Errorf("%+v, %v", got, err)
	}
	for what, change := range map[string]func(*Deed){
		"number 0": func(d *Deed) { d.Number = 0 }, "another kind": func(d *Deed) { d.Kind = "dreamt" }, "slot C": func(d *Deed) { d.Slot = "C" },
		"no root": func(d *Deed) { d.Root = document.Hash{} }, "below the ledger": func(d *Deed) { d.Height = -1 },
		"a long name": func(d *Deed) { d.By = strings.Repeat("x", 129) }, "a later version": func(d *Deed) { d.Version = 2 },
	} {
		bad := d
		change(&bad)
		if _, err := Parse(bad.Encode()); !errors.Is(err, ErrDeed) || errors.Is(err, document.ErrNewer) != (what == "a later version") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, raw := range []string{"", "{}", string(d.Encode()) + " ", strings.Repeat(" ", maxDeed+1)} {
		if _, err := Parse([]byte(raw)); !errors.Is(err, ErrDeed) {
			t.Errorf("%.20q: %v", raw, err)
		}
	}
}

// TestLog grows a log, and takes nothing but what follows.
func TestLog(t *testing.T) {
	var l Log
	if root, err := l.Root(0); err != nil || !root.IsZero() {
		t.Errorf("an empty log: %s, %v", root, err)
	}
	for n := range int64(9) {
		if err := l.Append(armed(n + 1).Encode()); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int64{0, 1, 9, 11} {
		if err := l.Append(armed(n).Encode()); !errors.Is(err, ErrDeed) || l.Size() != 9 {
			t.Errorf("deed %d after 9: %v", n, err)
		}
	}
	if first, err := l.Root(1); err != nil || first != document.Hash(tlog.RecordHash(armed(1).Encode())) {
		t.Errorf("of one deed: %s, %v", first, err)
	}
	seen := map[document.Hash]bool{}
	for size := range int64(10) {
		root, err := l.Root(size)
		if err != nil || seen[root] {
			t.Errorf("of %d deeds: %s, %v", size, root, err)
		}
		seen[root] = true
	}
	if _, err := l.Root(10); !errors.Is(err, ErrDeed) {
		t.Error(err)
	}
}

// TestOutcome is the table of what became of an arming.
func TestOutcome(t *testing.T) {
	var out strings.Builder
	stayed := armed(2)
	stayed.Kind = Stayed
	for _, last := range []struct {
		name string
		deed Deed
	}{{"nothing", Deed{}}, {"armed in b1", armed(1)}, {"stayed", stayed}} {
		for _, boot := range []string{"b1", "b2"} {
			for _, root := range []document.Hash{one, two} {
				for _, trial := range []bool{false, true} {
					kind, ok := Outcome(last.deed, Now{Boot: boot, Slot: "A", Root: root, Trial: trial})
					fmt.Fprintf(&out, "%-12s %s the armed one %-5v trial %-5v %v %s\n", last.name, boot, root == two, trial, ok, kind)
				}
			}
		}
	}
	golden.Compare(t, "outcome.txt", out.String())
}

// FuzzParse reads what somebody calls a deed.
func FuzzParse(f *testing.F) {
	f.Add(armed(1).Encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d, err := Parse(raw); err == nil && string(d.Encode()) != string(raw) {
			t.Errorf("%+v has two spellings", d)
		}
	})
}
