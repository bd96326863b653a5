package ledger_test

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

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

// seated is a decision about seats.
func seated(rule roster.Rule, seats ...roster.Seat) ledger.Value {
	return value(func(v *ledger.Value) { v.Seat = &decision.Seat{Seats: seats, Rule: rule} })
}

func unseated(ca []byte, seats ...int) ledger.Value {
	return value(func(v *ledger.Value) { v.Unseat = &decision.Unseat{Seats: seats, CA: ca} })
}

// edited is a seat that a test has changed.
func edited(s roster.Seat, edit func(*roster.Seat)) roster.Seat {
	edit(&s)
	return s
}

// several are seats without a vote from a number on.
func several(t testing.TB, from, n int, vote bool) (all []roster.Seat) {
	for i := from; i < from+n; i++ {
		all = append(all, edited(ledgertest.Seat(t, i, fmt.Sprintf("n%d", i)), func(s *roster.Seat) { s.Vote = vote }))
	}
	return all
}

// try is a decision that is refused, or not.
type try struct {
	name   string
	seats  int // 0: 4
	before func(w *ledgertest.Fleet)
	value  func(w *ledgertest.Fleet) ledger.Value
	said   said
	bare   bool
}

// TestDecides says of each decision why it is refused, or that it is taken. No signature is missing but
// where the name says so.
func TestDecides(t *testing.T) {
	n := func(i int) roster.Seat { return ledgertest.Seat(t, i, fmt.Sprintf("n%d", i)) }
	always := func(v ledger.Value) func(*ledgertest.Fleet) ledger.Value {
		return func(*ledgertest.Fleet) ledger.Value { return v }
	}
	spares := func(w *ledgertest.Fleet) {
		must(t, w, value(func(v *ledger.Value) {
			v.Members = &decision.Members{Members: []int{1, 2, 3}, Spares: []int{4, 5, 6, 7}}
		}), nothing)
	}
	fifth := func(w *ledgertest.Fleet) { must(t, w, seated("", n(5)), requests(t, n(5))) }
	opinions := func(height int64, seats ...roster.Seat) said {
		return func(w *ledgertest.Fleet, id document.Hash) (all [][]byte) {
			for _, s := range seats {
				o := proposal.Opinion{Proposal: id, Height: height, Valid: true, Ready: true}
				all = append(all, ledgertest.Must[signed.Envelope](t)(proposal.SealOpinion(w.Log.State().Fleet(), ledgertest.PrivateOf(s), 1, o)).Bytes())
			}
			return all
		}
	}
	with := func(all ...said) said {
		return func(w *ledgertest.Fleet, id document.Hash) (objects [][]byte) {
			for _, s := range all {
				objects = append(objects, s(w, id)...)
			}
			return objects
		}
	}
	yes := func(owner, generation string, keys ...int) said {
		return func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return [][]byte{w.Answer(id, true, owner, generation, keys...)}
		}
	}
	replacing := func(old int, edit func(*decision.Replace)) func(*ledgertest.Fleet) ledger.Value {
		return func(w *ledgertest.Fleet) ledger.Value {
			d := &decision.Replace{Old: old, New: replaced(t, w, old)}
			edit(d)
			return value(func(v *ledger.Value) { v.Replace = d })
		}
	}
	asks := func(old int) said {
		return func(w *ledgertest.Fleet, _ document.Hash) [][]byte {
			return [][]byte{w.Request(t, replaced(t, w, old))}
		}
	}
	isolates := func(lift bool, seats ...int) func(*ledgertest.Fleet) ledger.Value {
		return always(value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: seats, Lift: lift} }))
	}
	policy := func(edit func(*fleet.Policy)) func(*ledgertest.Fleet) ledger.Value {
		p := fleet.DefaultPolicy()
		edit(&p)
		return always(value(func(v *ledger.Value) { v.Policy = &p }))
	}
	rule := always(value(func(v *ledger.Value) { v.Rule = &decision.Rule{Rule: roster.Majority} }))
	root := func(number int, name string) ledger.Value {
		return value(func(v *ledger.Value) {
			v.TUFRoot = &decision.TUFRoot{Number: number, Root: document.HashOf([]byte(name))}
		})
	}
	members := func(spares []int, members ...int) func(*ledgertest.Fleet) ledger.Value {
		return always(value(func(v *ledger.Value) { v.Members = &decision.Members{Members: members, Spares: spares} }))
	}
	owner := func(o roster.Owner, lost bool) ledger.Value {
		return value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: o, Lost: lost} })
	}
	settle := func(veto bool, of func(*ledgertest.Fleet) document.Hash) func(*ledgertest.Fleet) ledger.Value {
		return func(w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: of(w), Veto: veto} })
		}
	}
	claim := func(w *ledgertest.Fleet) document.Hash { return w.Log.State().Claim.Record }
	objects := func(is bool, generation string) said {
		return func(w *ledgertest.Fleet, _ document.Hash) [][]byte {
			return [][]byte{w.Answer(claim(w), is, "kaper", generation, 2)}
		}
	}
	sixth := always(value(func(v *ledger.Value) { v.DoubleVote = &decision.DoubleVote{Seat: 6} }))
	kaper := func(w *ledgertest.Fleet) { withKaper(t, w) }
	waiting := func(w *ledgertest.Fleet) { claimed(t, w) }
	second, nodeCA := ca(t, "ca-second"), func(w *ledgertest.Fleet) ledger.Value {
		return value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: w.Genesis.NodeCA.Raw} })
	}
	none := func(*decision.Replace) {}

	var b strings.Builder
	for _, c := range []try{
		{name: "seats without a vote, as many as one likes", value: always(seated("", several(t, 5, 40, false)...)), said: requests(t, several(t, 5, 40, false)...)},
		{name: "two votes of four", value: always(seated("", n(5), n(6))), said: requests(t, n(5), n(6))},
		{name: "two votes of seven", seats: 7, value: always(seated("", n(8), n(9))), said: requests(t, n(8), n(9))},
		{name: "three votes of seven", seats: 7, value: always(seated("", n(8), n(9), n(10))), said: requests(t, n(8), n(9), n(10))},
		{name: "one vote of ten", seats: 10, value: always(seated("", n(11))), said: requests(t, n(11))},
		{name: "two votes of ten", seats: 10, value: always(seated("", n(11), n(12))), said: requests(t, n(11), n(12))},
		{name: "two votes of twenty", seats: 20, value: always(seated("", n(21), n(22))), said: requests(t, n(21), n(22))},
		{name: "a number that was skipped", value: always(seated("", n(6))), said: requests(t, n(6))},
		{name: "a seat that is like this", value: always(seated("", edited(n(4), func(*roster.Seat) {}))), said: nothing},
		{name: "a seat with another name", value: always(seated("", edited(n(4), func(s *roster.Seat) { s.Name = "n9" }))), said: nothing},
		{name: "a seat with another key", value: always(seated("", edited(n(4), func(s *roster.Seat) { s.Key = ledgertest.Key(t, "n9") }))), said: nothing},
		{name: "a seat that becomes a member", value: always(seated("", edited(n(4), func(s *roster.Seat) { s.Member = true }))), said: nothing},
		{name: "a seat in another domain", value: always(seated("", edited(n(4), func(s *roster.Seat) { s.Domain = "attic" }))), said: nothing},
		{name: "two seats in another domain", value: always(seated("", edited(n(1), func(s *roster.Seat) { s.Domain, s.Member = "attic", true }), edited(n(4), func(s *roster.Seat) { s.Domain = "attic" }))), said: nothing},
		{name: "a key that has a seat", value: always(seated("", edited(n(5), func(s *roster.Seat) { s.Key = ledgertest.Key(t, "n1") }))), said: nothing},
		{name: "an owner who is nobody", value: always(seated("", edited(n(5), func(s *roster.Seat) { s.Owner = "kaper" }))), said: requests(t, n(5))},
		{name: "a fourth member", value: always(seated("", edited(n(5), func(s *roster.Seat) { s.Member = true }))), said: requests(t, n(5))},
		{name: "the fourth vote by majority", seats: 3, value: always(seated("", n(4))), said: requests(t, n(4))},
		{name: "the third vote by two thirds", seats: 2, value: always(seated(roster.TwoThirds, n(3))), said: requests(t, n(3))},
		{name: "an owner who is there", value: always(value(func(v *ledger.Value) {
			v.Seat = &decision.Seat{Seats: []roster.Seat{n(5)}, Owners: []roster.Owner{ledgertest.NewOwner(t, "hanse", "new")}}
		})), said: requests(t, n(5))},
		{name: "an owner without a seat", value: always(value(func(v *ledger.Value) {
			v.Seat = &decision.Seat{Seats: []roster.Seat{n(5)}, Owners: []roster.Owner{ledgertest.NewOwner(t, "kaper", "")}}
		})), said: with(requests(t, n(5)), yes("kaper", "", 1, 2))},
		{name: "a node with another journal", value: always(seated("", edited(n(5), func(s *roster.Seat) { s.Journal = roster.ID{9} }))), said: requests(t, n(5))},
		{name: "a spare on a board of 32 bits", value: always(seated("", edited(n(5), func(s *roster.Seat) { s.Spare = true }))), said: func(w *ledgertest.Fleet, _ document.Hash) [][]byte {
			return [][]byte{w.RequestOn(t, n(5), "arm")}
		}},
		{name: "a request of somebody else", value: always(seated("", n(5))), said: requests(t, n(5), n(6))},
		{name: "more votes than the policy allows", before: func(w *ledgertest.Fleet) {
			must(t, w, policy(func(p *fleet.Policy) { p.Votes = 4 })(w), nothing)
		}, value: always(seated("", n(5))), said: requests(t, n(5))},

		{name: "before the last one has signed", before: fifth, value: always(seated("", n(6))), said: requests(t, n(6))},
		{name: "after the last one has signed", before: fifth, value: always(seated("", n(6))), said: with(requests(t, n(6)), opinions(2, n(5)))},
		{name: "it has signed about something else", before: fifth, value: always(seated("", n(6))), said: with(requests(t, n(6)), func(w *ledgertest.Fleet, _ document.Hash) [][]byte {
			return opinions(2, n(5))(w, document.HashOf([]byte("another proposal")))
		})},
		{name: "it signed before it had a vote", before: fifth, value: always(seated("", n(6))), said: with(requests(t, n(6)), opinions(1, n(5)))},
		{name: "another one has signed", before: fifth, value: always(seated("", n(6))), said: with(requests(t, n(6)), opinions(2, n(4)))},
		{name: "seats without a vote meanwhile", before: fifth, value: always(seated("", several(t, 6, 2, false)...)), said: requests(t, several(t, 6, 2, false)...)},
		{name: "the last one leaves again", before: fifth, value: always(unseated(nil, 5)), said: nothing},
		{name: "the last one loses its vote", before: fifth, value: always(seated("", edited(n(5), func(s *roster.Seat) { s.Vote = false }))), said: nothing},
		{name: "the last one is replaced", before: fifth, value: replacing(5, none), said: asks(5)},
		{name: "another one leaves", before: fifth, value: always(unseated(nil, 4)), said: nothing},

		{name: "unseat nobody", value: always(unseated(nil, 9)), said: nothing},
		{name: "unseat the only one", seats: 1, value: always(unseated(second, 1)), said: nothing},
		{name: "unseat two of four", value: always(unseated(second, 3, 4)), said: nothing},
		{name: "unseat a member alone", value: always(unseated(second, 3)), said: nothing},
		{name: "unseat a member with the old CA", seats: 7, before: spares, value: always(value(func(v *ledger.Value) {
			v.Unseat = &decision.Unseat{Seats: []int{3}, Members: []int{4}}
		})), said: nothing},
		{name: "unseat a spare with the old CA", seats: 7, before: spares, value: always(unseated(nil, 7)), said: nothing},
		{name: "unseat a spare", seats: 7, before: spares, value: always(unseated(second, 7)), said: nothing},
		{name: "another CA for nothing", value: always(unseated(second, 4)), said: nothing},
		{name: "a member in the place of none", seats: 7, before: spares, value: always(value(func(v *ledger.Value) {
			v.Unseat = &decision.Unseat{Seats: []int{7}, Members: []int{4}, CA: second}
		})), said: nothing},
		{name: "a member who leaves, too", seats: 7, before: spares, value: always(value(func(v *ledger.Value) {
			v.Unseat = &decision.Unseat{Seats: []int{3, 4}, Members: []int{4}, CA: second}
		})), said: nothing},
		{name: "the last seat of an owner", seats: 7, before: kaper, value: always(unseated(nil, 8)), said: nothing},

		{name: "replace", value: replacing(4, none), said: asks(4)},
		{name: "replace nobody", value: replacing(4, func(d *decision.Replace) { d.Old = 3; d.New.Number = 9 }), said: nothing},
		{name: "replace with another vote", value: replacing(4, func(d *decision.Replace) { d.New.Vote = false }), said: asks(4)},
		{name: "replace by itself", value: replacing(4, func(d *decision.Replace) { d.New.Key = ledgertest.Key(t, "n4") }), said: nothing},
		{name: "replace a member with the old CA", value: replacing(3, none), said: asks(3)},

		{name: "isolate one of four", value: isolates(false, 4), said: nothing},
		{name: "isolate two of four", value: isolates(false, 2, 4), said: nothing},
		{name: "isolate two of four by one key", value: isolates(false, 2, 4), said: yes("hanse", "", 1)},
		{name: "isolate two of three members", seats: 10, value: isolates(false, 2, 3), said: nothing},
		{name: "isolate one of three members", seats: 10, value: isolates(false, 2, 5, 6), said: nothing},
		{name: "isolate again", before: func(w *ledgertest.Fleet) { must(t, w, isolates(false, 4)(w), nothing) }, value: isolates(false, 4), said: nothing},
		{name: "lift nothing", value: isolates(true, 4), said: nothing},
		{name: "isolate nobody", value: isolates(false, 9), said: nothing},

		{name: "a fleet for trying things out", value: policy(func(p *fleet.Policy) { *p = fleet.TrialPolicy() }), said: nothing},
		{name: "fewer votes than there are", value: policy(func(p *fleet.Policy) { p.Votes = 3 }), said: nothing},
		{name: "a policy without a bake", value: policy(func(p *fleet.Policy) { p.Bake = 0 }), said: nothing},
		{name: "majority with four votes", value: rule, said: nothing},
		{name: "majority again", seats: 3, value: rule, said: nothing},
		{name: "a TUF root that was skipped", before: func(w *ledgertest.Fleet) { must(t, w, root(2, "two"), nothing) }, value: always(root(4, "four")), said: nothing},
		{name: "an older TUF root", before: func(w *ledgertest.Fleet) { must(t, w, root(2, "two"), nothing) }, value: always(root(1, "one")), said: nothing},
		{name: "the same TUF root", before: func(w *ledgertest.Fleet) { must(t, w, root(2, "two"), nothing) }, value: always(root(3, "two")), said: nothing},
		{name: "the node CA again", value: nodeCA, said: nothing},
		{name: "the operator CA", value: func(w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: w.Genesis.OperatorCA.Raw} })
		}, said: nothing},
		{name: "a node CA of before", before: func(w *ledgertest.Fleet) {
			must(t, w, value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: second} }), nothing)
		}, value: nodeCA, said: nothing},
		{name: "members who are no spares", value: members(nil, 1, 2, 4), said: nothing},
		{name: "members who are nobody", value: members(nil, 1, 2, 9), said: nothing},
		{name: "three new members", seats: 7, before: spares, value: members(nil, 4, 5, 6), said: nothing},
		{name: "fewer members", seats: 7, before: spares, value: members([]int{2, 3}, 1), said: nothing},
		{name: "the same members", seats: 7, before: spares, value: members([]int{4, 5, 6, 7}, 1, 2, 3), said: nothing},

		{name: "the only owner", value: always(owner(ledgertest.NewOwner(t, "hanse", "new"), false)), said: with(yes("hanse", "", 1, 2), yes("hanse", "new", 1, 2))},
		{name: "the only owner, lost", value: always(owner(ledgertest.NewOwner(t, "hanse", "new"), true)), said: yes("hanse", "new", 1, 2)},
		{name: "an owner by one old key", seats: 7, before: kaper, value: always(owner(ledgertest.NewOwner(t, "kaper", "new"), false)), said: with(allows, yes("kaper", "", 1))},
		{name: "an owner by one new key", seats: 7, before: kaper, value: always(owner(ledgertest.NewOwner(t, "kaper", "new"), false)), said: with(yes("hanse", "", 1, 2), yes("kaper", "", 1, 2), yes("kaper", "new", 1))},
		{name: "nobody's keys", value: always(owner(ledgertest.NewOwner(t, "kaper", "new"), false)), said: yes("kaper", "new", 1, 2)},
		{name: "the keys that he has", value: always(owner(ledgertest.NewOwner(t, "hanse", ""), false)), said: yes("hanse", "", 1, 2)},
		{name: "an owner with a seat's key", value: func(*ledgertest.Fleet) ledger.Value {
			o := ledgertest.NewOwner(t, "hanse", "new")
			o.Keys[2] = ledgertest.Key(t, "n2")
			return owner(o, false)
		}, said: with(yes("hanse", "", 1, 2), yes("hanse", "new", 1, 2))},
		{name: "an owner of one vote of eight, lost", seats: 7, before: kaper, value: always(lost(t)), said: allows},
		{name: "an owner of two votes of nine, lost", seats: 7, before: func(w *ledgertest.Fleet) {
			withKaper(t, w)
			ninth := edited(n(9), func(s *roster.Seat) { s.Owner = "kaper" })
			must(t, w, seated("", ninth), with(requests(t, ninth), opinions(2, n(8))))
		}, value: always(lost(t)), said: allows},
		{name: "two owners who wait", seats: 7, before: waiting, value: always(lost(t)), said: allows},
		{name: "his keys were not lost", seats: 7, before: waiting, value: always(owner(ledgertest.NewOwner(t, "kaper", "new"), false)), said: with(allows, yes("kaper", "", 1, 2))},
		{name: "settle nothing", bare: true, value: settle(false, func(w *ledgertest.Fleet) document.Hash { return w.Log.State().Record }), said: nothing},
		{name: "settle another record", seats: 7, bare: true, before: waiting, value: settle(false, func(w *ledgertest.Fleet) document.Hash { return ledgertest.Must[document.Hash](t)(w.Log.Record(2)) }), said: nothing},
		{name: "a veto by a new key", seats: 7, bare: true, before: waiting, value: settle(true, claim), said: objects(false, "new")},
		{name: "a yes as veto", seats: 7, bare: true, before: waiting, value: settle(true, claim), said: objects(true, "")},

		{name: "a double vote of nobody", seats: 7, bare: true, value: always(value(func(v *ledger.Value) { v.DoubleVote = &decision.DoubleVote{Seat: 9} })), said: contrary(t, "n6")},
		{name: "a double vote of another one", seats: 7, bare: true, value: sixth, said: contrary(t, "n5")},
		{name: "a double vote without a proof", seats: 7, bare: true, value: sixth, said: nothing},
		{name: "a double vote that is forged", seats: 7, bare: true, value: sixth, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			proof := contrary(t, "n6")(w, id)[0]
			proof[len(proof)-1] ^= 1
			return [][]byte{proof}
		}},
		{name: "a ballot and the same again", seats: 7, bare: true, value: sixth, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			r := ledgertest.Must[ledger.Record](t)(w.Log.State().Next(w.Operators(t, "mia")))
			return [][]byte{w.Twice(edited(n(6), func(*roster.Seat) {}), r, r)}
		}},
		{name: "a ballot with two signatures", seats: 7, bare: true, value: sixth, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			r := ledgertest.Must[ledger.Record](t)(w.Log.State().Next(w.Operators(t, "mia")))
			both := bytes.Clone(w.Twice(n(6), r, r))
			both[len(both)-1] = 0xff // the second one, which is the larger
			return [][]byte{both}
		}},
		{name: "ballots of two heights", seats: 7, bare: true, value: sixth, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			r := ledgertest.Must[ledger.Record](t)(w.Log.State().Next(w.Operators(t, "mia")))
			later := r
			later.Height++
			return [][]byte{w.Twice(n(6), r, later)}
		}},
		{name: "a vote for who has voted twice", seats: 7, before: func(w *ledgertest.Fleet) {
			v := value(func(v *ledger.Value) { v.DoubleVote = &decision.DoubleVote{Seat: 6} })
			proof := contrary(t, "n6")(w, document.Hash{})
			if err := w.Decides(t, v.Resting(proof), proof); err != nil {
				t.Fatal(err)
			}
		}, value: always(seated("", n(6))), said: nothing},
	} {
		w := ledgertest.Founded(t, cmp.Or(c.seats, 4), 1)
		if c.before != nil {
			c.before(w)
		}
		v := c.value(w)
		var evidence [][]byte
		if c.bare {
			evidence = c.said(w, document.Hash{})
			v = v.Resting(evidence)
		} else {
			v, evidence = w.Rested(t, v, func(id document.Hash) [][]byte { return c.said(w, id) })
		}
		judged, ids := w.Log.State().Judge(v, evidence), []string{}
		for height := range w.Log.State().Height {
			ids = append(ids, ledgertest.Must[document.Hash](t)(w.Log.Record(height+1)).Short(), "RECORD")
		}
		height := w.Log.State().Height
		err := w.Decides(t, v, evidence)
		if (judged == nil) != (err == nil) || err != nil && !errors.Is(err, ledger.ErrValue) {
			t.Errorf("%s: a voter says %v, the ledger %v", c.name, judged, err)
		}
		if got := w.Log.State().Height; (got == height) != (err != nil) {
			t.Errorf("%s: height %d, %v", c.name, got, err)
		}
		fmt.Fprintf(&b, "%s\n    %s\n", c.name, strings.NewReplacer(ids...).Replace(fmt.Sprint(err)))
	}
	golden.Compare(t, "decides.txt", b.String())
}

