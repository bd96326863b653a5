package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// refuses wants a decision to be refused with some words, by a voter and by the ledger.
func refuses(t *testing.T, w *ledgertest.Fleet, v ledger.Value, s said, words string) {
	t.Helper()
	v, evidence := w.Rested(t, v, func(id document.Hash) [][]byte { return s(w, id) })
	judged, taken := w.Log.State().Judge(v, evidence), w.Decides(t, v, evidence)
	if !errors.Is(judged, ledger.ErrValue) || !errors.Is(taken, ledger.ErrValue) || !strings.Contains(fmt.Sprint(taken), words) {
		t.Errorf("a voter says %v, the ledger %v; wanted %q", judged, taken, words)
	}
}

func members(spares []int, all ...int) ledger.Value {
	return value(func(v *ledger.Value) { v.Members = &decision.Members{Members: all, Spares: spares} })
}

// TestRevokedOperator has voters who know that an operator's key was revoked take him off the list, and put
// another one in his place.
func TestRevokedOperator(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	bob := ledgertest.Operator(t, "bob", fleet.RoleAdmin)
	must(t, w, value(func(v *ledger.Value) { v.Operators = &ledger.Operators{Set: []ledger.Operator{bob}} }), nothing)
	s := w.Log.State().Without(func(key string) bool { return key == bob.Key.String() })
	for name, o := range map[string]ledger.Operators{
		"removed":       {Remove: []string{"bob"}},
		"a new key":     {Set: []ledger.Operator{ledgertest.Operator(t, "bob", fleet.RoleAdmin)}},
		"another one":   {Set: []ledger.Operator{ledgertest.Operator(t, "carol", fleet.RoleAdmin)}, Remove: []string{"bob"}},
		"ada, a reader": {Set: []ledger.Operator{{Name: "ada", Role: fleet.RoleReader, Key: w.Log.State().Operators[0].Key}}},
	} {
		v, evidence := w.Proposed(t, value(func(v *ledger.Value) { v.Operators = &o }))
		judged := s.Judge(v, evidence)
		taken := w.Log.Clone().Append(w.Proved(ledgertest.Must[ledger.Record](t)(w.Log.State().Next(v)), v, 4, evidence...))
		if (judged == nil) != (name != "ada, a reader") || taken != nil { // then no admin is left of whom they know nothing bad
			t.Errorf("%s: a voter says %v, the ledger %v", name, judged, taken)
		}
	}
}

// TestKeyOfCA wants another node CA of whoever leaves and has had the key of the one that is there, also where it
// was taken off his duties before.
func TestKeyOfCA(t *testing.T) {
	spares := func(w *ledgertest.Fleet) { must(t, w, members([]int{4, 5}, 1, 2, 3), nothing) }
	plain := func(number int) roster.Seat { return ledgertest.Seat(t, number, fmt.Sprintf("n%d", number)) }
	w := ledgertest.Founded(t, 7, 1)
	spares(w)
	must(t, w, seated("", edited(plain(4), func(s *roster.Seat) { s.Journal = roster.ID{4} })), nothing)
	must(t, w, members(nil, 1), nothing)
	for n := range 7 {
		if got := w.Log.State().NeedsCA(n + 1); got != (n < 5) {
			t.Errorf("when seat %d leaves another CA is needed: %t", n+1, got)
		}
	}
	for _, n := range []int{2, 4, 5} {
		refuses(t, w, unseated(nil, n), nothing, "has had the key of the node CA")
	}
	refuses(t, w, unseated(ca(t, "ca-second"), 6), nothing, "no seat that leaves has had the key")
	must(t, w, unseated(ca(t, "ca-second"), 4), nothing) // and from now on only seat 1 has the key
	must(t, w, unseated(nil, 2), nothing)
	must(t, w, members([]int{5}, 1), nothing)
	must(t, w, members(nil, 1), nothing)
	must(t, w, value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: ca(t, "ca-third")} }), nothing)
	must(t, w, unseated(nil, 5), nothing)
}

// TestMembersStay has no decision leave a fleet without etcd, or give etcd more new members than it takes.
func TestMembersStay(t *testing.T) {
	w := ledgertest.Founded(t, 2, 1)
	refuses(t, w, unseated(ca(t, "ca-second"), 1), nothing, "no member")
	one := ledgertest.Founded(t, 1, 1)
	var seats []roster.Seat
	for n := 2; n <= 5; n++ {
		seats = append(seats, edited(ledgertest.Seat(t, n, fmt.Sprintf("n%d", n)), func(s *roster.Seat) { s.Vote, s.Member = false, true }))
	}
	refuses(t, one, seated("", seats...), requests(t, seats...), "2 at most")
	must(t, one, seated("", seats[:2]...), requests(t, seats[:2]...))
}

