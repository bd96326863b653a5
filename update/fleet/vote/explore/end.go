package explore

import (
	"slices"
	"strings"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/vote"
)

// learns says whether a seat that has not decided does so once it has all that was ever signed: what
// the liar can sign first, what others have, and again what was not kept.
func (x *explorer) learns(id uint32, pool uint64) bool {
	k := step{id, pool | 1<<62}
	if ok, known := x.ask[k]; known {
		return ok
	}
	s := x.nodes[id].state
	for range 3 {
		for _, set := range []uint64{x.lies, pool} {
			s = x.hearAll(s, set)
		}
	}
	x.ask[k] = s.Phase == vote.Decided
	return x.ask[k]
}

func (x *explorer) hearAll(s vote.State, set uint64) vote.State {
	for i, b := range x.ballots {
		if set>>i&1 == 1 {
			x.steps++
			s, _ = vote.Step(s, vote.Received{Ballot: b})
		}
	}
	return s
}

// acts says whether a seat does something that others notice, with so much in its hands.
func (x *explorer) acts(id uint32, pool uint64) bool {
	return len(x.successors(id, pool, false)) > 0
}

// past says whether a seat, with so much in its hands, is at the end of the last round, and would
// go on to the next one.
func (x *explorer) past(id uint32, pool uint64) bool {
	k := step{id, pool | 1<<61}
	if ok, known := x.ask[k]; known {
		return ok
	}
	n := x.nodes[id]
	s := n.state
	for range 3 {
		s = x.hearAll(s, pool)
		if s.Phase == vote.Idle {
			s, _ = vote.Step(s, vote.Item{Value: values[x.item(n)]})
		}
		for k := ballot.Proposal; k <= ballot.Precommit && int(s.Round) < x.Rounds; k++ {
			s, _ = vote.Step(s, vote.Timeout{Height: number, Round: s.Round, Step: k})
		}
	}
	x.ask[k] = s.Phase == vote.Decided || int(s.Round) == x.Rounds
	return x.ask[k]
}

// tell says how a seat gets from one node to the next one that others notice.
func (x *explorer) tell(from, to uint32, pool uint64, cut bool) string {
	type way struct {
		at   uint32
		told []string
	}
	seen := map[uint32]bool{from: true}
	for todo := []way{{at: from}}; len(todo) > 0; todo = todo[1:] {
		w := todo[0]
		for _, e := range x.nodes[w.at].edges {
			if e.needs&^pool != 0 || e.cut && !cut || seen[e.to] {
				continue
			}
			told := slices.Clip(w.told)
			if e.needs != 0 {
				told = append(told, "hears "+x.say(e.needs))
			}
			if e.what != "" {
				told = append(told, e.what)
			}
			a, b := x.nodes[w.at], x.nodes[e.to]
			if signed := b.signed &^ a.signed; signed != 0 {
				told = append(told, "signs "+x.say(signed))
			}
			for v := range values {
				if (b.decided&^a.decided)>>v&1 == 1 {
					told = append(told, "DECIDES "+valueNames[v])
				}
			}
			if e.to == to {
				return strings.Join(told, "; ")
			}
			if !e.seen {
				seen[e.to] = true
				todo = append(todo, way{e.to, told})
			}
		}
	}
	return "?"
}