// TestProposer has what decides rest on what a listed operator has proposed, once.
func TestProposer(t *testing.T) {
	bob, eve := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey()), ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	w := ledgertest.Founded(t, 4, 1)
	spki := ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&bob.PublicKey))
	list := func(role fleet.Role) ledger.Value {
		return value(func(v *ledger.Value) {
			v.Operators = &ledger.Operators{Set: []ledger.Operator{{Name: "bob", Role: role, Key: document.HashOf(spki)}}}
		})
	}
	must(t, w, list(fleet.RoleOperator), nothing)
	v := w.Operators(t, "carol")
	number := uint64(0)
	sealed := func(by *ecdsa.PrivateKey, height int64, v ledger.Value) signed.Envelope {
		number++
		return ledgertest.Must[signed.Envelope](t)(proposal.Seal(w.Log.State().Fleet(), by, number, proposal.Proposal{Height: height, Value: v.Encode()}))
	}
	good := sealed(bob, 2, v)
	forged := good.Again(10, good.Signature())
	opinion := w.Opinion(t, "n1", proposal.ID(good))
	var b strings.Builder
	tell := func(name string, v ledger.Value, evidence ...[]byte) {
		err := w.Log.State().Judge(v.Resting(evidence), evidence)
		ids := strings.NewReplacer(document.HashOf(ledgertest.Must[[]byte](t)(x509.MarshalPKIXPublicKey(&eve.PublicKey))).Short(), "EVE", good.By.ID().Short(), "BOB", proposal.ID(good).Short(), "ID")
		fmt.Fprintf(&b, "%s\n    %s\n", name, ids.Replace(fmt.Sprint(err)))
		got, by, err := w.Log.State().Proposed(ledgertest.Must[signed.Envelope](t)(signed.Parse(evidence[0])))
		if err == nil && (by.Name != "bob" || got.Kind() != v.Kind()) {
			t.Errorf("%s: %s, proposed by %s", name, got.Kind(), by.Name)
		}
	}
	tell("bob's", v, good.Bytes())
	tell("with an opinion", v, good.Bytes(), opinion)
	tell("forged", v, forged.Bytes())
	tell("by nobody", v, sealed(eve, 2, v).Bytes())
	tell("of something else", w.Operators(t, "dora"), good.Bytes())
	tell("of a height to come", v, sealed(bob, 3, v).Bytes())
	tell("and another one", v, good.Bytes(), w.Proposal(t, v).Bytes())
	tell("with the same opinion twice", v, good.Bytes(), opinion, opinion)
	tell("with an opinion before it", v, opinion, good.Bytes())
	tell("with an opinion about something else", v, good.Bytes(), w.Opinion(t, "n1", document.HashOf(nil)))
	tell("with a status", v, good.Bytes(), ledgertest.Must[signed.Envelope](t)(signed.Seal("kogge/status/v1", w.Log.State().Fleet(), ledgertest.Private("n1"), 1, nil)).Bytes())
	tell("with an object that is none", v, good.Bytes(), []byte("x"))
	if err := w.Log.State().Judge(v, [][]byte{good.Bytes()}); err == nil {
		t.Error("a value that names other evidence is taken")
	}
	if err := w.Decides(t, v.Resting([][]byte{good.Bytes()}), [][]byte{good.Bytes()}); err != nil {
		t.Fatal(err)
	}
	tell("once more", v, good.Bytes())
	must(t, w, w.Operators(t, "emma"), nothing)
	tell("and later", v, good.Bytes())
	must(t, w, value(func(v *ledger.Value) { p := fleet.DefaultPolicy(); p.Propose = fleet.RoleAdmin; v.Policy = &p }), nothing)
	tell("where admins propose", v, sealed(bob, 2, v).Bytes())
	must(t, w, list(fleet.RoleReader), nothing)
	must(t, w, value(func(v *ledger.Value) { p := fleet.DefaultPolicy(); v.Policy = &p }), nothing)
	tell("as a reader", v, sealed(bob, 2, v).Bytes())
	golden.Compare(t, "proposer.txt", b.String())

	revoked := w.Log.State().Without(func(key string) bool { return key == w.Genesis.FirstOperatorID() })
	if _, _, err := revoked.Proposed(w.Proposal(t, v)); !errors.Is(err, ledger.ErrWithdrawn) {
		t.Errorf("by a revoked key: %v", err)
	}
}

