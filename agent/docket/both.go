package docket

import (
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/token"
)

// Papers are what gossip carries besides what lies on the shelf: papers, and the docket. An older
// release has the papers alone: it refuses the rest, and is told of it again each quarter of an hour.
type Papers interface {
	Sum() document.Hash
	IDs() []token.Short
	Lacking(has []token.Short, most int) [][]byte
	Take(raw []byte) (news bool, err error)
}

// With is papers and a docket as one. Where nothing waits it is as if there were no docket, so that
// two releases agree.
func With(papers Papers, s *Store) Papers { return both{papers, s} }

type both struct {
	papers Papers
	docket *Store
}

func (b both) Sum() document.Hash {
	sum := b.papers.Sum()
	waits := b.docket.Sum()
	if waits.IsZero() {
		return sum
	}
	return document.HashOf(document.Message("kogge/papers-and-docket/v1", sum[:], waits[:]))
}

func (b both) IDs() []token.Short {
	all := append(b.docket.IDs(), b.papers.IDs()...)
	return all[:min(len(all), token.MaxSet)]
}

func (b both) Lacking(has []token.Short, most int) [][]byte {
	all := b.docket.Lacking(has, most)
	for _, raw := range all {
		most -= len(raw)
	}
	return append(all, b.papers.Lacking(has, most)...)
}

func (b both) Take(raw []byte) (news bool, err error) {
	if docket.Is(raw) {
		return b.docket.Take(raw)
	}
	return b.papers.Take(raw)
}
