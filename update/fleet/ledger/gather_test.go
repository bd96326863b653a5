package ledger_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestGather has a chair find what a decision needs among all that it knows, in whatever order, with what
// is of no use, or forged; and say what is lacking.
func TestGather(t *testing.T) {
	seat := edited(ledgertest.Seat(t, 9, "n9"), func(s *roster.Seat) { s.Owner = "mara" })
	w := ledgertest.Founded(t, 7, 1)
	withKaper(t, w) // whose seat has a vote since height 2
	v := value(func(v *ledger.Value) {
		v.Seat = &decision.Seat{Seats: []roster.Seat{seat}, Owners: []roster.Owner{ledgertest.NewOwner(t, "mara", "")}}
	})
	p := w.Proposal(t, v)
	id := proposal.ID(p)
	asked, says := w.Request(t, seat), w.Answer(id, true, "mara", "", 1, 2)
	opinion := w.Opinion(t, "n8", id)
	junk := [][]byte{
		nil, []byte("x"), []byte("{}\n"), w.Answer(id, true, "mara", "", 1), w.Answer(id, true, "mara", "new", 1, 2), w.Answer(id, false, "hanse", "", 1, 2),
		w.Answer(document.HashOf(nil), true, "mara", "", 1, 2), w.Request(t, ledgertest.Seat(t, 10, "n10")),
		w.Opinion(t, "n2", document.HashOf(nil)), w.Opinion(t, "n1", id), w.Proposal(t, v).Bytes(), contrary(t, "n6")(w, id)[0],
	}
	forged := ledgertest.Must[signed.Envelope](t)(signed.Parse(opinion))
	forged = forged.Again(2, forged.Signature())
	known := append(junk, forged.Bytes(), asked, says, opinion, opinion)
	for range 10 {
		rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
		got, evidence, err := w.Log.State().Gather(p, known)
		if err != nil || len(evidence) != 4 {
			t.Fatalf("%d objects, %v", len(evidence), err)
		}
		if err := w.Log.State().Judge(got, evidence); err != nil {
			t.Error(err)
		}
	}
	for lacks, some := range map[string][][]byte{
		"has not asked for it": {says, opinion}, "the keys that owner mara gets": {asked, opinion}, "seats [8] got a vote": {asked, says},
	} {
		if _, _, err := w.Log.State().Gather(p, some); err == nil || !strings.Contains(err.Error(), lacks) {
			t.Errorf("%s: %v", lacks, err)
		}
	}
	got, evidence, err := w.Log.State().Gather(p, known)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Decides(t, got, evidence); err != nil {
		t.Fatal(err)
	}
	if s := w.Log.State(); s.Roster.Votes() != 9 || fmt.Sprint(s.Awaited) != "[9]" {
		t.Errorf("%d votes, awaited %v", s.Roster.Votes(), s.Awaited)
	}
	if _, _, err := w.Log.State().Gather(p, known); err == nil {
		t.Error("it is decided twice")
	}
}

// TestGatherNo has an owner take back his yes.
func TestGatherNo(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	p := w.Proposal(t, value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: []int{2, 4}} }))
	id := proposal.ID(p)
	yes := w.Answer(id, true, "hanse", "", 1, 2)
	if _, _, err := w.Log.State().Gather(p, [][]byte{yes}); err != nil {
		t.Error(err)
	}
	if _, _, err := w.Log.State().Gather(p, [][]byte{yes, w.Answer(id, false, "hanse", "", 2, 3)}); err == nil {
		t.Error("a yes counts that was taken back")
	}

	v, evidence, err := w.Log.State().Gather(p, [][]byte{yes})
	if err != nil {
		t.Fatal(err)
	}
	no, again := w.AnswerAgain(2, id, false, "hanse", "", 2, 3), w.AnswerAgain(3, id, true, "hanse", "", 1, 3)
	for name, c := range map[string]struct {
		known [][]byte
		good  bool
	}{
		"nothing": {nil, true}, "what is there": {[][]byte{yes, evidence[0], nil}, true}, "a no": {[][]byte{no}, false},
		"a no that was taken back": {[][]byte{no, again}, true}, "a no by one key": {[][]byte{w.AnswerAgain(2, id, false, "hanse", "", 2)}, true},
		"a no to something else": {[][]byte{w.AnswerAgain(2, document.HashOf(nil), false, "hanse", "", 2, 3)}, true},
	} {
		if err := w.Log.State().Judge(v, evidence, c.known...); (err == nil) != c.good {
			t.Errorf("a voter knows %s: %v", name, err)
		}
	}
	bare := v.Resting(evidence[:1])
	if err := w.Log.State().Judge(bare, evidence[:1], yes); err == nil {
		t.Error("a yes counts that is no evidence")
	}
}

