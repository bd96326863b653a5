package docket

import (
	"math/rand/v2"
	"slices"

	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/token"
)

// Papers are the other signed objects that have no place on the shelf. agent/papers' Store fits.
type Papers interface {
	Sum() document.Hash
	IDs() []token.Short
	Lacking(has []token.Short, most int) [][]byte
	Take(raw []byte) (news bool, err error)
}

// With is papers and a docket as one.
func With(papers Papers, s *Store) Carried { return Carried{papers, s} }

// Carried is papers and a docket as gossip carries them: as one. It fits agent/gossip's Papers.
//
// A release before the docket takes no frame with an object that is larger than a paper, and would end the
// session over one. So who asks says that he takes them, by an id that no object has ([takes]), and
// nobody else is given any. While a docket is empty the sum is that of the papers alone; else such a
// release asks for papers once in a quiet while, and is given none: 8 bytes for each paper, four times
// an hour and session.
type Carried struct {
	Papers Papers
	Docket *Store
}

// takes says in a list of ids that who asks takes objects of a docket.
var takes = token.Short([]byte("docket/1"))

// Sum stands for all that is here.
func (c Carried) Sum() document.Hash {
	papers, said := c.Papers.Sum(), c.Docket.Sum()
	if said.IsZero() {
		return papers
	}
	return document.HashOf(document.Message("kogge/papers-and-docket/v1", papers[:], said[:]))
}

// IDs are the ids of all that is here, as many as fit into one frame: of very many papers some are sent
// again.
func (c Carried) IDs() []token.Short {
	all := slices.Concat([]token.Short{takes}, c.Docket.IDs(), c.Papers.IDs())
	return all[:min(len(all), token.MaxSet)]
}

// Lacking are objects that somebody lacks, of both in turn: neither keeps the other from travelling.
func (c Carried) Lacking(has []token.Short, most int) [][]byte {
	if !slices.Contains(has, takes) {
		return c.Papers.Lacking(has, most)
	}
	first, second := c.Docket.Lacking, c.Papers.Lacking
	if rand.IntN(2) == 0 {
		first, second = second, first
	}
	all := first(has, most)
	for _, raw := range all {
		most -= len(raw)
	}
	return append(all, second(has, most)...)
}

// Take verifies an object and keeps it.
func (c Carried) Take(raw []byte) (news bool, err error) {
	if docket.Is(raw) {
		return c.Docket.Take(raw)
	}
	return c.Papers.Take(raw)
}
