package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet/board"
	"kogge.example/update/golden"
)

// examples are a frame of each kind.
func examples() []Frame {
	return []Frame{
		Put{7, []byte("envelope")}, Alive{}, Follow{board.Ledger, board.Entry(3).Key()}, Follow{board.Nodes, ""},
		Welcome{time.Minute, []int{1, 2, 3}}, Welcome{time.Second, nil}, Refuse{NoEtcd, time.Second}, Done{7, None, 0}, Done{8, Busy, 1500 * time.Millisecond},
		Items{board.Nodes, []Item{{"/kogge/v1/nodes/x/status", 12, Leased, []byte("value")}, {"/kogge/v1/nodes/y/status", 13, Gone, nil}, {"k", 1 << 40, Stays, []byte{}}}},
		Live{board.Nodes}, Again{board.Ledger}, Recall{}, Members{[]int{4}}, Move{}, Leave{board.Nodes},
	}
}

// TestFrames has the bytes of each frame, which a later release has to read, and reads them.
func TestFrames(t *testing.T) {
	var b strings.Builder
	kinds := make(map[byte]bool)
	for _, f := range examples() {
		raw := Encode(f)
		kinds[raw[0]] = true
		fmt.Fprintf(&b, "%T %x\n", f, raw)
		got, err := Decode(raw)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(f) {
			t.Errorf("%+v is read as %+v, %v", f, got, err)
		}
		for n := range raw {
			if got, err := Decode(raw[:n]); err == nil {
				t.Errorf("%T cut at byte %d is %+v", f, n, got)
			}
		}
		if _, err := Decode(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrFrame) {
			t.Errorf("%T and a byte: %v", f, err)
		}
	}
	golden.Compare(t, "frames.txt", b.String())
	for kind := range 256 {
		if f := (&reader{left: make([]byte, 64)}).frame(byte(kind)); (f != nil) != kinds[byte(kind)] {
			t.Errorf("kind %d: %T", kind, f)
		}
	}
}

// TestBad refuses what is out of bounds.
func TestBad(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing": {}, "10 MB": make([]byte, 10<<20), "kind 0": {0}, "kind 99": {99},
		"an envelope too large": Encode(Put{1, make([]byte, 64<<10+1)}),
		"a topic of none":       {3, 9, 0}, "a key with an escape": Encode(Follow{board.Nodes, "\x1b[2J"}),
		"no items": {7, 1, 0}, "a value of what is gone": Encode(Items{board.Nodes, []Item{{"k", 1, Gone, []byte("v")}}}),
		"a state of none": Encode(Items{board.Nodes, []Item{{"k", 1, 9, nil}}}), "a reason of none": Encode(Refuse{99, 0}),
		"a number in two spellings": {6, 0x87, 0x00, 0, 0}, "many members": append([]byte{11, 100}, make([]byte, 100)...),
	} {
		if f, err := Decode(raw); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	if raw := Encode(Welcome{time.Second, make([]int, 99)}); len(raw) > 64 {
		t.Errorf("%d bytes", len(raw))
	}
	for w := range reasons {
		if Why(w).String() == "" {
			t.Errorf("reason %d has no words", w)
		}
	}
}

// FuzzDecode has bytes of a peer: what is read makes the same bytes again.
func FuzzDecode(f *testing.F) {
	for _, one := range examples() {
		f.Add(Encode(one))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := Decode(raw); err == nil && !bytes.Equal(Encode(got), raw) {
			t.Errorf("%x is %+v, which is %x", raw, got, Encode(got))
		}
	})
}
