package vote

import (
	"bytes"
	"encoding/binary"
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
)

// Naming gives seats and values names of a byte, for [State.Key].
type Naming struct {
	Seat  func(int) byte
	Value func(document.Hash) byte
}

// Key is all of a state that decides what the seat will do, in two parts: control is how far it
// has come, heard which ballots of others it keeps. States of one fleet that have one key answer
// every event alike, but for the signatures that they show. So whoever explores what can happen
// looks at one of them alone; and, with seats and values named otherwise, at one of those that
// differ by names.
//
// The order in which ballots came is left out where nothing depends on it: of counts, and of a
// voter's second and later ballots. It stays in two places. A voter's first ballot may support a
// third one of somebody else. And of two proposals of a lying chair, both there before the round
// began, a locked seat answers the first.
func (s State) Key(n Naming) (control, heard []byte) {
	return s.control(n), s.heardKey(n)
}

func (s State) control(n Naming) []byte {
	k := make([]byte, 0, 160)
	k = append(k, n.Seat(s.Self), byte(s.Phase), byte(s.Step), flags(s.timed[:]...), flags(s.Asking, s.Behind))
	k = append(k, n.Value(s.Item), n.Value(s.Locked.Value), n.Value(s.Valid.Value), n.Value(s.decided))
	for _, number := range []int64{s.At.Number, int64(s.Round), int64(s.Locked.Round), int64(s.Valid.Round), int64(s.news), s.Abstain, s.Head.Height} {
		k = binary.AppendVarint(k, number)
	}
	k = append(k, s.Head.Record[:]...)
	k = append(k, byte(len(s.Own)))
	for _, w := range s.Own {
		k = appendWords(k, w, n)
	}
	k = appendLock(k, s.lock, n)
	judged := make([]byte, 0, 4)
	for _, v := range s.judged {
		judged = append(judged, n.Value(v))
	}
	slices.Sort(judged)
	k = append(append(k, byte(len(judged))), judged...)
	replies := slices.Clone(s.replies)
	slices.SortFunc(replies, func(a, b reply) int { return int(n.Seat(a.by)) - int(n.Seat(b.by)) })
	for _, r := range replies {
		k = binary.AppendVarint(append(k, n.Seat(r.by)), r.at)
	}
	return k
}

func (s State) heardKey(n Naming) []byte {
	k := make([]byte, 0, 160)
	for _, r := range s.rounds {
		k = binary.AppendVarint(k, int64(r.number))
		k = append(k, byte(len(r.proposals)))
		for _, p := range r.proposals {
			k = append(k, n.Seat(p.Seat), n.Value(p.Value), byte(p.ValidRound+1))
		}
		for i := range r.votes {
			k = r.votes[i].appendTo(k, n)
		}
	}
	exposed := make([]byte, 0, 4)
	for _, seat := range s.exposed {
		exposed = append(exposed, n.Seat(seat))
	}
	slices.Sort(exposed)
	k = append(append(k, byte(len(exposed))), exposed...)
	var newest [][]byte
	for seat, b := range s.newest {
		newest = append(newest, appendWords([]byte{n.Seat(seat)}, b.Words, n))
	}
	slices.SortFunc(newest, bytes.Compare)
	return append(k, slices.Concat(newest...)...)
}

// appendTo is a tally by the names of its voters: what each has cast first, and the rest.
func (t *tally) appendTo(k []byte, n Naming) []byte {
	k = append(k, byte(t.voters))
	var names [8]byte // most fleets that are explored are small
	seats := names[:0]
	for _, b := range t.first {
		if b != nil {
			seats = append(seats, n.Seat(b.Seat))
		}
	}
	slices.Sort(seats)
	for _, name := range seats {
		i := slices.IndexFunc(t.first, func(b *ballot.Ballot) bool { return b != nil && n.Seat(b.Seat) == name })
		k = append(k, name, n.Value(t.first[i].Value))
		from := len(k) + 1
		k = append(k, 0)
		for _, b := range t.more {
			if b.Seat == t.first[i].Seat {
				k = append(k, n.Value(b.Value))
			}
		}
		k[from-1] = byte(len(k) - from)
		slices.Sort(k[from:])
	}
	return k
}

func appendLock(k []byte, l *journal.Lock, n Naming) []byte {
	if l == nil {
		return append(k, 0)
	}
	k = appendWords(append(k, byte(1+len(l.Prevotes))), l.Proposal.Words, n)
	from := len(k)
	for _, p := range l.Prevotes {
		k = append(k, n.Seat(p.By))
	}
	slices.Sort(k[from:])
	return k
}

func appendWords(k []byte, w ballot.Words, n Naming) []byte {
	k = append(k, byte(w.Kind), n.Value(w.Value))
	return binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(k, w.Height), int64(w.Round)), int64(w.ValidRound))
}

// Unheard is the state of a seat that has come as far, and has to hear every ballot again: that of
// others, its own, those that its lock rests on. Nothing else is lost of it.
func (s State) Unheard() State {
	s.rounds, s.exposed = nil, nil
	if s.lock != nil {
		s.lock = &journal.Lock{Proposal: s.lock.Proposal}
	}
	return s
}

func flags(all ...bool) (b byte) {
	for i, f := range all {
		if f {
			b |= 1 << i
		}
	}
	return b
}