// TestGatherFlood has one who may speak say so much that not all of it could ever be evidence: the chair takes
// one word of each, and decides. Else one seat that has just got a vote would stop its fleet for good.
func TestGatherFlood(t *testing.T) {
	const many = 4200
	w := ledgertest.Founded(t, 7, 1)
	withKaper(t, w) // whose seat 8 has a vote since height 2
	seat, _ := w.Log.State().Roster.Seat(8)
	var flood [][]byte
	for i := range uint64(many) {
		o := proposal.Opinion{Proposal: document.HashOf(fmt.Append(nil, i)), Height: 2, Valid: true, Ready: true}
		flood = append(flood, ledgertest.Must[signed.Envelope](t)(proposal.SealOpinion(w.Log.State().Fleet(), ledgertest.PrivateOf(seat), i, o)).Bytes())
	}
	ninth := ledgertest.Seat(t, 9, "n9")
	for name, v := range map[string]ledger.Value{"operators": w.Operators(t, "mia"), "unseat it": unseated(nil, 8), "seat another": seated("", ninth)} {
		_, evidence, err := w.Log.State().Gather(w.Proposal(t, v), append(flood, w.Request(t, ninth)))
		if err != nil || len(evidence) > 3 {
			t.Errorf("%s: %d objects, %v", name, len(evidence), err)
		}
	}

	p := w.Proposal(t, seated("", ninth))
	known := [][]byte{flood[0]}
	for i := range uint64(many) {
		r := roster.Request{Version: 1, Nonce: fmt.Append(nil, i), Name: "n9", Journal: ninth.Journal, TLSKey: document.HashOf(nil), Arch: "amd64"}
		known = append(known, ledgertest.Must[signed.Envelope](t)(signed.Seal(roster.RequestKind, w.Log.State().Fleet(), ledgertest.Private("n9"), i, r.Encode())).Bytes())
	}
	if _, evidence, err := w.Log.State().Gather(p, known); err != nil || len(evidence) != 3 {
		t.Errorf("a node asks often: %d objects, %v", len(evidence), err)
	}

	p = w.Proposal(t, value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: ledgertest.NewOwner(t, "kaper", "new")} }))
	known = [][]byte{w.Answer(proposal.ID(p), true, "kaper", "", 1, 2), w.Answer(proposal.ID(p), true, "kaper", "new", 1, 2)}
	for i := range int64(many) {
		known = append(known, w.AnswerAgain(i+1, proposal.ID(p), true, "hanse", "", 1, 2))
	}
	if _, evidence, err := w.Log.State().Gather(p, known); err != nil || len(evidence) != 4 {
		t.Errorf("an owner says yes often: %d objects, %v", len(evidence), err)
	}
}

// TestGatherNewKeys has an owner take back with his own keys that he gets others: who has those does not
// speak for him.
func TestGatherNewKeys(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	withKaper(t, w)
	p := w.Proposal(t, value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: ledgertest.NewOwner(t, "kaper", "new")} }))
	id := proposal.ID(p)
	known := [][]byte{w.Answer(id, true, "hanse", "", 1, 2), w.AnswerAgain(1, id, true, "kaper", "", 1, 2), w.AnswerAgain(3, id, true, "kaper", "new", 1, 2)}
	if _, _, err := w.Log.State().Gather(p, known); err != nil {
		t.Error(err)
	}
	if _, _, err := w.Log.State().Gather(p, append(known, w.AnswerAgain(2, id, false, "kaper", "", 2, 3))); err == nil {
		t.Error("the keys that an owner is to get take back his no")
	}
}

