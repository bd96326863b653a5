package part

import (
	"slices"
	"testing"
	"time"

	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
)

// TestVote has four nodes, each behind the port of its API, decide what an operator has proposed to
// one of them, once its owner has said yes to another one. One is off meanwhile, and learns of it.
func TestVote(t *testing.T) {
	s := newSmall(t, 4)
	s.nodes[3].stop()
	<-s.nodes[3].ended
	e := s.fleet.Proposal(t, s.fleet.Operators(t, "bob"))
	_, err := s.nodes[0].part.docket().Take(e.Bytes())
	must(t, err)
	came := func(number int) func() bool {
		return func() bool { return len(s.nodes[number].part.docket().Open()) == 1 }
	}
	s.wait("the proposal comes to n2", came(1))
	_, err = s.nodes[1].part.docket().Take(s.fleet.Answer(proposal.ID(e), true, s.fleet.Genesis.Name, "", 1, 2))
	must(t, err)
	began := time.Now()
	at := func(height int64, who ...int) func() bool {
		return func() bool {
			for _, i := range who {
				taken, err := s.nodes[i].part.Ledger()
				if err != nil || taken.State().Height < height {
					return false
				}
			}
			return true
		}
	}
	s.wait("three of four decide", at(2, 0, 1, 2))
	t.Logf("decided %s after the owner's yes", time.Since(began).Round(time.Millisecond))
	taken, err := s.nodes[0].part.Ledger()
	must(t, err)
	entry, err := taken.Entry(2)
	must(t, err)
	s.fleet.Take(t, entry)
	if by := s.fleet.Log.State().Operators; !slices.ContainsFunc(by, func(o ledger.Operator) bool { return o.Name == "bob" }) {
		t.Errorf("decided: %+v", by)
	}
	s.nodes[3] = s.start(4, s.nodes[3].part)
	s.wait("n4 learns what was decided", at(2, 3))
	for _, n := range s.nodes {
		s.wait("what was decided waits no more", func() bool { return len(n.part.docket().Open()) == 0 })
		s.wait("it votes", func() bool {
			now := n.session.Load()
			return now != nil && now.voting.Load() != nil && now.voting.Load().voter != nil
		})
	}
}
