package agenda_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// values has one of each kind that an operator proposes, for a fleet of four.
func values(t *testing.T, s ledger.State) []ledger.Value {
	t.Helper()
	yes, attic := true, "attic"
	fifth := ledgertest.Seat(t, 5, "n5")
	seat, _, err := agenda.SeatValue(s, []string{"n5", "n4"}, agenda.Seating{Vote: &yes, Spare: &yes, Domain: &attic}, []agenda.Newcomer{{Name: "n5", Seat: fifth}})
	must(t, err)
	unseat, err := agenda.UnseatValue(s, []string{"n4"}, nil, nil)
	must(t, err)
	isolate, err := agenda.IsolateValue(s, []string{"n3"}, false)
	must(t, err)
	policy, err := agenda.PolicyValue(s, []string{"bake=2h", "steps=5,30,100", "emergency.bake=20m", "propose=admin", "votes=50"})
	must(t, err)
	members, err := agenda.MembersValue(s, []string{"n1"}, []string{"n2", "n4"})
	must(t, err)
	replaced, _ := s.Roster.Seat(4)
	replaced.Number, replaced.Key, replaced.Journal = 5, ledgertest.Key(t, ledgertest.Replacing("n4")), roster.ID{9}
	bob := ledgertest.Operator(t, "bob", fleet.RoleOperator)
	return []ledger.Value{
		seat, unseat, {Replace: &decision.Replace{Old: 4, New: replaced}}, isolate,
		{Operators: &ledger.Operators{Set: []ledger.Operator{bob}, Remove: []string{"ada"}}}, policy,
		{Rule: &decision.Rule{Rule: roster.Majority}}, {TUFRoot: &decision.TUFRoot{Number: 2, Root: document.HashOf([]byte("root"))}},
		{CA: &decision.CA{Certificate: ledgertest.NewNodeCA(t)}}, members, {Owners: &decision.Owners{Owner: ledgertest.NewOwner(t, "hanse", "second"), Lost: true}},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWords prints what a decision of each kind would change, and wants words for each that an operator proposes.
func TestWords(t *testing.T) {
	s := ledgertest.Founded(t, 4, 1).Log.State()
	var out strings.Builder
	told := make(map[decision.Kind]bool)
	for _, v := range values(t, s) {
		told[v.Kind()] = true
		fmt.Fprintf(&out, "%s\n", v.Kind())
		row, _ := decision.Of(v.Kind())
		lines := agenda.Changes(s, v)
		if len(lines) == 0 || lines[0] == row.What {
			t.Errorf("%s: no words of its own: %q", v.Kind(), lines)
		}
		for _, line := range append(lines, agenda.Consent(s, v)...) {
			fmt.Fprintf(&out, "    %s\n", line)
		}
	}
	for _, row := range decision.Table() {
		if row.Proposer == decision.Operator && !told[row.Kind] {
			t.Errorf("this test proposes no %s", row.Kind)
		}
	}
	golden.Compare(t, "words.txt", steady(s, out.String()))
}

// steady is text without the keys that each run makes.
func steady(s ledger.State, text string) string {
	for line := range strings.Lines(text) {
		for field := range strings.FieldsSeq(line) {
			field = strings.Trim(field, ",;")
			if len(field) == 12 && strings.Trim(field, "0123456789abcdef") == "" {
				random := strings.Contains(line, "CA for nodes") || strings.Contains(line, "operator")
				if random {
					text = strings.ReplaceAll(text, field, "xxxxxxxxxxxx")
				}
			}
		}
	}
	return strings.ReplaceAll(text, s.TUFRoot.String(), "TUFROOT")
}

// word is what a seat thinks of a proposal.
func word(t *testing.T, f *ledgertest.Fleet, name string, o proposal.Opinion) []byte {
	t.Helper()
	return ledgertest.Must[signed.Envelope](t)(proposal.SealOpinion(f.Log.State().Fleet(), ledgertest.Private(name), 1, o)).Bytes()
}

func shown(a agenda.Agenda) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d items, opinions %t, %d refused\n", len(a.Items), a.Opinions, a.Refused)
	for _, i := range a.Items {
		fmt.Fprintf(&out, "    %d %s by %s: valid %d, invalid %d, ready %d\n", i.Number, i.Kind, i.By, i.Valid, i.Bad, i.Ready)
		for _, o := range i.Owners {
			answer := "nothing"
			if o.Answer != nil {
				answer = fmt.Sprint(o.Answer.Yes)
			}
			fmt.Fprintf(&out, "    owner %s, %d votes: %s\n", o.Name, o.Votes, answer)
		}
		for _, s := range i.Seats {
			fmt.Fprintf(&out, "    seat %d: %s %q %s\n", s.Number, s.Says, s.Why, s.Awaits)
		}
		fmt.Fprintf(&out, "    awaits: %s\n    next: %s\n", i.Awaits, i.Next)
	}
	return out.String()
}

// TestAgenda has four seats, one owner and strangers say things about a proposal, and prints what is awaited and what
// happens next.
func TestAgenda(t *testing.T) {
	f := ledgertest.Founded(t, 4, 1)
	s := f.Log.State()
	v := values(t, s)[5]
	v.Version = 1
	p := f.Proposal(t, v)
	id := proposal.ID(p)
	good := proposal.Opinion{Proposal: id, Height: 1, Valid: true, Ready: true}
	busy := proposal.Opinion{Proposal: id, Height: 1, Valid: true, Why: []string{"the disk is full"}}
	bad := proposal.Opinion{Proposal: id, Height: 1, Why: []string{"owner hanse says no: not on a Friday"}}
	yes, no := f.AnswerAgain(1, id, true, "hanse", "", 1, 2), f.AnswerAgain(2, id, false, "hanse", "", 1, 3)
	fifth := ledgertest.Seat(t, 5, "n5")
	seat, _, err := agenda.SeatValue(s, []string{"n5"}, agenda.Seating{}, []agenda.Newcomer{{Name: "n5", Seat: fifth}})
	must(t, err)
	seat.Version = 1
	asks := f.Proposal(t, seat)
	removed := f.Proposal(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"ada"}}})
	var out strings.Builder
	for _, c := range []struct {
		about   string
		objects [][]byte
	}{
		{"nothing waits", nil},
		{"nobody has said anything", [][]byte{p.Bytes()}},
		{"the owner has said yes", [][]byte{yes, p.Bytes()}},
		{"two seats call it valid", [][]byte{p.Bytes(), yes, word(t, f, "n1", good), word(t, f, "n2", good)}},
		{"three do, and one is not ready", [][]byte{p.Bytes(), yes, word(t, f, "n1", good), word(t, f, "n2", good), word(t, f, "n3", busy)}},
		{"three are ready", [][]byte{p.Bytes(), yes, word(t, f, "n1", good), word(t, f, "n2", good), word(t, f, "n3", good)}},
		{"the owner takes it back", [][]byte{no, yes, p.Bytes(), word(t, f, "n1", bad), word(t, f, "n2", bad)}},
		{"a node has not asked for its seat", [][]byte{asks.Bytes(), word(t, f, "n1", proposal.Opinion{Proposal: proposal.ID(asks), Height: 1, Valid: true, Ready: true})}},
		{"it has", [][]byte{f.Request(t, fifth), asks.Bytes()}},
		{"it cannot be decided", [][]byte{removed.Bytes()}},
		{"strangers say something", [][]byte{p.Bytes(), word(t, f, "n9", good), []byte("{}"), []byte("x"), f.AnswerAgain(1, id, true, "hanse", "", 1)}},
	} {
		text := shown(agenda.Read(s, c.objects))
		fmt.Fprintf(&out, "%s: %s", c.about, text)
		slices.Reverse(c.objects) // the order in which they come is nobody's
		if again := shown(agenda.Read(s, c.objects)); again != text {
			t.Errorf("%s: the other way round it is\n%s", c.about, again)
		}
	}
	golden.Compare(t, "agenda.txt", out.String())
	if n := agenda.Read(s, [][]byte{p.Bytes()}).Number(f.Entries); n != p.Sequence+1 {
		t.Errorf("the next number is %d, and %d waits", n, p.Sequence)
	}
	f = ledgertest.Founded(t, 4, 5)
	if n := agenda.Read(f.Log.State(), nil).Number(f.Entries); n != 6 {
		t.Errorf("the next number is %d, and the last decided proposal had 5", n)
	}
}
