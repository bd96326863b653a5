package explore

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/vote"
)

// The values that there are: nothing, two records, and one that the queue of a seat has which
// never is chair, so that nobody ever speaks of it.
const (
	none = iota
	valueX
	valueY
	unspoken
)

var (
	values     = [...]document.Hash{ballot.Nil, document.HashOf([]byte("X")), document.HashOf([]byte("Y")), document.HashOf([]byte("unspoken"))}
	valueNames = [...]string{"nil", "X", "Y", "an item"}
)

func valueOf(h document.Hash) byte {
	i := slices.Index(values[:], h)
	if i < 0 {
		panic("a value that nobody has named") // no seat makes one up
	}
	return byte(i)
}

// Message is a ballot that somebody may sign.
type Message struct {
	Kind       ballot.Kind
	Round      int32
	Value      int // 0: nil
	ValidRound int32
	Seat       int
}

func (m Message) String() string {
	s := fmt.Sprintf("%s %d %s", m.Kind, m.Round, valueNames[m.Value])
	if m.Kind == ballot.Proposal && m.ValidRound >= 0 {
		s += fmt.Sprintf(" valid in %d", m.ValidRound)
	}
	return s
}

// number is the height: its record 1 was founded, and seat 3 is the first chair.
const number = 2

func height() ballot.Height {
	h := ballot.Height{Number: number, Quorum: roster.RuleFor(4).Quorum(4), Liars: 1}
	for i := 1; i <= 4; i++ {
		h.Voters = append(h.Voters, roster.Seat{Number: i})
	}
	return h
}

// alphabet is all messages of so many rounds. No proposal is of nil but those of a liar.
func alphabet(h ballot.Height, rounds int) (all []Message) {
	for seat := 1; seat <= 4; seat++ {
		for r := range int32(rounds) {
			if h.Chair(r) == seat {
				for valid := int32(ballot.Fresh); valid < r; valid++ {
					all = append(all, Message{ballot.Proposal, r, valueX, valid, seat}, Message{ballot.Proposal, r, valueY, valid, seat})
				}
				all = append(all, Message{ballot.Proposal, r, none, ballot.Fresh, seat})
			}
			for _, k := range []ballot.Kind{ballot.Prevote, ballot.Precommit} {
				for v := none; v <= valueY; v++ {
					all = append(all, Message{k, r, v, ballot.Fresh, seat})
				}
			}
		}
	}
	return all
}

func (m Message) ballot(h ballot.Height) *ballot.Ballot {
	return &ballot.Ballot{Words: h.Words(m.Kind, m.Round, values[m.Value], m.ValidRound), Seat: m.Seat}
}

// renaming gives seats and values other names, under which everything happens in the same way.
type renaming struct {
	seat     [5]byte // by number
	value    [len(values)]byte
	place    [3]int // of each honest seat
	messages []int  // of each message
}

// renames are all renamings: seats that are chair of no round may change their names, and values, if no
// honest seat is chair and so has one of its own. The first one changes nothing.
func (x *explorer) renames() (all []renaming) {
	var free []int // places
	chairs := false
	for i, seat := range x.honest {
		if x.chair(seat) {
			chairs = true
		} else {
			free = append(free, i)
		}
	}
	for _, order := range orders(free) {
		for _, swap := range []bool{false, true} {
			if swap && chairs {
				continue
			}
			r := renaming{seat: [5]byte{0, 1, 2, 3, 4}, value: [len(values)]byte{0, 1, 2, 3}, place: [3]int{0, 1, 2}}
			if swap {
				r.value[valueX], r.value[valueY] = valueY, valueX
			}
			for i, from := range free {
				r.place[from] = order[i]
				r.seat[x.honest[from]] = byte(x.honest[order[i]])
			}
			for _, m := range x.messages {
				m.Seat, m.Value = int(r.seat[m.Seat]), int(r.value[m.Value])
				r.messages = append(r.messages, slices.Index(x.messages, m))
			}
			all = append(all, r)
		}
	}
	if x.Apart {
		return all[:1]
	}
	return all
}

// orders are all orders of some places, the given one first.
func orders(of []int) [][]int {
	if len(of) == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for i, first := range of {
		rest := slices.Delete(slices.Clone(of), i, i+1)
		for _, o := range orders(rest) {
			all = append(all, append([]int{first}, o...))
		}
	}
	return all
}

func (r *renaming) naming() vote.Naming {
	return vote.Naming{
		Seat:  func(seat int) byte { return r.seat[seat] },
		Value: func(h document.Hash) byte { return r.value[valueOf(h)] },
	}
}

// journal is what a journal says, renamed. Of one height, that is the ballots and the lock.
func (r *renaming) journal(key []byte, m journal.Memory) []byte {
	key = append(key, byte(len(m.Own)), byte(m.Head.Height), byte(m.Abstain))
	if m.Behind {
		key = append(key, 1)
	}
	for _, w := range m.Own {
		key = append(key, byte(w.Kind), byte(w.Round), r.value[valueOf(w.Value)], byte(w.ValidRound+1))
	}
	if m.Lock == nil {
		return key
	}
	w := m.Lock.Proposal.Words
	key = append(key, byte(w.Round), r.value[valueOf(w.Value)], byte(w.ValidRound+1))
	var by uint8
	for _, p := range m.Lock.Prevotes {
		by |= 1 << r.seat[p.By]
	}
	return append(key, by)
}

// mask is a set of messages, renamed.
func (r *renaming) mask(set uint64) (renamed uint64) {
	for ; set != 0; set &= set - 1 {
		renamed |= 1 << r.messages[bits.TrailingZeros64(set)]
	}
	return renamed
}

// flags is a set of values, renamed.
func (r *renaming) flags(set uint8) (renamed uint8) {
	for v := range values {
		renamed |= set >> v & 1 << r.value[v]
	}
	return renamed
}

// say is a set of messages in words.
func (x *explorer) say(set uint64) string {
	var all []string
	for ; set != 0; set &= set - 1 {
		m := x.messages[bits.TrailingZeros64(set)]
		all = append(all, fmt.Sprintf("%s of seat %d", m, m.Seat))
	}
	return strings.Join(all, ", ")
}
