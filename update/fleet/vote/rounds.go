package vote

import (
	"slices"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/document"
)

// round is what was heard of one round. It is never changed: states share it.
type round struct {
	number    int32
	proposals []*ballot.Ballot // more than one only of a lying chair
	votes     [2]tally         // prevotes, precommits
}

// tally counts ballots of one kind.
type tally struct {
	first  []*ballot.Ballot // of each voter, by its place in the roster
	more   []*ballot.Ballot // what double voters cast besides
	counts []count
	voters int // that have cast one
}

type count struct {
	value document.Hash
	n     int // voters that have signed it
}

// Bounds of what is kept of a seat, which may lie: a seat that is honest stays below them.
const (
	// maxAhead is of how many rounds that have not begun ballots of one seat are kept: the
	// highest ones. They only tell that it is there (line 55).
	maxAhead = 4
	// keepNil is for how many rounds ballots for nothing are kept, in case that somebody votes
	// twice. To decide, none of a past round is needed.
	keepNil = 8
)

func (r *round) tally(k ballot.Kind) *tally { return &r.votes[k-ballot.Prevote] }

// for_ is how many voters have signed a value.
func (t *tally) for_(value document.Hash) int {
	for _, c := range t.counts {
		if c.value == value {
			return c.n
		}
	}
	return 0
}

// by are the ballots of a voter.
func (t *tally) by(i int) (all []*ballot.Ballot) {
	if t.first == nil || t.first[i] == nil {
		return nil
	}
	all = append(all, t.first[i])
	for _, b := range t.more {
		if b.Seat == t.first[i].Seat {
			all = append(all, b)
		}
	}
	return all
}

// ballots are those for a value, by seat; of a double voter at most one is for it.
func (t *tally) ballots(value document.Hash) (all []*ballot.Ballot) {
	for _, b := range slices.Concat(t.first, t.more) {
		if b != nil && b.Value == value {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b *ballot.Ballot) int { return a.Seat - b.Seat })
	return all
}

// with is the tally with a ballot more.
func (t tally) with(i, voters int, b *ballot.Ballot) tally {
	if t.first == nil {
		t.first = make([]*ballot.Ballot, voters)
	}
	if t.first[i] == nil {
		t.first = slices.Clone(t.first)
		t.first[i] = b
		t.voters++
	} else {
		t.more = append(slices.Clip(t.more), b)
	}
	return t.counted(b.Value, 1)
}

// without is the tally without the ballots of a voter.
func (t tally) without(i int) tally {
	for _, b := range t.by(i) {
		t = t.counted(b.Value, -1)
	}
	if t.first != nil && t.first[i] != nil {
		seat := t.first[i].Seat
		t.more = slices.DeleteFunc(slices.Clone(t.more), func(b *ballot.Ballot) bool { return b.Seat == seat })
		t.first = slices.Clone(t.first)
		t.first[i] = nil
		t.voters--
	}
	return t
}

func (t tally) counted(value document.Hash, n int) tally {
	t.counts = slices.Clone(t.counts)
	for i := range t.counts {
		if t.counts[i].value == value {
			t.counts[i].n += n
			return t
		}
	}
	t.counts = append(t.counts, count{value, n})
	return t
}

// of are the ballots of a voter in the round, of all kinds.
func (r *round) of(i, seat int) (all []*ballot.Ballot) {
	for _, p := range r.proposals {
		if p.Seat == seat {
			all = append(all, p)
		}
	}
	return append(append(all, r.votes[0].by(i)...), r.votes[1].by(i)...)
}

// voters is how many seats were heard in the round.
func (r *round) voters(h ballot.Height) (n int) {
	for i, seat := range h.Voters {
		if len(r.of(i, seat.Number)) > 0 {
			n++
		}
	}
	return n
}

// at is a round, of which nothing may have been heard.
func (s *State) at(number int32) *round {
	if i, ok := s.find(number); ok {
		return s.rounds[i]
	}
	return &round{number: number}
}

