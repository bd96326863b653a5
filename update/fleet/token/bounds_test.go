package token_test

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
	"kogge.example/update/golden"
)

// keyOf is the public key of a token.
func keyOf(t testing.TB, seed fleet.Token) signed.Key {
	t.Helper()
	return ledgertest.Must[signed.Key](t)(token.KeyOf(seed))
}

func (w *world) accept(t testing.TB, a token.Accept, by *ecdsa.PrivateKey) []byte {
	t.Helper()
	a.Version = 1
	return ledgertest.Must[token.Paper](t)(token.SignAccept(w.state.Fleet(), a, by)).Bytes()
}

func (w *world) end(t testing.TB, seed fleet.Token, expires time.Time, by *ecdsa.PrivateKey) []byte {
	t.Helper()
	return ledgertest.Must[token.Paper](t)(token.Revoke(w.state.Fleet(), keyOf(t, seed), expires, by)).Bytes()
}

// TestSetFull has one operator's tokens be used as often as that goes: another one's are used all the
// same, tokens are revoked and nodes are accepted. When the tokens are over there is room again.
func TestSetFull(t *testing.T) {
	w := begin(t)
	other := w.operator(t, "bea", fleet.RoleAdmin)
	s, refused := token.NewSet(), error(nil)
	var seed fleet.Token
	var mine token.Paper
	n := 0
	for ; refused == nil; n++ {
		if n%token.MaxCount == 0 {
			seed = fleet.NewToken()
			mine = w.issue(t, seed, func(r *token.Record) { r.Count = token.MaxCount })
		}
		_, refused = s.Recall(w.use(t, seed, mine, fmt.Sprint("a", n), fmt.Sprint("a", n)).Bytes())
	}
	if !errors.Is(refused, token.ErrFull) || !strings.Contains(refused.Error(), "uses of tokens by the operator with key") || n < 2000 || n > token.MaxSet {
		t.Fatalf("%d uses: %v", n, refused)
	}
	by := w.admin
	w.admin = other
	theirs := w.issue(t, w.seed, func(*token.Record) {})
	w.put(t, s, w.use(t, w.seed, theirs, "b", "b").Bytes())
	w.put(t, s, w.accept(t, token.Accept{Node: ledgertest.Key(t, "a1"), Name: "a1", Number: 1, TLSKey: document.HashOf(nil)}, by))
	w.put(t, s, w.accept(t, token.Accept{Node: ledgertest.Key(t, "a2"), Name: "a2", Number: 1}, by))
	w.put(t, s, w.end(t, seed, now.Add(time.Hour), by))
	if !s.Ended(keyOf(t, seed)) {
		t.Error("the token is not revoked")
	}
	if gone := s.Age(now.Add(time.Hour + token.Kept)); len(gone) != 0 {
		t.Errorf("%d are gone too early", len(gone))
	}
	late := now.Add(time.Hour + token.Kept + time.Second)
	before := s.Len()
	gone := s.Age(late)
	if s.Len() != 3 || len(gone) != before-3 || len(s.IDs()) != 3 {
		t.Errorf("%d are gone, and %d stay", len(gone), s.Len())
	}
	if _, ok := s.CameBy(ledgertest.Key(t, "a2")); !ok {
		t.Error("nobody knows the TLS key of a2 any more")
	}
	for what, raw := range map[string][]byte{"the use": w.use(t, w.seed, theirs, "b", "b").Bytes(), "the end": w.end(t, seed, now.Add(time.Hour), by)} {
		if c, err := s.Put(raw, w.state); !errors.Is(err, token.ErrExpired) || c.News {
			t.Errorf("%s comes back: %v", what, err)
		}
	}
	w.admin = by
	seed = fleet.NewToken()
	again := w.issue(t, seed, func(r *token.Record) { r.Expires = late.Add(time.Hour).Truncate(time.Second) })
	w.put(t, s, w.use(t, seed, again, "c", "c").Bytes())
	// An end of which nobody knows when its token is over stays.
	w.put(t, s, w.end(t, seed, time.Time{}, by))
	s.Age(late.AddDate(100, 0, 0))
	s.Age(now) // the clock of 2126 was wrong
	w.put(t, s, w.use(t, seed, again, "d", "d").Bytes())
	if !s.Ended(keyOf(t, seed)) {
		t.Error("an end without a time is gone")
	}
}

// TestLackingTurns: what somebody does not take hides nothing for good.
func TestLackingTurns(t *testing.T) {
	w := begin(t)
	s := token.NewSet()
	for i := range 16 {
		w.put(t, s, w.accept(t, token.Accept{Node: ledgertest.Key(t, fmt.Sprint(i)), Name: "n9", Number: 1}, w.admin))
	}
	seen := make(map[string]bool)
	for _, from := range s.IDs() {
		for _, raw := range s.Lacking(nil, 1<<10, from) {
			seen[string(raw)] = true
		}
	}
	if len(seen) != 16 || len(s.Lacking(nil, 1<<20, token.Short{255, 255})) != 16 {
		t.Errorf("%d of 16 are ever told", len(seen))
	}
}