// TestIsolatedMembers has no seats that are isolated be etcd's majority without the owner's word.
func TestIsolatedMembers(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	must(t, w, members([]int{6, 7}, 1, 2, 3), nothing)
	must(t, w, value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: []int{3, 7}} }), nothing)
	refuses(t, w, members(nil, 3), nothing, "isolated")
	refuses(t, w, members(nil, 1, 3, 7), nothing, "isolated")
	refuses(t, w, value(func(v *ledger.Value) {
		v.Unseat = &decision.Unseat{Seats: []int{2}, Members: []int{7}, CA: ca(t, "ca-second")}
	}), nothing, "isolated")
	must(t, w, members([]int{7}, 1, 3, 6), nothing)
}

// TestAccusedLater bars who has voted twice, also when his vote was taken away before somebody showed it.
func TestAccusedLater(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	proof := contrary(t, "n6")(w, document.Hash{})[0]
	sixth := edited(ledgertest.Seat(t, 6, "n6"), func(s *roster.Seat) { s.Journal = roster.ID{6} })
	must(t, w, seated("", edited(sixth, func(s *roster.Seat) { s.Vote = false })), nothing)
	v, evidence, err := w.Log.State().Accuse(proof)
	if err == nil {
		err = w.Decides(t, v, evidence)
	}
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, w, seated("", sixth), nothing, "has voted twice")
	if _, _, err := w.Log.State().Accuse(proof); !errors.Is(err, ledger.ErrValue) {
		t.Errorf("it is barred twice: %v", err)
	}
}

// TestClaimedKey has no node get a seat with a key that an owner who waits is to get: then he could never
// get it, and nobody else could wait.
func TestClaimedKey(t *testing.T) {
	w := ledgertest.Founded(t, 7, 1)
	withKaper(t, w)
	o := ledgertest.NewOwner(t, "kaper", "new")
	o.Keys[2] = ledgertest.Key(t, "n9")
	must(t, w, value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: o, Lost: true} }), func(w *ledgertest.Fleet, id document.Hash) [][]byte {
		return [][]byte{w.Answer(id, true, "hanse", "", 1, 2), w.Answer(id, true, "kaper", "new", 1, 2)}
	})
	ninth := edited(ledgertest.Seat(t, 9, "n9"), func(s *roster.Seat) { s.Vote = false })
	refuses(t, w, seated("", ninth), requests(t, ninth), "owner kaper waits for")
}

// TestLaterEvidence says of a decision that rests on what a later release has made that this one is to be updated,
// not that the record is bad.
func TestLaterEvidence(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	later := ledgertest.Must[signed.Envelope](t)(signed.Seal("kogge/later/v1", w.Log.State().Fleet(), ledgertest.Private("n1"), 1, nil)).Bytes()
	v, evidence := w.Proposed(t, w.Operators(t, "mia"), later)
	if err := w.Decides(t, v, evidence); !errors.Is(err, document.ErrNewer) || w.Log.State().Height != 1 {
		t.Errorf("%v", err)
	}
}

// TestTUFRoots has versions of the TUF root follow on each other from any that the first decision names.
func TestTUFRoots(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	root := func(n int) ledger.Value {
		return value(func(v *ledger.Value) {
			v.TUFRoot = &decision.TUFRoot{Number: n, Root: document.HashOf(fmt.Append(nil, n))}
		})
	}
	must(t, w, root(1<<20), nothing)
	must(t, w, root(1<<20+1), nothing)
	refuses(t, ledgertest.Founded(t, 4, 1), root(1<<20+1), nothing, "1 to")
}

// TestNewCA has the CA that comes be one of this fleet, and end no earlier than the one that goes.
func TestNewCA(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	for words, made := range map[string]struct {
		name string
		at   time.Time
	}{"its name is": {"kaper", ledgertest.Today}, "it ends at 2006": {"hanse", ledgertest.Today.AddDate(-40, 0, 0)}} {
		der, _, err := fleet.NewCA(made.name, fleet.KindNode, made.at)
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, w, value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: der} }), nothing, words)
	}
	der, _, err := fleet.NewCA("hanse", fleet.KindNode, ledgertest.Today.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	must(t, w, value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: der} }), nothing)
}
