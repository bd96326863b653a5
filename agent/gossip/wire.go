package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// A frame is one byte that says what it is, and its fields: numbers as unsigned varints, what
// has one size as it is, lists behind their length. What a frame may not hold is an error: only
// a peer that wants to do harm sends it, since the protocol has its version in its name.
const (
	// MaxFrame is the bytes of a frame, at most: two envelopes, or one piece.
	MaxFrame = 2*signed.MaxEnvelope + 1<<10

	maxSums  = 256 // of a digest
	maxItems = 512 // of a list, or told at once
	maxWants = 128
	// pieceSize is how much of an entry's part goes at a time, in bytes, and what of a whole
	// entry goes at once.
	pieceSize = 32 << 10
)

// frame is what one peer says to another.
type frame interface {
	kind() byte
	write(*writer)
}

// The frames.
type (
	// digest says what the sums of parts of the shelf are. The first one is of all kinds.
	digest []shelf.SumOf
	// list says what lies in a part of the shelf.
	list shelf.List
	// same answers a digest: the shelf is the same.
	same struct{}
	// tell says that the peer may have these objects.
	tell []told
	// want asks for objects.
	want []wanted
	// objects are one object, or two that a seat has signed with one number.
	objects [][]byte
	// renewals are objects that the peer has under a lower number.
	renewals []shelf.Renewal
	// head says how far the ledger is.
	head struct {
		height int64
		record document.Hash
	}
	// wantEntry asks for the entry of a height.
	wantEntry struct{ height int64 }
	// entry is a small one.
	entry struct {
		height int64
		parts  [parts][]byte
	}
	// offer says what the parts of an entry are that is not small.
	offer struct {
		height int64
		parts  [parts]part
	}
	// wantPiece asks for a piece of a part.
	wantPiece struct {
		height int64
		part   int
		hash   document.Hash
		index  int
	}
	// piece is one.
	piece struct {
		height int64
		part   int
		index  int
		data   []byte
	}
	// lack says that an entry, or a part of that hash, is not to be had here.
	lack struct{ height int64 }
)

// told is an item in short: the front of its sum tells whether it is worth asking.
type told struct {
	id     shelf.ID
	number uint64
	sum    [8]byte
}

// wanted is an object that is asked for, and the number of the one that is there; 0: none.
type wanted struct {
	id   shelf.ID
	have uint64
}

// parts of an entry: record, value, certificate.
const parts = 3

// part is one of them, by hash and size.
type part struct {
	hash document.Hash
	size int
}

func (p part) pieces() int { return (p.size + pieceSize - 1) / pieceSize }

func (digest) kind() byte    { return 1 }
func (list) kind() byte      { return 2 }
func (same) kind() byte      { return 3 }
func (tell) kind() byte      { return 4 }
func (want) kind() byte      { return 5 }
func (objects) kind() byte   { return 6 }
func (renewals) kind() byte  { return 7 }
func (head) kind() byte      { return 8 }
func (wantEntry) kind() byte { return 9 }
func (entry) kind() byte     { return 10 }
func (offer) kind() byte     { return 11 }
func (wantPiece) kind() byte { return 12 }
func (piece) kind() byte     { return 13 }
func (lack) kind() byte      { return 14 }

// encode writes a frame.
func encode(f frame) []byte {
	w := &writer{f.kind()}
	f.write(w)
	return *w
}

type writer []byte

func (w *writer) number(n uint64) { *w = binary.AppendUvarint(*w, n) }
func (w *writer) bytes(b []byte)  { *w = append(*w, b...) }
func (w *writer) sized(b []byte)  { w.number(uint64(len(b))); w.bytes(b) }
func (w *writer) part(p shelf.Part) {
	w.number(uint64(p.Kind))
	w.number(uint64(p.Depth))
	w.number(uint64(p.Prefix))
}

func (f digest) write(w *writer) {
	w.number(uint64(len(f)))
	for _, s := range f {
		w.part(s.Part)
		w.bytes(s.Sum[:])
	}
}

func (f list) write(w *writer) {
	w.part(f.Part)
	w.number(uint64(len(f.Items)))
	for _, i := range f.Items {
		w.bytes(i.ID[:])
		w.number(i.Number)
		w.bytes(i.Sum[:])
	}
}

func (same) write(*writer) {}

func (f tell) write(w *writer) {
	w.number(uint64(len(f)))
	for _, t := range f {
		w.bytes(t.id[:])
		w.number(t.number)
		w.bytes(t.sum[:])
	}
}

func (f want) write(w *writer) {
	w.number(uint64(len(f)))
	for _, t := range f {
		w.bytes(t.id[:])
		w.number(t.have)
	}
}

func (f objects) write(w *writer) {
	w.number(uint64(len(f)))
	for _, raw := range f {
		w.sized(raw)
	}
}

func (f renewals) write(w *writer) {
	w.number(uint64(len(f)))
	for _, r := range f {
		w.bytes(r.ID[:])
		w.number(r.Number)
		w.bytes(r.Signature[:])
	}
}

func (f head) write(w *writer) {
	w.number(uint64(f.height))
	w.bytes(f.record[:])
}

func (f wantEntry) write(w *writer) { w.number(uint64(f.height)) }

func (f entry) write(w *writer) {
	w.number(uint64(f.height))
	for _, p := range f.parts {
		w.sized(p)
	}
}

func (f offer) write(w *writer) {
	w.number(uint64(f.height))
	for _, p := range f.parts {
		w.bytes(p.hash[:])
		w.number(uint64(p.size))
	}
}