// TestEvidenceRoot takes the root of the evidence as RFC 6962 says, without kogge's tree.
func TestEvidenceRoot(t *testing.T) {
	var root func(leaves [][]byte) [32]byte
	root = func(leaves [][]byte) [32]byte {
		if len(leaves) == 1 {
			return sha256.Sum256(append([]byte{0}, leaves[0]...))
		}
		k := 1
		for 2*k < len(leaves) {
			k *= 2
		}
		left, right := root(leaves[:k]), root(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
	var all [][]byte
	for i := range 40 {
		all = append(all, fmt.Append(nil, "object ", i))
		if got, want := ledger.EvidenceRoot(all), document.Hash(root(all)); got != want {
			t.Errorf("of %d objects: %s, and RFC 6962 says %s", len(all), got, want)
		}
	}
	if !ledger.EvidenceRoot(nil).IsZero() {
		t.Error("there is a root of nothing")
	}
}

// TestGrowth has a fleet grow from one vote to four, change its rule, shrink again, and go back to the old
// rule, by decisions that each wait for the last one's seat; and another computer verifies all of it.
func TestGrowth(t *testing.T) {
	w := ledgertest.Founded(t, 1, 1)
	var story strings.Builder
	told := func() {
		r := w.Log.State().Roster
		fmt.Fprintf(&story, "%d votes by %s; ", r.Votes(), r.Rule)
	}
	told()
	for n := 2; n <= 4; n++ {
		name := fmt.Sprintf("n%d", n)
		seat, rule := ledgertest.Seat(t, n, name), roster.Rule("")
		if n == 4 {
			rule = roster.TwoThirds
		}
		p := w.Proposal(t, seated(rule, seat))
		known := [][]byte{w.Request(t, seat)}
		if n > 2 {
			if _, _, err := w.Log.State().Gather(p, known); err == nil {
				t.Errorf("seat %d comes before seat %d has signed", n, n-1)
			}
			known = append(known, w.Opinion(t, fmt.Sprintf("n%d", n-1), proposal.ID(p)))
		}
		v, evidence, err := w.Log.State().Gather(p, known)
		if err == nil {
			err = w.Decides(t, v, evidence)
		}
		if err != nil {
			t.Fatal(err)
		}
		told()
	}
	for n := 4; n >= 2; n-- {
		p := w.Proposal(t, unseated(nil, n))
		v, evidence, err := w.Log.State().Gather(p, nil)
		if err == nil {
			err = w.Decides(t, v, evidence)
		}
		if err != nil {
			t.Fatal(err)
		}
		told()
	}
	must(t, w, value(func(v *ledger.Value) { v.Rule = &decision.Rule{Rule: roster.Majority} }), nothing)
	told()
	const want = "1 votes by majority; 2 votes by majority; 3 votes by majority; 4 votes by two-thirds; 3 votes by two-thirds; 2 votes by two-thirds; 1 votes by two-thirds; 1 votes by majority; "
	if story.String() != want {
		t.Errorf("%s", story.String())
	}
	l, err := replay(w.Genesis, w.Entries)
	if err != nil || tell(l.State()) != tell(w.Log.State()) {
		t.Errorf("another computer: %v", err)
	}
}

// TestByVoters puts to the vote what needs no operator, but a proof.
func TestByVoters(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	proof := contrary(t, "n6")(w, document.Hash{})[0]
	v, evidence, err := w.Log.State().Accuse(proof)
	if err != nil || v.DoubleVote.Seat != 6 {
		t.Fatalf("%+v, %v", v, err)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "cut": proof[:len(proof)-1], "a proposal": w.Proposal(t, w.Operators(t, "x")).Bytes()} {
		if _, _, err := w.Log.State().Accuse(bad); !errors.Is(err, ledger.ErrValue) || !errors.Is(err, ballot.ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.Decides(t, v, evidence); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Log.State().Accuse(proof); !errors.Is(err, ledger.ErrValue) {
		t.Errorf("it loses its vote twice: %v", err)
	}

	if _, _, err := w.Log.State().EndWaiting(nil); !errors.Is(err, ledger.ErrValue) {
		t.Errorf("nobody waits: %v", err)
	}
	w = ledgertest.Founded(t, 7, 1)
	claimed(t, w)
	s := w.Log.State()
	for name, bad := range map[string][]byte{"": {}, "by the new keys": w.Answer(s.Claim.Record, false, "kaper", "new", 1, 2), "by another owner": w.Answer(s.Claim.Record, false, "hanse", "", 1, 2), "about another record": w.Answer(s.Record, false, "kaper", "", 9)} {
		if _, _, err := s.EndWaiting(bad); !errors.Is(err, ledger.ErrValue) {
			t.Errorf("objected %s: %v", name, err)
		}
	}
	objection := w.Answer(s.Claim.Record, false, "kaper", "", 2)
	month := decision.Objection(s.Policy)
	for waited, known := range map[document.Duration][][]byte{0: nil, month - 1: nil, month: {objection}} {
		v := value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: s.Claim.Record} })
		if err := s.Waited(waited).Judge(v, nil, known...); !errors.Is(err, ledger.ErrValue) {
			t.Errorf("after %s, %d objections are known: %v", waited, len(known), err)
		}
	}
	for objected, objection := range map[bool][]byte{false: nil, true: objection} {
		waits := s
		if !objected {
			waits = s.Waited(month)
		}
		v, evidence, err := waits.EndWaiting(objection)
		if err != nil || v.Settle.Veto != objected {
			t.Fatalf("%+v, %v", v, err)
		}
		l := w.Log.Clone()
		if err := l.Append(w.Proved(ledgertest.Must[ledger.Record](t)(s.Next(v)), v, 6, evidence...)); err != nil {
			t.Fatal(err)
		}
		owner, _ := l.State().Roster.Owner("kaper")
		if has := owner.Keys[0] == ledgertest.NewOwner(t, "kaper", "new").Keys[0]; has == objected || l.State().Claim != nil {
			t.Errorf("objected: %t, he has the new keys: %t", objected, has)
		}
	}
}

// TestTopic has opinions be about what is decided without a proposal, however it is proved, and about nothing
// else.
func TestTopic(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	s := w.Log.State()
	one, _, err := s.Accuse(contrary(t, "n6")(w, document.Hash{})[0])
	if err != nil {
		t.Fatal(err)
	}
	r := ledgertest.Must[ledger.Record](t)(s.Next(w.Operators(t, "x")))
	other, evidence, err := s.Accuse(w.Twice(ledgertest.Seat(t, 6, "n6"), r, ledgertest.Must[ledger.Record](t)(s.Next(w.Operators(t, "y")))))
	if err != nil || one.Hash() == other.Hash() || s.Topic(one) != s.Topic(other) {
		t.Fatalf("%s and %s: %v", s.Topic(one), s.Topic(other), err)
	}
	evidence = append(evidence, w.Opinion(t, "n1", s.Topic(one)))
	if err := s.Judge(other.Resting(evidence), evidence); err != nil {
		t.Error(err)
	}
	evidence[1] = w.Opinion(t, "n1", one.Hash())
	if err := s.Judge(other.Resting(evidence), evidence); err == nil {
		t.Error("an opinion about something else is evidence")
	}

	withKaper(t, w)
	claim := value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: w.Log.State().Record} })
	veto := value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: w.Log.State().Record, Veto: true} })
	topics := map[document.Hash]bool{s.Topic(one): true, s.Topic(claim): true, s.Topic(veto): true, w.Log.State().Record: true}
	if len(topics) != 4 {
		t.Errorf("%v", topics)
	}
}

