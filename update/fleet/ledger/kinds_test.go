package ledger_test

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// said makes what is said about a proposal.
type said func(w *ledgertest.Fleet, id document.Hash) [][]byte

// example is one decision of a kind, in a fleet of its own.
type example struct {
	name  string // "": that of the kind
	seats int    // that the fleet begins with
	// before is what is decided first.
	before func(t testing.TB, w *ledgertest.Fleet)
	value  func(t testing.TB, w *ledgertest.Fleet) ledger.Value
	said   said
	// bare evidence is without a proposal; broken says that owners sign.
	bare, broken bool
}

func nothing(*ledgertest.Fleet, document.Hash) [][]byte { return nil }

// must takes a decision.
func must(t testing.TB, w *ledgertest.Fleet, v ledger.Value, s said) {
	t.Helper()
	v, evidence := w.Rested(t, v, func(id document.Hash) [][]byte { return s(w, id) })
	if err := w.Decides(t, v, evidence); err != nil {
		t.Fatal(err)
	}
}

// ca is the certificate of a node CA that was made once, so that values have the same bytes each time.
func ca(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && golden.Updating() {
		text = []byte(hex.EncodeToString(ledgertest.NewNodeCA(t)) + "\n")
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ledgertest.Must[[]byte](t)(hex.DecodeString(strings.TrimSpace(string(text))))
}

func value(edit func(*ledger.Value)) ledger.Value {
	v := ledger.Value{Version: 1}
	edit(&v)
	return v
}

// requests are those of the nodes of seats.
func requests(t testing.TB, seats ...roster.Seat) said {
	return func(w *ledgertest.Fleet, _ document.Hash) (all [][]byte) {
		for _, s := range seats {
			all = append(all, w.Request(t, s))
		}
		return all
	}
}

// replaced is the seat of a node in the place of another one.
func replaced(t testing.TB, w *ledgertest.Fleet, number int) roster.Seat {
	r := w.Log.State().Roster
	s, _ := r.Seat(number)
	s.Number, s.Key, s.Journal = r.Given+1, ledgertest.Key(t, ledgertest.Replacing(s.Name)), roster.ID{byte(r.Given + 1)}
	return s
}

// lost is the decision that gives a second owner other keys, because his are lost.
func lost(t testing.TB) ledger.Value {
	return value(func(v *ledger.Value) {
		v.Owners = &decision.Owners{Owner: ledgertest.NewOwner(t, "kaper", "new"), Lost: true}
	})
}

func allows(w *ledgertest.Fleet, id document.Hash) [][]byte {
	return [][]byte{w.Answer(id, true, "hanse", "", 1, 2), w.Answer(id, true, "kaper", "new", 2, 3)}
}

// withKaper seats n8 of an owner of his own.
func withKaper(t testing.TB, w *ledgertest.Fleet) {
	seat := ledgertest.Seat(t, 8, "n8")
	seat.Owner = "kaper"
	must(t, w, value(func(v *ledger.Value) {
		v.Seat = &decision.Seat{Seats: []roster.Seat{seat}, Owners: []roster.Owner{ledgertest.NewOwner(t, "kaper", "")}}
	}), func(w *ledgertest.Fleet, id document.Hash) [][]byte {
		return append(requests(t, seat)(w, id), w.Answer(id, true, "kaper", "", 1, 3))
	})
}

func claimed(t testing.TB, w *ledgertest.Fleet) {
	withKaper(t, w)
	must(t, w, lost(t), allows)
}

// contrary is the proof that a seat has voted for two values at the next height.
func contrary(t testing.TB, name string) said {
	return func(w *ledgertest.Fleet, _ document.Hash) [][]byte {
		var both [2]ledger.Record
		for i, name := range []string{"mia", "max"} {
			v := value(func(v *ledger.Value) {
				v.Operators = &ledger.Operators{Set: []ledger.Operator{{Name: name, Role: fleet.RoleReader, Key: document.HashOf([]byte(name))}}}
			})
			both[i] = ledgertest.Must[ledger.Record](t)(w.Log.State().Next(v))
		}
		seat, _ := w.Log.State().Roster.ByName(name)
		return [][]byte{w.Twice(seat, both[0], both[1])}
	}
}

// examples are decisions of each kind.
func examples(t testing.TB) map[decision.Kind][]example {
	spare := func(t testing.TB, w *ledgertest.Fleet) {
		must(t, w, value(func(v *ledger.Value) { v.Members = &decision.Members{Members: []int{1, 2, 3}, Spares: []int{4, 5}} }), nothing)
	}
	return map[decision.Kind][]example{
		decision.KindSeat: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			one, two := ledgertest.Seat(t, 5, "n5"), ledgertest.Seat(t, 6, "n6")
			one.Spare, one.Domain, two.Vote = true, "attic", false
			return value(func(v *ledger.Value) { v.Seat = &decision.Seat{Seats: []roster.Seat{one, two}} })
		}, said: requests(t, ledgertest.Seat(t, 5, "n5"), ledgertest.Seat(t, 6, "n6"))}, {
			name: "seat-fourth", seats: 3, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
				return value(func(v *ledger.Value) {
					v.Seat = &decision.Seat{Seats: []roster.Seat{ledgertest.Seat(t, 4, "n4")}, Rule: roster.TwoThirds}
				})
			}, said: requests(t, ledgertest.Seat(t, 4, "n4")),
		}, {
			name: "seat-owner", seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
				seat := ledgertest.Seat(t, 5, "n5")
				seat.Owner = "kaper"
				return value(func(v *ledger.Value) {
					v.Seat = &decision.Seat{Seats: []roster.Seat{seat}, Owners: []roster.Owner{ledgertest.NewOwner(t, "kaper", "")}}
				})
			}, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
				return [][]byte{w.Request(t, ledgertest.Seat(t, 5, "n5")), w.Answer(id, true, "kaper", "", 1, 3)}
			},
		}, {
			name: "seat-vote", seats: 4, before: func(t testing.TB, w *ledgertest.Fleet) {
				seat := ledgertest.Seat(t, 5, "n5")
				seat.Vote = false
				must(t, w, value(func(v *ledger.Value) { v.Seat = &decision.Seat{Seats: []roster.Seat{seat}} }), requests(t, seat))
			}, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
				return value(func(v *ledger.Value) { v.Seat = &decision.Seat{Seats: []roster.Seat{ledgertest.Seat(t, 5, "n5")}} })
			}, said: nothing,
		}},
		decision.KindUnseat: {{seats: 7, before: spare, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) {
				v.Unseat = &decision.Unseat{Seats: []int{2, 7}, Members: []int{4}, CA: ca(t, "ca-second")}
			})
		}, said: nothing}},
		decision.KindReplace: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) {
				v.Replace = &decision.Replace{Old: 2, New: replaced(t, w, 2), CA: ca(t, "ca-second")}
			})
		}, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return [][]byte{w.Request(t, replaced(t, w, 2))}
		}}},
		decision.KindIsolate: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: []int{2, 4}} })
		}, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return [][]byte{w.Answer(id, true, "hanse", "", 2, 3)}
		}}, {name: "isolate-lift", seats: 4, before: func(t testing.TB, w *ledgertest.Fleet) {
			must(t, w, value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: []int{4}} }), nothing)
		}, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: []int{4}, Lift: true} })
		}, said: nothing}},
		decision.KindOperators: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) {
				v.Operators = &ledger.Operators{Set: []ledger.Operator{{Name: "bob", Role: fleet.RoleOperator, Key: document.HashOf([]byte("bob"))}}}
			})
		}, said: nothing}},
		decision.KindPolicy: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			p := fleet.DefaultPolicy()
			p.Canaries, p.Propose = 3, fleet.RoleAdmin
			return value(func(v *ledger.Value) { v.Policy = &p })
		}, said: nothing}},
		decision.KindRule: {{seats: 4, before: func(t testing.TB, w *ledgertest.Fleet) {
			must(t, w, value(func(v *ledger.Value) { v.Unseat = &decision.Unseat{Seats: []int{4}} }), nothing)
		}, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Rule = &decision.Rule{Rule: roster.Majority} })
		}, said: nothing}},
		decision.KindTUFRoot: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) {
				v.TUFRoot = &decision.TUFRoot{Number: 2, Root: document.HashOf([]byte("root.json"))}
			})
		}, said: nothing}},
		decision.KindCA: {{seats: 4, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: ca(t, "ca-second")} })
		}, said: nothing}},
		decision.KindMembers: {{seats: 7, before: spare, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) {
				v.Members = &decision.Members{Members: []int{1, 2, 3, 4, 5}, Spares: []int{7}}
			})
		}, said: nothing}},
		decision.KindOwners: {{seats: 7, before: withKaper, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: ledgertest.NewOwner(t, "kaper", "new")} })
		}, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return append(allows(w, id), w.Answer(id, true, "kaper", "", 1, 2))
		}}, {name: "owners-lost", seats: 7, before: withKaper, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value { return lost(t) }, said: allows}},
		decision.KindSettle: {{seats: 7, bare: true, before: claimed, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: w.Log.State().Claim.Record} })
		}, said: nothing}, {name: "settle-veto", seats: 7, bare: true, before: claimed, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: w.Log.State().Claim.Record, Veto: true} })
		}, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return [][]byte{w.Answer(w.Log.State().Claim.Record, false, "kaper", "", 3)}
		}}},
		decision.KindDoubleVote: {{seats: 7, bare: true, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return value(func(v *ledger.Value) { v.DoubleVote = &decision.DoubleVote{Seat: 6} })
		}, said: contrary(t, "n6")}},
		decision.KindBreakGlass: {{seats: 4, bare: true, broken: true, value: func(t testing.TB, w *ledgertest.Fleet) ledger.Value {
			return broken(t, w)
		}, said: func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return [][]byte{w.Request(t, ledgertest.Seat(t, 5, "n5"))}
		}}},
	}
}