// TestNames shows who can have a name that another node has or had.
func TestNames(t *testing.T) {
	w := begin(t)
	var out strings.Builder
	named, any1, third := fleet.NewToken(), fleet.NewToken(), fleet.NewToken()
	forName := func(r *token.Record) { r.Node = "n9" }
	tokenOf := map[string]fleet.Token{"named": named, "any": any1, "third": third}
	records := map[string]token.Paper{
		"named": w.issue(t, named, forName), "any": w.issue(t, any1, func(r *token.Record) { r.Count = 3 }), "third": w.issue(t, third, forName),
	}
	came := func(node, by, name string) []byte { return w.use(t, tokenOf[by], records[by], node, name).Bytes() }
	accepted := func(node string, number int64) []byte {
		return w.accept(t, token.Accept{Node: ledgertest.Key(t, node), Name: "n9", Number: number}, w.admin)
	}
	over := func(by string) []byte { return w.end(t, tokenOf[by], time.Time{}, w.admin) }
	for _, c := range []struct {
		what   string
		before [][]byte
		node   string // that comes, as n9
		by     string
	}{
		{"its disk is gone: a new key, a token for the name", [][]byte{came("old", "named", "n9"), accepted("old", 1)}, "new", "third"},
		{"and by a token for any", [][]byte{came("old", "named", "n9"), accepted("old", 1)}, "new", "any"},
		{"the new one was accepted: it comes again", [][]byte{accepted("old", 1), came("new", "third", "n9"), accepted("new", 2)}, "new", "third"},
		{"the new one was accepted: the old one comes again", [][]byte{came("old", "named", "n9"), accepted("old", 1), came("new", "third", "n9"), accepted("new", 2)}, "old", "named"},
		{"a thief was first", [][]byte{came("thief", "named", "n9")}, "new", "third"},
		{"a thief was first, and the token was revoked", [][]byte{came("thief", "named", "n9"), over("named")}, "new", "third"},
		{"that thief was accepted before", [][]byte{came("thief", "named", "n9"), accepted("thief", 1), over("named")}, "new", "any"},
		{"somebody came under the name by a token for any", [][]byte{came("thief", "any", "n9")}, "new", "named"},
		{"both by a token for any", [][]byte{came("first", "any", "n9")}, "new", "any"},
		{"both by a token for any, and it was revoked", [][]byte{came("first", "any", "n9"), over("any")}, "new", "named"},
	} {
		s := token.NewSet()
		for _, raw := range c.before {
			w.put(t, s, raw)
		}
		u := w.use(t, tokenOf[c.by], records[c.by], c.node, "n9")
		fmt.Fprintf(&out, "%s\n    %v\n", c.what, anonymous(s.Admits(u, w.state, now)))
	}
	golden.Compare(t, "names.txt", out.String())

	// Of two that were accepted under one name the later one has it, in whichever order that comes.
	papers := [][]byte{accepted("old", 1), accepted("new", 2)}
	for turn := range 2 {
		s := token.NewSet()
		w.put(t, s, papers[turn])
		w.put(t, s, papers[1-turn])
		_, old := s.Accepted(ledgertest.Key(t, "old"))
		_, is := s.Accepted(ledgertest.Key(t, "new"))
		holder, _ := s.Holder("n9")
		if old || !is || holder.Node != ledgertest.Key(t, "new") || s.PaperOf(ledgertest.Key(t, "old")) != nil || s.PaperOf(holder.Node) == nil || s.Len() != 2 {
			t.Errorf("turn %d: old %v, new %v", turn, old, is)
		}
		// It gets another name: the older one has this one again.
		w.put(t, s, w.accept(t, token.Accept{Node: holder.Node, Name: "n8", Number: 3}, w.admin))
		if a, ok := s.Accepted(ledgertest.Key(t, "old")); !ok || a.Name != "n9" {
			t.Errorf("turn %d: the name is nobody's", turn)
		}
	}
	// A seat that has somebody's old token spreads no uses under names that it is not for.
	s := token.NewSet()
	if _, err := s.Put(came("thief", "named", "n5"), w.state); !errors.Is(err, token.ErrOther) || s.Len() != 0 {
		t.Errorf("a use under another name: %v", err)
	}
	// Who waits is who could be accepted.
	w.put(t, s, came("a", "any", "n5"))
	u, _ := s.CameBy(ledgertest.Key(t, "a"))
	if !s.Waits(u) {
		t.Error("it does not wait")
	}
	w.put(t, s, over("any"))
	if s.Waits(u) {
		t.Error("its token was revoked, and it waits")
	}
}

