package vote

import (
	"slices"

	"kogge.example/update/fleet/ballot"
)

// Shown are the ballots that the seat shows to others as long as they may need them: its own of
// the rounds that are voted about and of those on which choices rest; what double voters cast
// there, of which each of the others may have heard something else; and, once a round with a quorum
// of prevotes has ended without a decision, these prevotes. A liar may have shown its own to this
// seat alone: then nobody else could follow it, and a locked seat could follow nobody. They are in
// the order of their rounds.
func (s State) Shown() (all []*ballot.Ballot) {
	i := s.At.Index(s.Self)
	if i < 0 {
		return nil
	}
	matters := map[int32]bool{s.Round: true, s.Round - 1: true, s.Valid.Round: true, s.Locked.Round: true}
	for _, r := range s.rounds {
		if r.number != s.Round && r.number != s.Round-1 {
			continue
		}
		for _, p := range r.proposals {
			matters[p.ValidRound] = true
		}
	}
	for _, r := range s.rounds {
		if !matters[r.number] {
			continue
		}
		all = append(all, r.of(i, s.Self)...)
		if r.number == s.Valid.Round && r.number < s.Round {
			for _, b := range r.votes[0].ballots(s.Valid.Value) {
				if b.Seat != s.Self && !slices.Contains(s.exposed, b.Seat) {
					all = append(all, b)
				}
			}
		}
		for _, seat := range s.exposed {
			if at := s.At.Index(seat); at >= 0 && seat != s.Self {
				all = append(all, r.of(at, seat)...)
			}
		}
	}
	return slices.Clip(all)
}