// broken seats a fleet of four anew: two of them are gone, and another node comes.
func broken(t testing.TB, w *ledgertest.Fleet) ledger.Value {
	r := w.Log.State().Roster.WithoutSeats(2, 3).WithSeats(ledgertest.Seat(t, 5, "n5"))
	r.Rule = roster.Majority
	return value(func(v *ledger.Value) { v.BreakGlass = &decision.BreakGlass{Roster: r, CA: ca(t, "ca-second")} })
}

// entry is the entry of an example, signed by a quorum, or the owner.
func (x example) entry(t testing.TB, w *ledgertest.Fleet, without int) (ledger.Value, ledger.Entry) {
	t.Helper()
	v := x.value(t, w)
	var evidence [][]byte
	if x.bare {
		evidence = x.said(w, document.Hash{})
	} else {
		_, evidence = w.Rested(t, v, func(id document.Hash) [][]byte { return x.said(w, id) })
	}
	if without >= 0 {
		evidence = slices.Delete(slices.Clone(evidence), without, without+1)
	}
	resting := v.Resting(evidence)
	r := ledgertest.Must[ledger.Record](t)(w.Log.State().Next(resting))
	if !x.broken {
		return v, w.Proved(r, resting, w.Log.State().Roster.Quorum(), evidence...)
	}
	c := ledger.Certificate{Version: 1, Evidence: evidence}
	for i := 1; i <= 2; i++ {
		c.Owners = append(c.Owners, signed.Sign(i, ledgertest.Private(fmt.Sprintf("owner %d", i)), ledger.BreakGlassBytes(r)))
	}
	return v, ledger.Entry{Record: r.Encode(), Value: resting.Encode(), Certificate: c.Encode()}
}

