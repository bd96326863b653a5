package gossip

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
	"kogge.example/update/golden"
)

// frames is one of each kind.
var frames = []frame{
	digest{{Part: shelf.Part{Kind: 1}, Sum: shelf.Sum{1}}, {Part: shelf.Part{Kind: 2, Depth: 2, Prefix: 0xab}, Sum: shelf.Sum{2}}},
	list{Part: shelf.Part{Kind: 1, Depth: 1, Prefix: 3}, Items: []shelf.Item{{ID: shelf.ID{0x30}, Number: 300, Sum: shelf.Sum{4}}}},
	list{Part: shelf.Part{Kind: 3, Depth: 1, Prefix: 3}},
	same{},
	tell{{id: shelf.ID{5}, number: 7, sum: [8]byte{6}}},
	want{{id: shelf.ID{7}}, {id: shelf.ID{8}, have: 9}},
	objects{[]byte("one"), []byte("two")},
	renewals{{ID: shelf.ID{9}, Number: 1 << 40, Signature: [64]byte{10}}},
	head{height: 11, record: document.Hash{12}},
	wantEntry{13},
	entry{14, [parts][]byte{[]byte("record"), []byte("value"), []byte("certificate")}},
	offer{15, [parts]part{{document.Hash{16}, 700}, {document.Hash{17}, 1 << 20}, {document.Hash{18}, 1 << 18}}},
	wantPiece{19, 1, document.Hash{17}, 31},
	piece{20, 2, 3, []byte("piece")},
	lack{0},
	paperSum{document.Hash{21}},
	wantPapers{{22}, {23, 1}},
	papers{[]byte("paper"), []byte("use")},
}

// TestWire holds the bytes of each frame: nodes of two releases speak with each other.
func TestWire(t *testing.T) {
	var out strings.Builder
	for _, f := range frames {
		raw := encode(f)
		fmt.Fprintf(&out, "%T\n    %s\n", f, hex.EncodeToString(raw))
		got, err := decode(raw)
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%T: %+v, %v", f, got, err)
		}
		for i := range raw {
			if f, err := decode(raw[:i]); err == nil {
				t.Errorf("%T is read from the first %d bytes of %x", f, i, raw)
			}
		}
		if _, err := decode(append(bytes.Clone(raw), 0)); !errors.Is(err, errFrame) {
			t.Errorf("%T and a byte more: %v", f, err)
		}
	}
	golden.Compare(t, "frames.txt", out.String())
	for what, raw := range map[string][]byte{
		"nothing": nil, "too large": make([]byte, MaxFrame+1), "kind 0": {0}, "kind 99": {99}, "an empty digest": {1, 0}, "257 sums": {1, 0x81, 2},
		"a part that is none": append([]byte{1, 1, 1, 0, 1}, make([]byte, 16)...), "number 1 in two bytes": {9, 0x81, 0}, "a number without an end": {9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		if f, err := decode(raw); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v, %v", what, f, err)
		}
	}
}

// FuzzDecode has bytes of a hostile peer: what is read is written as it was.
func FuzzDecode(f *testing.F) {
	for _, one := range frames {
		f.Add(encode(one))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := decode(raw)
		if err == nil && !bytes.Equal(encode(got), raw) {
			t.Errorf("%x is read as %+v", raw, got)
		}
	})
}
