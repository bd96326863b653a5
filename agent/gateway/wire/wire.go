// Package wire is what a node and a member's gateway say to each other: frames, on a session
// between two seats.
//
//	node ─▶ gateway    put, alive, follow, leave
//	gateway ─▶ node    welcome or refuse; done, items, live, again, recall, members, alive, move
//
// In come bytes of a peer that may be hostile; out go frames, or an error. What a frame asks
// for, and whether it may, is for the package that reads it.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/signed"
)

// Protocol is what is spoken, as TLS negotiates it (ALPN), on the port of the API: a call of
// HTTP/2 that lasts would cost a member more than four times as much for each node.
const Protocol = "kogge-gateway/1"

// Bounds of a frame. What is beyond them only a peer sends that wants to do harm, since the
// protocol has its version in its name.
const (
	MaxFrame = 128 << 10 // bytes
	// MaxValue is how much may lie under a key that is passed on, in bytes: a larger entry of
	// the ledger goes by gossip alone.
	MaxValue   = 96 << 10
	maxKey     = 128
	maxItems   = 512
	maxMembers = 16
	maxWait    = time.Hour
	maxSeat    = 1 << 30 // as the roster has it
)

// Frame is what one end says to the other.
type Frame interface {
	kind() byte
	write(*writer)
}

// The frames.
type (
	// Put has the gateway write an object of the node's seat. It is answered by a Done of its ID.
	Put struct {
		ID       uint64
		Envelope []byte
	}
	// Alive says that the node is there; the gateway answers it with one.
	Alive struct{}
	// Follow asks for all that lies in a topic behind a key, and then for what changes. It is
	// answered by Items, a Live, and Items again.
	Follow struct {
		Topic board.Topic
		After string
	}
	// Leave ends a Follow.
	Leave struct{ Topic board.Topic }
	// Welcome is the first word to a node that may stay: how long it may be silent, and which
	// seats have gateways.
	Welcome struct {
		Silence time.Duration
		Members []int
	}
	// Refuse is the first word to one that may not, and the last.
	Refuse struct {
		Why  Why
		Wait time.Duration // it need not come again before
	}
	// Done says what became of a Put.
	Done struct {
		ID   uint64
		Why  Why
		Wait time.Duration
	}
	// Items is what lies in a topic, or has changed.
	Items struct {
		Topic board.Topic
		Items []Item
	}
	// Live says that all that lay in a topic was said.
	Live struct{ Topic board.Topic }
	// Again says that the node was too slow for what changes in a topic, and follows it no more:
	// it is to ask anew.
	Again struct{ Topic board.Topic }
	// Recall says that etcd has not what the node has put there: it is to put it again.
	Recall struct{}
	// Members says which seats have gateways now.
	Members struct{ Seats []int }
	// Move says that the gateway closes: the node is to find another one.
	Move struct{}
)

// Item is what lies under a key.
type Item struct {
	Key      string
	Revision int64
	State    State
	Value    []byte // none of what is gone
}

// State is how it lies there.
type State byte

// The states.
const (
	Stays  State = iota // for good
	Leased              // as long as its node is there
	Gone                // not any more
	states = iota
)

// Why is why something was refused.
type Why byte

// The reasons.
const (
	None      Why = iota // it was not refused
	NoEtcd               // no etcd answers here
	Busy                 // too much at a time, or too often: again after a while
	Older                // a newer object of the seat is known
	Forged               // its signature is wrong, or it is of another fleet
	NotOwn               // it is of another seat, or its kind has no place
	TooLarge             // for its kind
	Unlisted             // the seat is not in the ledger
	Malformed            // it is no object, or says nothing that counts
	reasons   = iota
)

func (w Why) String() string {
	return [reasons]string{
		"taken", "no etcd answers here", "too often, or too much at a time", "a newer object of the seat is known", "it is forged or of another fleet",
		"it is not the seat's own", "it is too large", "the seat is not in the ledger", "it is no object that counts",
	}[w]
}

func (Put) kind() byte     { return 1 }
func (Alive) kind() byte   { return 2 }
func (Follow) kind() byte  { return 3 }
func (Welcome) kind() byte { return 4 }
func (Refuse) kind() byte  { return 5 }
func (Done) kind() byte    { return 6 }
func (Items) kind() byte   { return 7 }
func (Live) kind() byte    { return 8 }
func (Again) kind() byte   { return 9 }
func (Recall) kind() byte  { return 10 }
func (Members) kind() byte { return 11 }
func (Move) kind() byte    { return 12 }
func (Leave) kind() byte   { return 13 }

// Encode writes a frame. What a caller of this program puts into it is within the bounds.
func Encode(f Frame) []byte {
	w := &writer{f.kind()}
	f.write(w)
	return *w
}

type writer []byte

