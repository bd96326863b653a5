package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/token"
	"kogge.example/update/golden"
)

// frames is one of each kind.
var frames = []Frame{
	Digest{{Part: shelf.Part{Kind: 1}, Sum: shelf.Sum{1}}, {Part: shelf.Part{Kind: 2, Depth: 2, Prefix: 0xab}, Sum: shelf.Sum{2}}},
	List{Part: shelf.Part{Kind: 1, Depth: 1, Prefix: 3}, Items: []shelf.Item{{ID: shelf.ID{0x30}, Number: 300, Sum: shelf.Sum{4}}}},
	List{Part: shelf.Part{Kind: 3, Depth: 1, Prefix: 3}},
	Same{},
	Tell{{ID: shelf.ID{5}, Number: 7, Sum: [8]byte{6}}},
	Want{{ID: shelf.ID{7}}, {ID: shelf.ID{8}, Have: 9}},
	Objects{[]byte("one"), []byte("two")},
	Renewals{{ID: shelf.ID{9}, Number: 1 << 40, Signature: [64]byte{10}}},
	Head{Height: 11, Record: document.Hash{12}},
	WantEntry{13},
	Entry{14, [Parts][]byte{[]byte("record"), []byte("value"), []byte("certificate")}},
	Offer{15, [Parts]int{700, 1 << 16, 1 << 10}, []document.Hash{{16}, {17}, {18}}},
	WantPiece{19, 31, document.Hash{17}},
	Piece{document.Hash{20}, []byte("piece")},
	Lack{19, document.Hash{17}},
	Denied{{21}, {22}},
	PaperSum{document.Hash{23}},
	WantPapers{{24}, {25, 1}},
	Papers{[]byte("paper"), []byte("use")},
}

// TestWire holds the bytes of each frame: nodes of two releases speak with each other.
func TestWire(t *testing.T) {
	var out strings.Builder
	for _, f := range frames {
		raw := Encode(f)
		fmt.Fprintf(&out, "%T\n    %s\n", f, hex.EncodeToString(raw))
		got, err := Decode(raw)
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%T: %+v, %v", f, got, err)
		}
		for i := range raw {
			if f, err := Decode(raw[:i]); err == nil {
				t.Errorf("%T is read from the first %d bytes of %x", f, i, raw)
			}
		}
		if _, err := Decode(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrFrame) {
			t.Errorf("%T and a byte more: %v", f, err)
		}
	}
	golden.Compare(t, "frames.txt", out.String())
	for what, raw := range map[string][]byte{
		"nothing": nil, "too large": make([]byte, MaxFrame+1), "kind 0": {0}, "kind 99": {99}, "an empty digest": {1, 0}, "257 sums": {1, 0x81, 2},
		"an offer of less than its pieces": Encode(Offer{1, [Parts]int{700, 1 << 15, 0}, []document.Hash{{1}, {2}, {3}}}),
		"a part that is none":              append([]byte{1, 1, 1, 0, 1}, make([]byte, 16)...), "number 1 in two bytes": {9, 0x81, 0}, "a number without an end": {9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		if f, err := Decode(raw); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v, %v", what, f, err)
		}
	}
}

// FuzzDecode has bytes of a hostile peer: what is read is written as it was.
func FuzzDecode(f *testing.F) {
	for _, one := range frames {
		f.Add(Encode(one))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Decode(raw)
		if err == nil && !bytes.Equal(Encode(got), raw) {
			t.Errorf("%x is read as %+v", raw, got)
		}
	})
}

// TestWantAll: what a node has of papers can always be told in one frame.
func TestWantAll(t *testing.T) {
	raw := Encode(make(WantPapers, token.MaxSet))
	f, err := Decode(raw)
	if all, ok := f.(WantPapers); err != nil || !ok || len(all) != token.MaxSet {
		t.Errorf("%d bytes of at most %d: %v", len(raw), MaxFrame, err)
	}
}