func (x example) begin(t testing.TB) *ledgertest.Fleet {
	w := ledgertest.Founded(t, x.seats, 1)
	if x.before != nil {
		x.before(t, w)
	}
	return w
}

// TestKinds walks the table of decisions: each kind has a value with a spelling that stays, takes effect,
// and is refused without any of the signatures that it needs.
func TestKinds(t *testing.T) {
	all, seen := examples(t), 0
	for _, row := range decision.Table() {
		if row.Proposer == decision.Nobody {
			if len(all[row.Kind]) > 0 {
				t.Errorf("%s: nobody proposes it, and there is an example", row.Kind)
			}
			continue
		}
		if len(all[row.Kind]) == 0 {
			t.Errorf("%s: there is no example", row.Kind)
		}
		seen++
		for _, x := range all[row.Kind] {
			name := x.name
			if name == "" {
				name = string(row.Kind)
			}
			t.Run(name, func(t *testing.T) { walk(t, row, name, x) })
		}
	}
	if seen != len(all) || seen < 14 {
		t.Errorf("%d kinds were walked, and there are examples of %d", seen, len(all))
	}
}

func walk(t *testing.T, row decision.Row, name string, x example) {
	w := x.begin(t)
	before := w.Log.State()
	v, e := x.entry(t, w, -1)
	if v.Kind() != row.Kind {
		t.Errorf("its kind is %q", v.Kind())
	}
	if x.before == nil || row.Kind != decision.KindSettle { // whose record rests on signatures that differ each time
		golden.Compare(t, filepath.Join("v1", name+".json"), string(v.Encode()))
	}
	if read, err := ledger.ParseValue(v.Encode()); err != nil || read.Hash() != v.Hash() {
		t.Errorf("it is read as %+v, %v", read, err)
	}
	if row.Proposer == decision.Operator {
		if got, by, err := before.Proposed(w.Proposal(t, v)); err != nil || got.Hash() != v.Hash() || by.Name != "ada" {
			t.Errorf("as a proposal: %v, by %s", err, by.Name)
		}
	}
	c := ledgertest.Must[ledger.Certificate](t)(ledger.ParseCertificate(e.Certificate))
	var out strings.Builder
	for i := range c.Evidence { // each of them is needed
		if _, bad := x.entry(t, w, i); w.Log.Clone().AppendBroken(bad) == nil {
			t.Errorf("taken without object %d", i)
		} else {
			fmt.Fprintf(&out, "without object %d: %v\n", i, w.Log.Clone().AppendBroken(bad))
		}
	}
	if err := w.Log.Clone().Append(e); (err == nil) == x.broken {
		t.Errorf("as a decision of votes: %v", err)
	}
	read := ledgertest.Must[ledger.Value](t)(ledger.ParseValue(e.Value))
	if err := before.Waited(decision.Objection(before.Policy)).Judge(read, c.Evidence); (err == nil) == x.broken {
		t.Errorf("a voter says: %v", err)
	}
	if err := w.Log.AppendBroken(e); err != nil {
		t.Fatal(err)
	}
	w.Entries = append(w.Entries, e)
	recalled := ledger.New(w.Genesis)
	for _, e := range w.Entries {
		if err := recalled.Recall(e); err != nil {
			t.Fatal(err)
		}
	}
	told := tell(w.Log.State())
	if again := tell(recalled.State()); again != told {
		t.Errorf("recalled it is\n%s\nand was\n%s", again, told)
	}
	was := strings.SplitAfter(tell(before), "\n")
	is := strings.SplitAfter(told, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			out.WriteString("-" + line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			out.WriteString("+" + line)
		}
	}
	golden.Compare(t, filepath.Join("kinds", name+".txt"), out.String())
}