// TestClaimOfNobody forgets an owner who waits when no seat is his any more: else nobody else could wait.
func TestClaimOfNobody(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	claimed(t, w)
	must(t, w, unseated(nil, 8), nothing)
	if s := w.Log.State(); s.Claim != nil || len(s.Roster.Owners) != 1 {
		t.Errorf("%+v waits, owners %+v", s.Claim, s.Roster.Owners)
	}
}

// TestAnswered takes one key of an owner for a rollout, and as many as act as him for all else.
func TestAnswered(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	id := document.HashOf([]byte("proposal"))
	for _, c := range []struct {
		kind decision.Kind
		raw  []byte
		want bool
	}{
		{decision.KindRollout, w.Answer(id, true, "hanse", "", 2), true}, {decision.KindSeat, w.Answer(id, true, "hanse", "", 2), false},
		{decision.KindSeat, w.Answer(id, false, "hanse", "", 2, 3), true}, {decision.KindRollout, w.Answer(id, true, "hanse", "new", 2), false},
		{decision.KindRollout, w.Answer(id, true, "kaper", "", 2), false}, {decision.KindRollout, nil, false},
	} {
		if a, err := w.Log.State().Answered(c.kind, c.raw); (err == nil) != c.want || err != nil && !errors.Is(err, proposal.ErrAnswer) {
			t.Errorf("%s: %+v, %v", c.kind, a, err)
		}
	}
}

// TestSomeKeys has an owner change one of his keys, or how many of them act as him: then one answer is by the
// keys that he has and by those that he gets.
func TestSomeKeys(t *testing.T) {
	for name, change := range map[string]func(*roster.Owner){
		"one key":       func(o *roster.Owner) { o.Keys[2] = ledgertest.Key(t, "another key") },
		"all three act": func(o *roster.Owner) { o.Threshold = 3 },
		"one acts":      func(o *roster.Owner) { o.Threshold = 1 },
		"without one":   func(o *roster.Owner) { o.Keys = o.Keys[:2] },
	} {
		w := ledgertest.Founded(t, 4, 1)
		o, _ := w.Log.State().Roster.Owner("hanse")
		o.Keys = slices.Clone(o.Keys)
		change(&o)
		p := w.Proposal(t, value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: o} }))
		keys := []int{1, 2, 3}[:max(2, o.Threshold)]
		v, evidence, err := w.Log.State().Gather(p, [][]byte{w.Answer(proposal.ID(p), true, "hanse", "", keys...)})
		if err == nil {
			err = w.Decides(t, v, evidence)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
