package operate

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// TestJudge prints what is said of fleets by what their nodes say: who counts as a vote, what
// is wrong, and in which order.
func TestJudge(t *testing.T) {
	var out strings.Builder
	founded := func(seats int) ledger.State { return ledgertest.Founded(t, seats, 2).Log.State() }
	answer := func(s ledger.State, name string, change ...func(*Sighting)) Sighting {
		one := Sighting{Node: name, Status: &apiv1.StatusResponse{Boot: &apiv1.Boot{Version: "1.0", Slot: "A", Assessment: "good"}}, Part: Applicant{Name: name, Height: s.Height, Head: s.Record}}
		if seat, ok := s.Roster.ByName(name); ok {
			one.Part.Key, one.Part.Journal = seat.Key, seat.Journal
		} else {
			one.Part.Key = seatKey(t)
		}
		for _, c := range change {
			c(&one)
		}
		return one
	}
	silent := func(name string) Sighting {
		return Sighting{Node: name, Err: connect.NewError(connect.CodeUnavailable, errors.New("dial tcp 192.0.2.7:7443: connection refused"))}
	}
	forgotten := func(name string) Sighting { return Sighting{Node: name, Err: keyring.ErrNoNode} }
	doubt := func(code connect.Code, text string) func(*Sighting) {
		return func(s *Sighting) { s.Part, s.Doubt = Applicant{}, connect.NewError(code, errors.New(text)) }
	}
	behind := func(by int64) func(*Sighting) { return func(s *Sighting) { s.Part.Height -= by } }
	boot := func(assessment, why string, trial bool) func(*Sighting) {
		return func(s *Sighting) {
			s.Status.Boot.Assessment, s.Status.Boot.Why, s.Status.Boot.Trial = assessment, why, trial
		}
	}
	degraded := func(s *Sighting) {
		s.Status.Degraded = []*apiv1.Degraded{{What: "clock", Why: "no time server answers"}}
	}
	reset := func(s *Sighting) { s.Part.Key, s.Part.Journal = ledgertest.Key(t, "another"), roster.ID{9} }
	journal := func(s *Sighting) { s.Part.Journal = roster.ID{9} }
	etcd := func(leader int32, change func(*apiv1.EtcdResponse), members ...int32) func(*Sighting) {
		return func(s *Sighting) {
			s.Etcd = &apiv1.EtcdResponse{Wanted: true, Running: true, Leader: leader, Members: members}
			if change != nil {
				change(s.Etcd)
			}
		}
	}
	full := func(e *apiv1.EtcdResponse) { e.Full = []int32{2} }
	slow := func(e *apiv1.EtcdResponse) {
		e.Running, e.Leader, e.Problem = false, 0, "its disk is too slow: 900 ms"
	}
	lacks := func(e *apiv1.EtcdResponse) { e.LacksCa = true }
	leaderless := etcd(0, nil, 1, 2, 3)
	three, four := founded(3), founded(4)
	copied := func(s *Sighting) {
		seat, _ := three.Roster.ByName("n1")
		s.Part.Key = seat.Key
	}
	unsound := func(s *Sighting) {
		s.Part.Height, s.Part.Problem = 0, "the ledger on STATE is damaged from height 1 on"
		s.Doubt = s.Part.sound()
	}
	none := ledger.New(three.Genesis).State()
	key, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	by, err := signed.OperatorKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := by.Operator()
	ordered := four // a fleet whose admin ada gives orders
	ordered.Operators = []ledger.Operator{{Name: "ada", Role: fleet.RoleAdmin, Key: id}}
	orders := func(all ...order.Order) func(*Sighting) {
		return func(s *Sighting) {
			for i, o := range all {
				e, err := order.Seal(ordered.Fleet(), key, uint64(i+1), o)
				if err != nil {
					t.Fatal(err)
				}
				s.Orders = append(s.Orders, e)
			}
		}
	}
	seat := func(number int) signed.Key {
		one, _ := ordered.Roster.Seat(number)
		return one.Key
	}
	isolated := func(number int) order.Order {
		return order.Isolation{Seat: number, Key: seat(number), Isolated: true, Why: "stolen"}
	}
	absent := func(number int, state order.State) order.Order {
		return order.Absence{Seat: number, Key: seat(number), State: state}
	}
	for _, c := range []struct {
		name string
		s    ledger.State
		seen []Sighting
	}{
		{"all is well", three, []Sighting{answer(three, "n1"), answer(three, "n2"), answer(three, "n3")}},
		{"and a node without a seat", three, []Sighting{answer(three, "n1"), answer(three, "n2"), answer(three, "n3"), answer(three, "web")}},
		{"not founded", none, []Sighting{answer(none, "n1"), answer(none, "n2")}},
		{"not founded, by an older release", none, []Sighting{answer(none, "n1", doubt(connect.CodeUnimplemented, "there is no method"))}},
		{"an older release in a founded fleet", three, []Sighting{answer(three, "n1"), answer(three, "n2"), answer(three, "n3", doubt(connect.CodeUnimplemented, "there is no method"))}},
		{"one is off", three, []Sighting{answer(three, "n1"), answer(three, "n2"), silent("n3")}},
		{"one is off, and this computer does not know another", four, []Sighting{answer(four, "n1"), answer(four, "n2"), silent("n3"), forgotten("n4")}},
		{"nobody was asked", three, nil},
		{"one is behind, and one on trial", three, []Sighting{answer(three, "n1"), answer(three, "n2", behind(1)), answer(three, "n3", boot("pending", "the link", true))}},
		{"one claims a height that nobody can prove", three, []Sighting{answer(three, "n1"), answer(three, "n2"), answer(three, "n3", behind(-5))}},
		{"a trial that proved itself", three, []Sighting{answer(three, "n1"), answer(three, "n2"), answer(three, "n3", boot("good", "", true))}},
		{"one is sick, one was reset, one has lost its journal", four, []Sighting{answer(four, "n1", degraded, boot("bad", "the agent is gone", false)), answer(four, "n2", reset), answer(four, "n3", journal), answer(four, "n4")}},
		{"a fork", three, []Sighting{answer(three, "n1", doubt(connect.CodeFailedPrecondition, "the fleet's ledger has two records for one height: 1")), answer(three, "n2"), answer(three, "n3")}},
		{"the ledger of one is damaged", three, []Sighting{answer(three, "n1", unsound), answer(three, "n2"), answer(three, "n3")}},
		{"etcd is whole", three, []Sighting{answer(three, "n1", etcd(2, nil, 1, 2, 3)), answer(three, "n2", etcd(2, nil, 1, 2, 3)), answer(three, "n3", etcd(1, nil, 1, 2, 3))}},
		{"one does not hold the node CA's key", three, []Sighting{answer(three, "n1", etcd(2, lacks, 1, 2, 3)), answer(three, "n2", etcd(2, nil, 1, 2, 3)), answer(three, "n3", etcd(2, nil, 1, 2, 3))}},
		{"etcd is full", three, []Sighting{answer(three, "n1", etcd(2, full, 1, 2, 3)), answer(three, "n2", etcd(2, full, 1, 2, 3)), answer(three, "n3", etcd(2, full, 1, 2, 3))}},
		{"etcd has no leader", three, []Sighting{answer(three, "n1", leaderless), answer(three, "n2", leaderless), silent("n3")}},
		{"etcd has no leader, and all answer", three, []Sighting{answer(three, "n1", leaderless), answer(three, "n2", leaderless), answer(three, "n3", leaderless)}},
		{"etcd has no leader: one is off, and it stands still on another one", three, []Sighting{answer(three, "n1", leaderless), answer(three, "n2", etcd(0, slow)), silent("n3")}},
		{"etcd has no leader: a spare is among those that lack", four, []Sighting{answer(four, "n1", etcd(0, nil, 1, 2, 4)), answer(four, "n2", etcd(0, nil, 1, 2, 4)), answer(four, "n3", etcd(0, slow)), silent("n4")}},
		{"etcd has lost a member, and one has a slow disk", three, []Sighting{answer(three, "n1", etcd(1, nil, 1, 2)), answer(three, "n2", etcd(1, nil, 1, 2)), answer(three, "n3", etcd(0, slow))}},
		{"etcd of one is cut off from the others", three, []Sighting{answer(three, "n1", etcd(1, nil, 1, 2, 3)), answer(three, "n2", etcd(1, nil, 1, 2, 3)), answer(three, "n3", leaderless)}},
		{"one is away, and off", ordered, []Sighting{answer(ordered, "n1", orders(absent(4, order.Away))), answer(ordered, "n2"), answer(ordered, "n3"), silent("n4")}},
		{"one is away, and another one off", ordered, []Sighting{answer(ordered, "n1", orders(absent(4, order.Away))), answer(ordered, "n2"), silent("n3"), silent("n4")}},
		{"one is away, and answers; one is drained, and off", ordered, []Sighting{answer(ordered, "n1", orders(absent(3, order.Away), absent(4, order.Drained))), answer(ordered, "n2"), answer(ordered, "n3"), silent("n4")}},
		{"one is isolated, and one more is to be", ordered, []Sighting{answer(ordered, "n1", orders(isolated(4), isolated(3))), answer(ordered, "n2"), answer(ordered, "n3"), answer(ordered, "n4")}},
		{"a copied disk", three, []Sighting{answer(three, "n1"), answer(three, "n2"), answer(three, "n3"), answer(three, "web", copied)}},
	} {
		h := Judge(c.s, c.seen, ledgertest.Today)
		fmt.Fprintf(&out, "%s\n    %d votes, %d decide, %d may lie, %d answer, %d may fail, whole: %v\n   ", c.name, h.Votes, h.Quorum, h.Liars, h.Answering, h.Spare(), h.Whole())
		for _, n := range h.Nodes {
			fmt.Fprintf(&out, " %s=%s", n.Node, n.Standing)
		}
		if h.Etcd.Leader > 0 {
			fmt.Fprintf(&out, "; etcd: %d leads of %v", h.Etcd.Leader, h.Etcd.Members)
		}
		fmt.Fprintln(&out)
		for _, p := range h.Problems {
			fmt.Fprintf(&out, "    %s: %s\n        %s\n", p.Node, p.What, p.Do)
		}
	}
	golden.Compare(t, "judge.txt", out.String())
}
