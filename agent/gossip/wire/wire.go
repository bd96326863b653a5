// Package wire is the form in which peers that gossip speak to each other: frames ↔ bytes.
//
// In come frames, and bytes of strangers; out go the bytes of a frame, and a frame or an error.
// What a frame is answered with is not its matter.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// A frame is one byte that says what it is, and its fields: numbers as unsigned varints, what
// has one size as it is, lists behind their length. What a frame may not hold is an error: only
// a peer that wants to do harm sends it, since the protocol has its version in its name.
const (
	// MaxFrame is the bytes of a frame, at most: two envelopes, or one piece.
	MaxFrame = 2*signed.MaxEnvelope + 1<<10

	MaxSums  = 256 // of a digest
	MaxItems = 512 // of a list, or told at once
	MaxWants = 128
	// PieceSize is how much of an entry's part goes at a time, in bytes, and what of a whole
	// entry goes at once.
	PieceSize = 32 << 10
)

// Frame is what one peer says to another.
type Frame interface {
	kind() byte
	write(*writer)
}

// The frames.
type (
	// Digest says what the sums of parts of the shelf are. The first one is of all kinds.
	Digest []shelf.SumOf
	// List says what lies in a part of the shelf.
	List shelf.List
	// Same answers a digest: the shelf is the same.
	Same struct{}
	// Tell says that the peer may have these objects.
	Tell []Told
	// Want asks for objects.
	Want []Wanted
	// Objects are what lies in a place: one object, or two with one number, and one behind them. Builds
	// from before 2026-11-30 took two at most and call three malformed; no release was made of those, and
	// the protocol has one version. What has to change in a frame from now on takes another version of it.
	Objects [][]byte
	// Renewals are objects that the peer has under a lower number.
	Renewals []shelf.Renewal
	// Head says how far the ledger is.
	Head struct {
		Height int64
		Record document.Hash
	}
	// WantEntry asks for the entry of a height.
	WantEntry struct{ Height int64 }
	// Entry is a small one.
	Entry struct {
		Height int64
		Parts  [Parts][]byte
	}
	// Offer says what an entry is that is not small: the sizes of its parts, and what the pieces
	// are into which they are cut, one part behind the other.
	Offer struct {
		Height int64
		Sizes  [Parts]int
		Sums   []document.Hash
	}
	// WantPiece asks for a piece.
	WantPiece struct {
		Height int64
		Index  int
		Sum    document.Hash
	}
	// Piece is one.
	Piece struct {
		Sum  document.Hash
		Data []byte
	}
	// Lack says that an entry is not to be had here now, or a piece of it, if it has a sum. At
	// height 0 it answers a digest: nothing more is to be had.
	Lack struct {
		Height int64
		Sum    document.Hash
	}
	// Denied says which objects that were asked for are not to be had here now. So each of them
	// has an answer.
	Denied []shelf.ID
	// PaperSum says what the sum of all papers is, WantPapers asks for all but those that are named,
	// and Papers are some.
	PaperSum   struct{ Sum document.Hash }
	WantPapers []token.Short
	Papers     [][]byte
)

// Told is an item in short: the front of its sum tells whether it is worth asking.
type Told struct {
	ID     shelf.ID
	Number uint64
	Sum    [8]byte
}

// Wanted is an object that is asked for, and the number of the one that is there; 0: none.
type Wanted struct {
	ID   shelf.ID
	Have uint64
}

// Parts of an entry: record, value, certificate.
const Parts = 3

// MaxPieces is how many pieces an entry has, at most.
const MaxPieces = (ledger.MaxEntry + PieceSize - 1) / PieceSize

// Size is the bytes of the entry.
func (f Offer) Size() (n int) {
	for _, one := range f.Sizes {
		n += one
	}
	return n
}