func (s *State) find(number int32) (int, bool) {
	return slices.BinarySearchFunc(s.rounds, number, func(r *round, n int32) int { return int(r.number - n) })
}

// put is where a round is replaced by what it has become.
func (s *State) put(r *round) {
	i, ok := s.find(r.number)
	s.rounds = slices.Clone(s.rounds)
	if !ok {
		s.rounds = slices.Insert(s.rounds, i, r)
	}
	s.rounds[i] = r
}

// keep adds a ballot of this height, of a voter, to what was heard, and gives the ballot of the
// same seat, kind and round that contradicts it. What is not kept may be offered again: when it
// matters, it is.
func (s *State) keep(b *ballot.Ballot) (other *ballot.Ballot) {
	i := s.At.Index(b.Seat)
	if b.Kind == ballot.Proposal && (b.Value == ballot.Nil || s.At.Chair(b.Round) != b.Seat) { // difference 1
		return nil
	}
	if b.Value == ballot.Nil && b.Round < s.Round-keepNil || b.Round > s.Round && !s.room(i, b) {
		return nil
	}
	r := *s.at(b.Round)
	var before []*ballot.Ballot
	if b.Kind == ballot.Proposal {
		before = r.proposals
	} else {
		before = r.tally(b.Kind).by(i)
	}
	for _, o := range before {
		if o.Words == b.Words {
			return nil
		}
	}
	// Difference 4. A third one, and those after it, are kept if another voter's ballot says
	// the same: for a quorum more count than those of liars.
	if len(before) > 1 && !r.supported(b) {
		return before[0]
	}
	if b.Kind == ballot.Proposal {
		r.proposals = append(slices.Clip(r.proposals), b)
	} else {
		t := r.tally(b.Kind)
		*t = t.with(i, len(s.At.Voters), b)
	}
	s.put(&r)
	if len(before) > 0 {
		return before[0]
	}
	return nil
}

// supported says whether some voter's first ballot of the round is for the value of b.
func (r *round) supported(b *ballot.Ballot) bool {
	k := max(b.Kind, ballot.Prevote)
	return slices.ContainsFunc(r.tally(k).first, func(o *ballot.Ballot) bool { return o != nil && o.Value == b.Value })
}

// room makes room for a ballot of a round that has not begun; false: there is none.
func (s *State) room(i int, b *ballot.Ballot) bool {
	first, _ := s.find(s.Round + 1)
	var ahead []*round
	for _, r := range s.rounds[first:] {
		if all := r.of(i, b.Seat); len(all) > 0 {
			if r.number == b.Round {
				return true
			}
			ahead = append(ahead, r)
		}
	}
	if len(ahead) < maxAhead {
		return true
	}
	if b.Round < ahead[0].number {
		return false
	}
	r := *ahead[0]
	r.proposals = slices.DeleteFunc(slices.Clone(r.proposals), func(p *ballot.Ballot) bool { return p.Seat == b.Seat })
	r.votes = [2]tally{r.votes[0].without(i), r.votes[1].without(i)}
	if s.put(&r); r.voters(s.At) == 0 {
		s.rounds = slices.DeleteFunc(s.rounds, func(o *round) bool { return o == &r })
	}
	return true
}

// forget drops the ballots for nothing of rounds that are long past.
func (s *State) forget() {
	for _, old := range s.rounds {
		if old.number >= s.Round-keepNil || old.votes[0].for_(ballot.Nil)+old.votes[1].for_(ballot.Nil) == 0 {
			continue
		}
		r := *old
		for k := range r.votes {
			var left tally
			for _, b := range slices.Concat(r.votes[k].first, r.votes[k].more) {
				if b != nil && b.Value != ballot.Nil {
					left = left.with(s.At.Index(b.Seat), len(s.At.Voters), b)
				}
			}
			r.votes[k] = left
		}
		s.put(&r)
	}
}