// TestBreakGlass has owners seat a fleet anew, and nobody else; and owners decide nothing else.
func TestBreakGlass(t *testing.T) {
	w := ledgertest.Founded(t, 4, 1)
	s := w.Log.State()
	request := [][]byte{w.Request(t, ledgertest.Seat(t, 5, "n5"))}
	var b strings.Builder
	signs := func(v ledger.Value, edit func(*ledger.Certificate, ledger.Record), evidence ...[]byte) ledger.Entry {
		v = v.Resting(evidence)
		r, err := s.Next(v)
		if err != nil { // it is signed all the same
			r = ledgertest.Must[ledger.Record](t)(s.Next(w.Operators(t, "x")))
			r.Value = v.Hash()
		}
		c := ledger.Certificate{Version: 1, Evidence: evidence}
		for i := 1; i <= 2; i++ {
			c.Owners = append(c.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), ledger.BreakGlassBytes(r)))
		}
		edit(&c, r)
		return ledger.Entry{Record: r.Encode(), Value: v.Encode(), Certificate: c.Encode()}
	}
	same := func(*ledger.Certificate, ledger.Record) {}
	with := func(edit func(*decision.BreakGlass)) ledger.Value {
		v := broken(t, w)
		v.BreakGlass.Roster.Seats = slices.Clone(v.BreakGlass.Roster.Seats)
		edit(v.BreakGlass)
		return v
	}
	good := signs(broken(t, w), same, request...)
	votes := func(c *ledger.Certificate, r ledger.Record) {
		c.Owners = nil
		for i := 1; i <= 3; i++ {
			c.Seats = append(c.Seats, signed.Sign(i, ledgertest.Private(fmt.Sprintf("n%d", i)), ledger.PrecommitBytes(r, 0, s.Tree)))
		}
	}
	carol, evidence := w.Proposed(t, w.Operators(t, "carol"))
	for _, c := range []struct {
		name string
		e    ledger.Entry
	}{
		{"good", good},
		{"by one owner key", signs(broken(t, w), func(c *ledger.Certificate, _ ledger.Record) { c.Owners = c.Owners[:1] }, request...)},
		{"by votes", signs(broken(t, w), votes, request...)},
		{"by owners and votes", signs(broken(t, w), func(c *ledger.Certificate, r ledger.Record) {
			owners := c.Owners
			votes(c, r)
			c.Owners = owners
		}, request...)},
		{"as a founding is signed", signs(broken(t, w), func(c *ledger.Certificate, r ledger.Record) {
			for i := range c.Owners {
				c.Owners[i] = signed.Sign(i+1, ledgertest.Private(fmt.Sprintf("owner %d", i+1)), ledger.FoundingBytes(r))
			}
		}, request...)},
		{"operators by owners", signs(carol, same, evidence...)},
		{"without the new node's request", signs(broken(t, w), same)},
		{"with the old CA", signs(with(func(d *decision.BreakGlass) { d.CA = nil }), same, request...)},
		{"other owner keys", signs(with(func(d *decision.BreakGlass) {
			d.Roster.Owners = []roster.Owner{ledgertest.NewOwner(t, "hanse", "new")}
		}), same, request...)},
		{"another owner", signs(with(func(d *decision.BreakGlass) {
			d.Roster = d.Roster.WithOwners(ledgertest.NewOwner(t, "kaper", ""))
		}), same, request...)},
		{"a seat of another name", signs(with(func(d *decision.BreakGlass) { d.Roster.Seats[0].Name = "n9" }), same, request...)},
		{"a number that was given", signs(with(func(d *decision.BreakGlass) {
			d.Roster.Seats[2].Number, d.Roster.Given = 4, 4
			d.Roster.Seats[1].Number = 3
		}), same, request...)},
		{"a number that was skipped", signs(with(func(d *decision.BreakGlass) { d.Roster.Seats[2].Number, d.Roster.Given = 6, 6 }), same, request...)},
		{"numbers that are given again", signs(with(func(d *decision.BreakGlass) { d.Roster.Given = 9 }), same, request...)},
		{"nobody votes", signs(with(func(d *decision.BreakGlass) {
			for i := range d.Roster.Seats {
				d.Roster.Seats[i].Vote = false
			}
		}), same, request...)},
	} {
		err := w.Log.Clone().AppendBroken(c.e)
		fmt.Fprintf(&b, "%s\n    %v\n", c.name, err)
		if err != nil && errors.Is(err, ledger.ErrBreakGlass) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	golden.Compare(t, "break-glass.txt", b.String())
	if err := w.Log.Append(signs(with(func(d *decision.BreakGlass) { d.CA = nil }), same, request...)); err == nil || errors.Is(err, ledger.ErrBreakGlass) {
		t.Errorf("a node waits for what it will never take: %v", err)
	}
	if err := w.Log.Append(good); !errors.Is(err, ledger.ErrBreakGlass) || w.Log.State().Height != 1 {
		t.Errorf("a node takes it without waiting: %v", err)
	}
	w.Entries = append(w.Entries, good)
	var file bytes.Buffer
	if err := ledger.WriteFile(&file, w.Genesis); err != nil {
		t.Fatal(err)
	}
	for i, e := range w.Entries {
		if err := ledger.WriteEntry(&file, int64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	l, _, err := ledger.Read(&file, w.Genesis)
	if err != nil || l.State().BrokenGlass != 2 || l.State().Roster.Votes() != 3 {
		t.Errorf("who verifies a file: %v, height %d", err, l.State().BrokenGlass)
	}
}