func (w *writer) number(n uint64)      { *w = binary.AppendUvarint(*w, n) }
func (w *writer) byte(b byte)          { *w = append(*w, b) }
func (w *writer) sized(b []byte)       { w.number(uint64(len(b))); *w = append(*w, b...) }
func (w *writer) text(s string)        { w.number(uint64(len(s))); *w = append(*w, s...) }
func (w *writer) wait(d time.Duration) { w.number(uint64(min(max(d, 0), maxWait) / time.Millisecond)) }
func (w *writer) topic(t board.Topic)  { w.byte(topicNumbers[t]) }
func (w *writer) members(seats []int) {
	seats = seats[:min(len(seats), maxMembers)]
	w.number(uint64(len(seats)))
	for _, n := range seats {
		w.number(uint64(n))
	}
}

// topicNumbers are what topics are on the wire.
var topicNumbers = map[board.Topic]byte{board.Nodes: 1, board.Ledger: 2}

func (f Put) write(w *writer)     { w.number(f.ID); w.sized(f.Envelope) }
func (Alive) write(*writer)       {}
func (f Follow) write(w *writer)  { w.topic(f.Topic); w.text(f.After) }
func (f Welcome) write(w *writer) { w.wait(f.Silence); w.members(f.Members) }
func (f Refuse) write(w *writer)  { w.byte(byte(f.Why)); w.wait(f.Wait) }
func (f Done) write(w *writer)    { w.number(f.ID); w.byte(byte(f.Why)); w.wait(f.Wait) }
func (f Live) write(w *writer)    { w.topic(f.Topic) }
func (f Again) write(w *writer)   { w.topic(f.Topic) }
func (f Leave) write(w *writer)   { w.topic(f.Topic) }
func (Recall) write(*writer)      {}
func (f Members) write(w *writer) { w.members(f.Seats) }
func (Move) write(*writer)        {}

func (f Items) write(w *writer) {
	w.topic(f.Topic)
	w.number(uint64(len(f.Items)))
	for _, i := range f.Items {
		w.text(i.Key)
		w.number(uint64(max(i.Revision, 0)))
		w.byte(byte(i.State))
		w.sized(i.Value)
	}
}

// Size is about how many bytes an item is in a frame.
func (i Item) Size() int { return len(i.Key) + len(i.Value) + 16 }

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

func (r *reader) wrong() { r.bad, r.left = true, nil }

// number is an unsigned varint of at most a size. Each has one spelling.
func (r *reader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.left)
	if size <= 0 || n > most || size > 1 && r.left[size-1] == 0 {
		r.wrong()
		return 0
	}
	r.left = r.left[size:]
	return n
}

func (r *reader) byte(less byte) byte {
	if len(r.left) == 0 || r.left[0] >= less {
		r.wrong()
		return 0
	}
	b := r.left[0]
	r.left = r.left[1:]
	return b
}

// sized is a field behind its length, at most so many bytes.
func (r *reader) sized(most int) []byte {
	n := int(r.number(uint64(most)))
	if len(r.left) < n {
		r.wrong()
		return nil
	}
	field := r.left[:n:n]
	r.left = r.left[n:]
	return field
}

// text is a field that may be printed.
func (r *reader) text(most int) string {
	b := r.sized(most)
	for _, c := range string(b) {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			r.wrong()
			return ""
		}
	}
	return string(b)
}

func (r *reader) wait() time.Duration {
	return time.Duration(r.number(uint64(maxWait/time.Millisecond))) * time.Millisecond
}

func (r *reader) why() Why { return Why(r.byte(reasons)) }

func (r *reader) topic() board.Topic {
	n := r.byte(255)
	for t, number := range topicNumbers {
		if number == n {
			return t
		}
	}
	r.wrong()
	return ""
}

func (r *reader) members() (seats []int) {
	for range r.number(maxMembers) {
		if r.bad {
			break
		}
		seats = append(seats, int(r.number(maxSeat)))
	}
	return seats
}

func (r *reader) frame(kind byte) Frame {
	switch kind {
	case Put{}.kind():
		return Put{r.number(1<<63 - 1), r.sized(signed.MaxEnvelope)}
	case Alive{}.kind():
		return Alive{}
	case Follow{}.kind():
		return Follow{r.topic(), r.text(maxKey)}
	case Welcome{}.kind():
		return Welcome{r.wait(), r.members()}
	case Refuse{}.kind():
		return Refuse{r.why(), r.wait()}
	case Done{}.kind():
		return Done{r.number(1<<63 - 1), r.why(), r.wait()}
	case Items{}.kind():
		return r.items()
	case Live{}.kind():
		return Live{r.topic()}
	case Again{}.kind():
		return Again{r.topic()}
	case Recall{}.kind():
		return Recall{}
	case Members{}.kind():
		return Members{r.members()}
	case Move{}.kind():
		return Move{}
	case Leave{}.kind():
		return Leave{r.topic()}
	}
	return nil
}

func (r *reader) items() Frame {
	f := Items{Topic: r.topic()}
	n := r.number(maxItems)
	r.bad = r.bad || n == 0
	for range n {
		if r.bad {
			break
		}
		i := Item{Key: r.text(maxKey), Revision: int64(r.number(1<<63 - 1)), State: State(r.byte(states)), Value: r.sized(MaxValue)}
		r.bad = r.bad || i.State == Gone && len(i.Value) > 0
		f.Items = append(f.Items, i)
	}
	return f
}