func (Digest) kind() byte     { return 1 }
func (List) kind() byte       { return 2 }
func (Same) kind() byte       { return 3 }
func (Tell) kind() byte       { return 4 }
func (Want) kind() byte       { return 5 }
func (Objects) kind() byte    { return 6 }
func (Renewals) kind() byte   { return 7 }
func (Head) kind() byte       { return 8 }
func (WantEntry) kind() byte  { return 9 }
func (Entry) kind() byte      { return 10 }
func (Offer) kind() byte      { return 11 }
func (WantPiece) kind() byte  { return 12 }
func (Piece) kind() byte      { return 13 }
func (Lack) kind() byte       { return 14 }
func (Denied) kind() byte     { return 15 }
func (PaperSum) kind() byte   { return 16 }
func (WantPapers) kind() byte { return 17 }
func (Papers) kind() byte     { return 18 }

// ToldOf tells of an item.
func ToldOf(item shelf.Item) Told {
	return Told{ID: item.ID, Number: item.Number, Sum: [8]byte(item.Sum[:])}
}

// Encode writes a frame.
func Encode(f Frame) []byte {
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

func (f Digest) write(w *writer) {
	w.number(uint64(len(f)))
	for _, s := range f {
		w.part(s.Part)
		w.bytes(s.Sum[:])
	}
}

func (f List) write(w *writer) {
	w.part(f.Part)
	w.number(uint64(len(f.Items)))
	for _, i := range f.Items {
		w.bytes(i.ID[:])
		w.number(i.Number)
		w.bytes(i.Sum[:])
	}
}

func (Same) write(*writer) {}

func (f Tell) write(w *writer) {
	w.number(uint64(len(f)))
	for _, t := range f {
		w.bytes(t.ID[:])
		w.number(t.Number)
		w.bytes(t.Sum[:])
	}
}

func (f Want) write(w *writer) {
	w.number(uint64(len(f)))
	for _, t := range f {
		w.bytes(t.ID[:])
		w.number(t.Have)
	}
}

func (f Objects) write(w *writer) {
	w.number(uint64(len(f)))
	for _, raw := range f {
		w.sized(raw)
	}
}

func (f Renewals) write(w *writer) {
	w.number(uint64(len(f)))
	for _, r := range f {
		w.bytes(r.ID[:])
		w.number(r.Number)
		w.bytes(r.Signature[:])
	}
}

func (f Head) write(w *writer) {
	w.number(uint64(f.Height))
	w.bytes(f.Record[:])
}

func (f WantEntry) write(w *writer) { w.number(uint64(f.Height)) }

func (f Entry) write(w *writer) {
	w.number(uint64(f.Height))
	for _, p := range f.Parts {
		w.sized(p)
	}
}

func (f Offer) write(w *writer) {
	w.number(uint64(f.Height))
	for _, size := range f.Sizes {
		w.number(uint64(size))
	}
	w.number(uint64(len(f.Sums)))
	for _, sum := range f.Sums {
		w.bytes(sum[:])
	}
}

func (f WantPiece) write(w *writer) {
	w.number(uint64(f.Height))
	w.number(uint64(f.Index))
	w.bytes(f.Sum[:])
}

func (f Piece) write(w *writer) {
	w.bytes(f.Sum[:])
	w.sized(f.Data)
}

func (f Lack) write(w *writer) {
	w.number(uint64(f.Height))
	w.bytes(f.Sum[:])
}

func (f Denied) write(w *writer) {
	w.number(uint64(len(f)))
	for _, id := range f {
		w.bytes(id[:])
	}
}

func (f PaperSum) write(w *writer) { w.bytes(f.Sum[:]) }

func (f WantPapers) write(w *writer) {
	w.number(uint64(len(f)))
	for _, id := range f {
		w.bytes(id[:])
	}
}

func (f Papers) write(w *writer) { Objects(f).write(w) }

// ErrFrame is of bytes that no honest peer sends.
var ErrFrame = errors.New("not a frame of this protocol")

// Decode reads a frame, whose fields point into raw. The error wraps [ErrFrame].
func Decode(raw []byte) (Frame, error) {
	if len(raw) == 0 || len(raw) > MaxFrame {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrFrame, len(raw))
	}
	r := &reader{left: raw[1:]}
	f := r.frame(raw[0])
	if f == nil || r.bad || len(r.left) > 0 {
		return nil, fmt.Errorf("%w: kind %d, %d bytes", ErrFrame, raw[0], len(raw))
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

func (r *reader) frame(kind byte) Frame {
	switch kind {
	case Digest{}.kind():
		var f Digest
		r.each(MaxSums, func() {
			s := shelf.SumOf{Part: r.where()}
			r.bytes(s.Sum[:])
			f = append(f, s)
		})
		return f
	case List{}.kind():
		return r.list()
	case Same{}.kind():
		return Same{}
	case Tell{}.kind():
		var f Tell
		r.each(MaxItems, func() {
			var t Told
			r.bytes(t.ID[:])
			t.Number = r.number(notice.MaxNumber)
			r.bytes(t.Sum[:])
			f = append(f, t)
		})
		return f
	case Want{}.kind():
		var f Want
		r.each(MaxWants, func() {
			var t Wanted
			r.bytes(t.ID[:])
			t.Have = r.number(notice.MaxNumber)
			f = append(f, t)
		})
		return f
	case Objects{}.kind():
		var f Objects
		r.each(3, func() { f = append(f, r.sized(signed.MaxEnvelope)) })
		return f
	case Renewals{}.kind():
		var f Renewals
		r.each(MaxWants, func() {
			var one shelf.Renewal
			r.bytes(one.ID[:])
			one.Number = r.number(notice.MaxNumber)
			r.bytes(one.Signature[:])
			f = append(f, one)
		})
		return f
	case Denied{}.kind():
		var f Denied
		r.each(MaxWants, func() {
			var id shelf.ID
			r.bytes(id[:])
			f = append(f, id)
		})
		return f
	}
	return r.ledgerFrame(kind)
}

func (r *reader) list() Frame {
	f := List{Part: r.where()}
	for range r.number(MaxItems) {
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

func (r *reader) ledgerFrame(kind byte) Frame {
	switch kind {
	case Head{}.kind():
		f := Head{Height: r.height()}
		r.bytes(f.Record[:])
		return f
	case WantEntry{}.kind():
		return WantEntry{r.height()}
	case Entry{}.kind():
		f := Entry{Height: r.height()}
		for i := range f.Parts {
			f.Parts[i] = r.sized(PieceSize)
		}
		return f
	case Offer{}.kind():
		f := Offer{Height: r.height()}
		for i := range f.Sizes {
			f.Sizes[i] = int(r.number(ledger.MaxEntry))
		}
		r.each(MaxPieces, func() {
			var sum document.Hash
			r.bytes(sum[:])
			f.Sums = append(f.Sums, sum)
		})
		r.bad = r.bad || len(f.Sums) != (f.Size()+PieceSize-1)/PieceSize
		return f
	case WantPiece{}.kind():
		f := WantPiece{Height: r.height(), Index: int(r.number(MaxPieces - 1))}
		r.bytes(f.Sum[:])
		return f
	case Piece{}.kind():
		var f Piece
		r.bytes(f.Sum[:])
		f.Data = r.sized(PieceSize)
		return f
	case Lack{}.kind():
		f := Lack{Height: r.height()}
		r.bytes(f.Sum[:])
		return f
	}
	return r.paperFrame(kind)
}

func (r *reader) paperFrame(kind byte) Frame {
	switch kind {
	case PaperSum{}.kind():
		var f PaperSum
		r.bytes(f.Sum[:])
		return f
	case WantPapers{}.kind():
		f := WantPapers{}
		for n := r.number(token.MaxSet); n > 0 && !r.bad; n-- {
			var id token.Short
			r.bytes(id[:])
			f = append(f, id)
		}
		return f
	case Papers{}.kind():
		var f Papers
		r.each(MaxFrame, func() { f = append(f, r.sized(signed.MaxEnvelope)) })
		return f
	}
	return nil
}