// tell is a state as a person reads it, without what differs from fleet to fleet.
func tell(s ledger.State) string {
	var b strings.Builder
	r := s.Roster
	fmt.Fprintf(&b, "  %s: %d of %d votes; given %d\n", r.Rule, r.Quorum(), r.Votes(), r.Given)
	for _, o := range r.Owners {
		fmt.Fprintf(&b, "  owner %s: %d of %d keys, the first %s\n", o.Name, o.Threshold, len(o.Keys), o.Keys[0].ID().Short())
	}
	for _, seat := range r.Seats {
		fmt.Fprintf(&b, "  seat %d %s %s", seat.Number, seat.Name, seat.Key.ID().Short())
		for _, f := range []struct {
			is   bool
			word string
		}{{seat.Vote, "vote"}, {seat.Member, "member"}, {seat.Spare, "spare"}, {seat.Owner != "hanse", "of " + seat.Owner}, {seat.Domain != "", "in " + seat.Domain}} {
			if f.is {
				b.WriteString(" " + f.word)
			}
		}
		b.WriteByte('\n')
	}
	for _, o := range s.Operators {
		fmt.Fprintf(&b, "  operator %s (%s)\n", o.Name, o.Role)
	}
	cas := []*x509.Certificate{s.NodeCA}
	for _, f := range s.FormerCAs {
		cas = append(cas, f.Certificate)
	}
	for i, c := range cas {
		which := "another"
		if c.Equal(s.Genesis.NodeCA) {
			which = "that of the genesis"
		}
		if i > 0 {
			which += fmt.Sprintf(", until height %d", s.FormerCAs[i-1].Height)
		}
		fmt.Fprintf(&b, "  node CA: %s\n", which)
	}
	fmt.Fprintf(&b, "  policy: %d canaries, %s proposes\n", s.Policy.Canaries, s.Policy.Propose)
	fmt.Fprintf(&b, "  TUF root: %d %s\n", s.TUFNumber, s.TUFRoot.Short())
	for _, l := range []struct {
		what string
		is   any
		no   bool
	}{
		{"isolated", s.Isolated, len(s.Isolated) == 0}, {"keys barred", len(s.Barred), len(s.Barred) == 0},
		{"awaited since height " + fmt.Sprint(s.Seated), s.Awaited, len(s.Awaited) == 0}, {"glass broken at height", s.BrokenGlass, s.BrokenGlass == 0},
	} {
		if !l.no {
			fmt.Fprintf(&b, "  %s: %v\n", l.what, l.is)
		}
	}
	if c := s.Claim; c != nil {
		fmt.Fprintf(&b, "  owner %s waits for other keys since height %d, by the newest record: %t\n", c.Owner.Name, c.Height, c.Record == s.Record)
	}
	return b.String()
}
