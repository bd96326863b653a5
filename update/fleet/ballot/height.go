package ballot

import (
	"slices"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
)

// Height is what all ballots at one height of the ledger have in common, and who casts them. It
// is read-only. The one that follows on a ledger's state is
// [kogge.example/update/fleet/ledger.State.Ballots].
type Height struct {
	Fleet  document.Hash
	Number int64         // of the record that is to be decided
	Record document.Hash // the one before it
	Tree   document.Hash // root over all records before
	Roster document.Hash
	Voters []roster.Seat // that have a vote, by number
	Quorum int           // q
	Liars  int           // f
}

// Index is the place of a seat among the voters; -1: it is none.
func (h Height) Index(seat int) int {
	i, ok := slices.BinarySearchFunc(h.Voters, seat, func(s roster.Seat, n int) int { return s.Number - n })
	if !ok {
		return -1
	}
	return i
}

// Chair is the seat whose turn a round is.
func (h Height) Chair(round int32) int {
	return h.Voters[(h.Number+int64(round))%int64(len(h.Voters))].Number
}

// Words are what a ballot of this height says.
func (h Height) Words(k Kind, round int32, value document.Hash, validRound int32) Words {
	return Words{Kind: k, Fleet: h.Fleet, Height: h.Number, Round: round, Roster: h.Roster, Value: value, Tree: h.Tree, ValidRound: validRound}
}

// Has says whether a ballot is of this height: of the same history and the same voters.
func (h Height) Has(w Words) bool { return w == h.Words(w.Kind, w.Round, w.Value, w.ValidRound) }
