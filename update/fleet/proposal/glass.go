package proposal

import (
	"fmt"
	"slices"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// Glass is a record by which owners seat their fleet anew, while a node waits before it takes it:
//
//	held ─no quorum answers, for as long as the policy says─▶ taken, at the pinned height + 1
//	  ▲ └─enough seats object────────────────────────────────▶ refused, while they do
//	  └─── a quorum answers, or a record is decided: the time begins anew, and all are told (a veto)
//
// So a quorum that lives cannot be replaced, whoever has the owners' keys.
type Glass struct {
	Record document.Hash
	// Alone is the node's running time since it held the record in which no quorum of its roster gave
	// it fresh answers, at a stretch. The node keeps it: a boot does not begin anew.
	Alone document.Duration
	// Vetoes is how often a quorum has answered meanwhile.
	Vetoes int
}

// Ran is after some running time in which no quorum answered.
func (g Glass) Ran(d document.Duration) Glass {
	g.Alone += max(d, 0)
	return g
}

// Answered is after a quorum of the roster gave fresh answers, or the node saw a decided record.
func (g Glass) Answered() Glass {
	g.Alone = 0
	g.Vetoes++
	return g
}

// Verdict is what becomes of a record that breaks the glass.
type Verdict string

// The verdicts.
const (
	Hold   Verdict = "hold"
	Take   Verdict = "take"
	Refuse Verdict = "refuse"
)

// Verdict says whether the node takes the record now, and why not. by are the seats of the roster before
// whose newest opinion about the record is that it is invalid.
func (g Glass) Verdict(p fleet.Policy, before, next roster.Roster, by []int) (Verdict, string) {
	switch left := p.BreakGlass - g.Alone; {
	case before.Objected(next, by):
		return Refuse, fmt.Sprintf("%d seats object", len(by))
	case left > 0:
		return Hold, fmt.Sprintf("%s more of running time in which no quorum answers", left)
	}
	return Take, ""
}

// Objecting are the seats of a roster, with a vote or without, whose newest opinion about a record is that
// it is invalid. The envelopes are verified already.
func Objecting(objects []signed.Envelope, fleet document.Hash, seats roster.Roster, record document.Hash) (by []int) {
	for number, o := range newest(objects, fleet, seats, record) {
		if !o.Valid {
			by = append(by, number)
		}
	}
	slices.Sort(by)
	return by
}