// TestWithdrawnAccept has a stolen key accept others in the place of nodes, with the highest number that
// there is. Once it is revoked, what good keys have signed counts, before and after, in any order.
func TestWithdrawnAccept(t *testing.T) {
	w := begin(t)
	bob := w.operator(t, "bob", fleet.RoleAdmin)
	listed, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&bob.PublicKey)).Operator()
	revoked := w.state.Without(func(key string) bool { return key == listed.String() })
	w.decide(t, ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"bob"}}})
	removed := w.state.Without(func(key string) bool { return key == listed.String() })
	const most = 1 << 40
	a := func(node, name string, number int64, by *ecdsa.PrivateKey) []byte {
		return w.accept(t, token.Accept{Node: ledgertest.Key(t, node), Name: name, Number: number}, by)
	}
	if _, err := token.SignAccept(w.state.Fleet(), token.Accept{Version: 1, Node: ledgertest.Key(t, "x"), Name: "n4", Number: most + 1}, bob); err == nil {
		t.Error("a number on which none can follow is signed")
	}
	papers := [][]byte{a("n4", "n4", 5, w.admin), a("thief", "n4", most, bob), a("n5", "n5", 6, bob), a("n5", "zz", most, bob)}
	for turn := range len(papers) {
		s := token.NewSet()
		for i := range papers {
			if _, err := s.Recall(papers[(i+turn)%len(papers)]); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := s.Accepted(ledgertest.Key(t, "thief")); !ok {
			t.Error("before the revocation the highest number counts")
		}
		if is, withdrawn := s.Displaced(ledgertest.Key(t, "n4")); !is || withdrawn || s.Next(ledgertest.Key(t, "n4"), "n4", now) != most+1 {
			t.Error("n4 is not displaced")
		}
		for _, state := range []ledger.State{revoked, removed} {
			s.Withdraw(state)
			if got, ok := s.Accepted(ledgertest.Key(t, "n4")); !ok || got.Number != 5 {
				t.Errorf("turn %d: n4 has not got its name back", turn)
			}
			if _, ok := s.Accepted(ledgertest.Key(t, "thief")); ok {
				t.Errorf("turn %d: the thief has it, too", turn)
			}
		}
		next := s.Next(ledgertest.Key(t, "n5"), "n5", now)
		if _, err := s.Put(a("n5", "n5", next, w.admin), removed); err != nil {
			t.Error(err)
		}
		if got, ok := s.Accepted(ledgertest.Key(t, "n5")); !ok || got.Name != "n5" || next != now.Unix() {
			t.Errorf("turn %d: %+v, %v", turn, got, next)
		}
		if c, err := s.Put(papers[3], removed); !errors.Is(err, token.ErrPaper) || c.News {
			t.Errorf("turn %d: %v", turn, err)
		}
		if c, err := s.Recall(papers[3]); err != nil || c.News {
			t.Errorf("turn %d: what a revoked key has signed takes the place of a good one's: %v", turn, err)
		}
	}
}

// TestWithdrawnRoom fills a set with what two keys have accepted, one of which is revoked: that makes room.
func TestWithdrawnRoom(t *testing.T) {
	w := begin(t)
	bob, bea := w.operator(t, "bob", fleet.RoleAdmin), w.operator(t, "bea", fleet.RoleAdmin)
	s, refused, n := token.NewSet(), error(nil), 0
	for _, by := range []*ecdsa.PrivateKey{bob, bea} {
		for refused = nil; refused == nil; n++ {
			_, refused = s.Recall(w.accept(t, token.Accept{Node: ledgertest.Key(t, fmt.Sprint("a", n)), Name: fmt.Sprint("a", n), Number: int64(n + 1)}, by))
		}
	}
	if !errors.Is(refused, token.ErrFull) {
		t.Fatalf("%d: %v", n, refused)
	}
	mine := w.accept(t, token.Accept{Node: ledgertest.Key(t, "b"), Name: "b", Number: 1}, w.admin)
	if _, err := s.Put(mine, w.state); !errors.Is(err, token.ErrFull) {
		t.Errorf("%v", err)
	}
	listed, _ := ledgertest.Must[signed.Key](t)(signed.OperatorKey(&bob.PublicKey)).Operator()
	state := w.state.Without(func(key string) bool { return key == listed.String() })
	s.Withdraw(state)
	before := s.Len()
	c, err := s.Put(mine, state)
	if err != nil || c.Dropped.IsZero() || s.Len() != before {
		t.Errorf("%+v, %v: %d", c, err, s.Len())
	}
	if _, ok := s.Accepted(ledgertest.Key(t, "b")); !ok {
		t.Error("b is not accepted")
	}
}