func (f wantPiece) write(w *writer) {
	w.number(uint64(f.height))
	w.number(uint64(f.part))
	w.bytes(f.hash[:])
	w.number(uint64(f.index))
}

func (f piece) write(w *writer) {
	w.number(uint64(f.height))
	w.number(uint64(f.part))
	w.number(uint64(f.index))
	w.sized(f.data)
}

func (f lack) write(w *writer) { w.number(uint64(f.height)) }

// errFrame is of bytes that no honest peer sends.
var errFrame = errors.New("not a frame of this protocol")

// decode reads a frame, whose fields point into raw. The error wraps errFrame.
func decode(raw []byte) (frame, error) {
	if len(raw) == 0 || len(raw) > MaxFrame {
		return nil, fmt.Errorf("%w: it has %d bytes", errFrame, len(raw))
	}
	r := &reader{left: raw[1:]}
	f := r.frame(raw[0])
	if f == nil || r.bad || len(r.left) > 0 {
		return nil, fmt.Errorf("%w: kind %d, %d bytes", errFrame, raw[0], len(raw))
	}
	return f, nil
}

// reader takes fields from the front. At the first that is wrong it is bad for good.
type reader struct {
	left []byte
	bad  bool
}

// number is an unsigned varint of at most a size. Each has one spelling.
func (r *reader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.left)
	if size <= 0 || n > most || size > 1 && r.left[size-1] == 0 {
		r.bad, r.left = true, nil
		return 0
	}
	r.left = r.left[size:]
	return n
}

func (r *reader) bytes(into []byte) {
	if len(r.left) < len(into) {
		r.bad, r.left = true, nil
		return
	}
	copy(into, r.left)
	r.left = r.left[len(into):]
}

// sized is a field behind its length, at most so many bytes.
func (r *reader) sized(most int) []byte {
	n := int(r.number(uint64(most)))
	if len(r.left) < n {
		r.bad, r.left = true, nil
		return nil
	}
	field := r.left[:n:n]
	r.left = r.left[n:]
	return field
}

func (r *reader) height() int64 { return int64(r.number(1 << 62)) }

func (r *reader) where() shelf.Part {
	p := shelf.Part{Kind: int(r.number(shelf.MaxKind)), Depth: int(r.number(32)), Prefix: uint32(r.number(1<<32 - 1))}
	r.bad = r.bad || !p.Valid()
	return p
}

// each reads a list, at least one and at most so many. It ends at the first that is wrong.
func (r *reader) each(most int, one func()) {
	n := r.number(uint64(most))
	r.bad = r.bad || n == 0
	for range n {
		if r.bad {
			return
		}
		one()
	}
}

func (r *reader) frame(kind byte) frame {
	switch kind {
	case digest{}.kind():
		var f digest
		r.each(maxSums, func() {
			s := shelf.SumOf{Part: r.where()}
			r.bytes(s.Sum[:])
			f = append(f, s)
		})
		return f
	case list{}.kind():
		return r.list()
	case same{}.kind():
		return same{}
	case tell{}.kind():
		var f tell
		r.each(maxItems, func() {
			var t told
			r.bytes(t.id[:])
			t.number = r.number(notice.MaxNumber)
			r.bytes(t.sum[:])
			f = append(f, t)
		})
		return f
	case want{}.kind():
		var f want
		r.each(maxWants, func() {
			var t wanted
			r.bytes(t.id[:])
			t.have = r.number(notice.MaxNumber)
			f = append(f, t)
		})
		return f
	case objects{}.kind():
		var f objects
		r.each(2, func() { f = append(f, r.sized(signed.MaxEnvelope)) })
		return f
	case renewals{}.kind():
		var f renewals
		r.each(maxWants, func() {
			var one shelf.Renewal
			r.bytes(one.ID[:])
			one.Number = r.number(notice.MaxNumber)
			r.bytes(one.Signature[:])
			f = append(f, one)
		})
		return f
	}
	return r.ledgerFrame(kind)
}

func (r *reader) list() frame {
	f := list{Part: r.where()}
	for range r.number(maxItems) {
		if r.bad {
			break
		}
		var i shelf.Item
		r.bytes(i.ID[:])
		i.Number = r.number(notice.MaxNumber)
		r.bytes(i.Sum[:])
		f.Items = append(f.Items, i)
	}
	return f
}

func (r *reader) ledgerFrame(kind byte) frame {
	switch kind {
	case head{}.kind():
		f := head{height: r.height()}
		r.bytes(f.record[:])
		return f
	case wantEntry{}.kind():
		return wantEntry{r.height()}
	case entry{}.kind():
		f := entry{height: r.height()}
		for i := range f.parts {
			f.parts[i] = r.sized(pieceSize)
		}
		return f
	case offer{}.kind():
		f := offer{height: r.height()}
		for i := range f.parts {
			r.bytes(f.parts[i].hash[:])
			f.parts[i].size = int(r.number(maxPart))
		}
		return f
	case wantPiece{}.kind():
		f := wantPiece{height: r.height(), part: int(r.number(parts - 1))}
		r.bytes(f.hash[:])
		f.index = int(r.number(maxPart / pieceSize))
		return f
	case piece{}.kind():
		return piece{height: r.height(), part: int(r.number(parts - 1)), index: int(r.number(maxPart / pieceSize)), data: r.sized(pieceSize)}
	case lack{}.kind():
		return lack{r.height()}
	}
	return r.paperFrame(kind)
}

// prefix is how many bytes stand before a frame of a size.
func prefix(size int) int { return len(binary.AppendUvarint(nil, uint64(size))) }
