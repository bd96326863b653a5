package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/golden"
)

// replay verifies entries from genesis on.
func replay(g *fleet.Genesis, entries []ledger.Entry) (*ledger.Log, error) {
	l := ledger.New(g)
	for _, e := range entries {
		if err := l.Append(e); err != nil {
			return l, err
		}
	}
	return l, nil
}

// TestLedger founds a fleet, decides, and verifies all of it from genesis.
func TestLedger(t *testing.T) {
	w := ledgertest.Founded(t, 4, 8)
	l, err := replay(w.Genesis, w.Entries)
	if err != nil {
		t.Fatal(err)
	}
	s := l.State()
	if s.Height != 8 || s.Roster.Votes() != 4 || len(s.Operators) != 2 || s.Tree != w.Log.State().Tree {
		t.Errorf("%+v", s)
	}
	if o, ok := s.Operator(s.Operators[1].Key); !ok || o.Name != "bob" {
		t.Errorf("%+v", o)
	}
	if _, ok := s.Operator(document.HashOf([]byte("eve"))); ok {
		t.Error("eve is an operator")
	}
}

// TestChangedByte changes each byte of each document of a ledger: the record that has it is
// refused, and the ledger is as it was.
func TestChangedByte(t *testing.T) {
	w := ledgertest.Founded(t, 4, 3)
	for k, e := range w.Entries {
		before, err := replay(w.Genesis, w.Entries[:k])
		if err != nil {
			t.Fatal(err)
		}
		state := before.State()
		for name, raw := range map[string]*[]byte{"record": &e.Record, "value": &e.Value, "certificate": &e.Certificate} {
			good := *raw
			for i := range good {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << (i % 7)
				*raw = bad
				err := before.Append(e)
				if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("record %d: ", k+1)) {
					t.Errorf("%s %d, byte %d changed: %v", name, k+1, i, err)
				}
				if s := before.State(); s.Height != state.Height || s.Tree != state.Tree {
					t.Fatalf("%s %d, byte %d changed: the ledger is at height %d", name, k+1, i, s.Height)
				}
			}
			*raw = good
		}
		if err := before.Append(e); err != nil {
			t.Errorf("after all that: %v", err)
		}
	}
}

// TestRefused says what each wrong entry is told.
func TestRefused(t *testing.T) {
	w := ledgertest.Founded(t, 4, 2)
	n := ledgertest.Begun(t, 4)
	carol := ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{ledgertest.Operator(t, "carol", fleet.RoleReader)}}}
	good := ledgertest.Must[ledger.Record](t)(w.Log.State().Next(carol))
	edited := func(edit func(*ledger.Record)) ledger.Entry {
		r := good
		edit(&r)
		return w.Proved(r, carol, 3)
	}
	certified := func(edit func(*ledger.Certificate)) ledger.Entry {
		e := w.Proved(good, carol, 3)
		c := ledgertest.Must[ledger.Certificate](t)(ledger.ParseCertificate(e.Certificate))
		edit(&c)
		e.Certificate = c.Encode()
		return e
	}
	valued := func(v ledger.Value) ledger.Entry {
		v, evidence := w.Proposed(t, v)
		r := good
		r.Value = v.Hash()
		return w.Proved(r, v, 3, evidence...)
	}
	founding := ledgertest.Must[ledger.Record](t)(n.Log.State().Next(n.Founding(t)))
	first := func(edit func(*ledger.Founding)) ledger.Entry {
		v := n.Founding(t)
		edit(v.Founding)
		r := ledger.Record{Version: 1, Fleet: founding.Fleet, Height: 1, Roster: v.Founding.Roster.Hash(), Value: v.Hash()}
		return n.Proved(r, v, 2)
	}
	at := func(i int, address string) func(*ledger.Founding) {
		return func(f *ledger.Founding) { f.Cluster[i].Address = netip.MustParseAddrPort(address) }
	}
	hash := document.HashOf([]byte("another"))
	rows := []struct {
		name  string
		where *ledgertest.Fleet
		entry ledger.Entry
	}{
		{"good", ledgertest.Founded(t, 4, 2), ledger.Entry{}},
		{"nothing", w, ledger.Entry{}},
		{"another fleet", w, edited(func(r *ledger.Record) { r.Fleet = hash })},
		{"a height too low", w, edited(func(r *ledger.Record) { r.Height = 2 })},
		{"a height too high", w, edited(func(r *ledger.Record) { r.Height = 4 })},
		{"another record before it", w, edited(func(r *ledger.Record) { r.Previous = hash })},
		{"another roster", w, edited(func(r *ledger.Record) { r.Roster = hash })},
		{"another value", w, edited(func(r *ledger.Record) { r.Value = hash })},
		{"of the next version", w, edited(func(r *ledger.Record) { r.Version = 2 })},
		{"two votes of four", w, w.Proved(good, carol, 2)},
		{"a vote twice", w, certified(func(c *ledger.Certificate) { c.Seats[1] = c.Seats[0] })},
		{"a vote of nobody", w, certified(func(c *ledger.Certificate) { c.Seats[2].By = 5 })},
		{"a vote of another round", w, certified(func(c *ledger.Certificate) { c.Round = 1 })},
		{"a vote cut short", w, certified(func(c *ledger.Certificate) { c.Seats[0].Signature = c.Seats[0].Signature[:63] })},
		{"owners above height 1", w, certified(func(c *ledger.Certificate) { c.Owners, c.Seats = c.Seats, nil })},
		{"a second founding", w, valued(n.Founding(t))},
		{"nothing decided", w, valued(ledger.Value{Version: 1})},
		{"two things decided", w, valued(ledger.Value{Version: 1, Founding: n.Founding(t).Founding, Operators: carol.Operators})},
		{"what a later release decides", w, func() ledger.Entry {
			raw := []byte("{\n  \"version\": 1,\n  \"rollout\": {}\n}\n")
			r := good
			r.Value = document.HashOf(raw)
			e := w.Proved(r, carol, 3)
			e.Value = raw
			return e
		}()},
		{"nobody to remove", w, valued(ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"eve"}}})},
		{"the last admin", w, valued(ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"ada"}}})},
		{"a name of escapes", w, valued(ledger.Value{Version: 1, Operators: &ledger.Operators{Remove: []string{"\x1b[2J"}}})},
		{"a key of two", w, valued(ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{"eve", fleet.RoleAdmin, w.Log.State().Operators[0].Key}}}})},
		{"no key", w, valued(ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{"eve", fleet.RoleAdmin, document.Hash{}}}}})},
		{"an unknown role", w, valued(ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{"eve", "god", carol.Operators.Set[0].Key}}}})},
		{"founded", n, n.Decided(t, n.Founding(t), 1)},
		{"founded by seats", n, func() ledger.Entry {
			e := n.Decided(t, n.Founding(t), 2)
			e.Certificate = ledger.Certificate{Version: 1, Seats: []signed.Signature{signed.Sign(1, ledgertest.Private("n1"), e.Record)}}.Encode()
			return e
		}()},
		{"a founding of another owner", n, first(func(f *ledger.Founding) { f.Roster.Owners[0].Threshold = 1 })},
		{"a weaker rule", n, first(func(f *ledger.Founding) { f.Roster.Seats[3].Vote, f.Roster.Rule = false, "two-thirds" })},
		{"a seat that left before", n, first(func(f *ledger.Founding) { f.Roster.Given = 5 })},
		{"no member", n, first(func(f *ledger.Founding) {
			for i := range 3 {
				f.Roster.Seats[i].Member = false
			}
			f.Cluster = nil
		})},
		{"an address of nobody", n, first(func(f *ledger.Founding) { f.Cluster[1].Seat = 4 })},
		{"an address of every node", n, first(at(0, "127.0.0.1:7444"))},
		{"an address of a link", n, first(at(0, "[fe80::1%eth0]:7444"))},
		{"an address with escapes", n, first(at(0, "[2001:db8::1%\x1b[2J]:7444"))},
		{"an address in two spellings", n, first(at(0, "[::ffff:192.0.2.1]:7444"))},
		{"an address without a port", n, first(at(0, "192.0.2.1:0"))},
		{"an address of two", n, first(at(2, "192.0.2.1:7444"))},
		{"no operators", n, first(func(f *ledger.Founding) { f.Operators = nil })},
		{"operators without who made the fleet", n, first(func(f *ledger.Founding) { f.Operators[0] = ledgertest.Operator(t, "eve", fleet.RoleAdmin) })},
		{"who made the fleet as reader", n, first(func(f *ledger.Founding) {
			f.Operators[0].Role = fleet.RoleReader
			f.Operators = append(f.Operators, ledgertest.Operator(t, "eve", fleet.RoleAdmin))
		})},
	}
	rows[0].entry = rows[0].where.Decided(t, carol, 3)
	ids := strings.NewReplacer(w.Genesis.ID(), "FLEET", n.Genesis.ID(), "FLEET", fleet.Short(n.Genesis.FirstOperatorID()), "KEY")
	var b strings.Builder
	for _, r := range rows {
		height := r.where.Log.State().Height
		err := r.where.Log.Append(r.entry)
		if err != nil && (!errors.Is(err, ledger.ErrRecord) && !errors.Is(err, ledger.ErrValue) && !errors.Is(err, ledger.ErrCertificate) || r.where.Log.State().Height != height) {
			t.Errorf("%s: %v", r.name, err)
		}
		text := fmt.Sprint(err)
		for _, h := range []document.Hash{good.Previous, good.Roster, good.Value, carol.Hash()} {
			text = strings.ReplaceAll(text, h.String(), "HASH")
		}
		fmt.Fprintf(&b, "%s\n    %s\n", r.name, ids.Replace(text))
	}
	golden.Compare(t, "refused.txt", b.String())
}

// TestProofs has proofs of the tree checked by who knows nothing but its root.
func TestProofs(t *testing.T) {
	const records = 11
	w := ledgertest.Founded(t, 1, records)
	for size := int64(1); size <= records; size++ {
		root := ledgertest.Must[document.Hash](t)(w.Log.Root(size))
		for k := int64(1); k <= size; k++ {
			proof := ledgertest.Must[tlog.RecordProof](t)(w.Log.ProveRecord(size, k))
			if err := tlog.CheckRecord(proof, size, tlog.Hash(root), k-1, tlog.RecordHash(w.Entries[k-1].Record)); err != nil {
				t.Errorf("record %d of %d: %v", k, size, err)
			}
			older := ledgertest.Must[document.Hash](t)(w.Log.Root(k))
			grown := ledgertest.Must[tlog.TreeProof](t)(w.Log.ProveTree(size, k))
			if err := tlog.CheckTree(grown, size, tlog.Hash(root), k, tlog.Hash(older)); err != nil {
				t.Errorf("height %d to %d: %v", k, size, err)
			}
		}
	}
	for _, bad := range [][2]int64{{0, 1}, {5, 0}, {5, 6}, {records + 1, 1}} {
		if _, err := w.Log.ProveRecord(bad[0], bad[1]); !errors.Is(err, ledger.ErrHeight) {
			t.Errorf("record %d of %d: %v", bad[1], bad[0], err)
		}
		if _, err := w.Log.ProveTree(bad[0], bad[1]); !errors.Is(err, ledger.ErrHeight) {
			t.Errorf("height %d to %d: %v", bad[1], bad[0], err)
		}
	}
	if _, err := w.Log.Root(records + 1); !errors.Is(err, ledger.ErrHeight) {
		t.Errorf("%v", err)
	}
}

// TestAlone has no founding of a fleet whose genesis is of version 1.
func TestAlone(t *testing.T) {
	raw := ledgertest.Must[[]byte](t)(os.ReadFile(filepath.Join("..", "testdata", "v1", "genesis.json")))
	old := ledger.New(ledgertest.Must[*fleet.Genesis](t)(fleet.ParseGenesis(raw)))
	if r, err := old.State().Next(ledgertest.Begun(t, 3).Founding(t)); !errors.Is(err, ledger.ErrValue) || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestNext refuses, before anybody signs it, what would be refused afterwards.
func TestNext(t *testing.T) {
	w := ledgertest.Begun(t, 4)
	for _, v := range []ledger.Value{{}, {Version: 1, Founding: &ledger.Founding{}}, {Version: 1, Operators: &ledger.Operators{Remove: []string{"ada"}}}} {
		if _, err := w.Log.State().Next(v); !errors.Is(err, ledger.ErrValue) {
			t.Errorf("%+v: %v", v, err)
		}
	}
}

// TestLarge founds a fleet of as many seats as fit into a value, and refuses one seat too many
// before anybody has signed it.
func TestLarge(t *testing.T) {
	n := ledgertest.Begun(t, 4)
	founding := func(seats int) ledger.Value {
		v := n.Founding(t)
		for i := 5; i <= seats; i++ {
			name := fmt.Sprintf("node-%d", i)
			key := ledgertest.Must[signed.Key](t)(signed.KeyOf(ledgertest.Private(name).Public().(ed25519.PublicKey)))
			v.Founding.Roster.Seats = append(v.Founding.Roster.Seats, roster.Seat{Number: i, Name: name, Key: key, Journal: roster.ID{1, byte(i), byte(i >> 8)}, Owner: "hanse"})
		}
		v.Founding.Roster.Given = seats
		return v
	}
	v := founding(3000)
	e := n.Proved(ledgertest.Must[ledger.Record](t)(n.Log.State().Next(v)), v, 2)
	if err := n.Log.Clone().Append(e); err != nil || len(e.Value) > ledger.MaxEntry {
		t.Errorf("%d bytes: %v", len(e.Value), err)
	}
	v = founding(6000)
	if _, err := n.Log.State().Next(v); !errors.Is(err, ledger.ErrValue) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("6000 seats: %v", err)
	}
}

// TestRosterHash takes the hash of the founded roster from the text of the value, as the page
// says: anybody can, without kogge.
func TestRosterHash(t *testing.T) {
	n := ledgertest.Founded(t, 4, 1)
	r := ledgertest.Must[ledger.Record](t)(ledger.ParseRecord(n.Entries[0].Record))
	_, text, _ := strings.Cut(string(n.Entries[0].Value), "    \"roster\": ")
	text, _, _ = strings.Cut(text, "\n    },\n")
	text = strings.ReplaceAll(text+"\n    }\n", "\n    ", "\n")
	if got := document.HashOf([]byte(text)); got != r.Roster {
		t.Errorf("the roster's hash is %s, and that of its text %s:\n%s", r.Roster, got, text)
	}
}

// BenchmarkVerify verifies a ledger of 10,000 records, ten signatures each, as it comes from
// disk.
func BenchmarkVerify(b *testing.B) {
	w := ledgertest.Begun(b, 13)
	w.Take(b, w.Decided(b, w.Founding(b), 2))
	bob := ledgertest.Operator(b, "bob", fleet.RoleOperator)
	for i := 2; i <= 10000; i++ {
		bob.Role = fleet.Roles[i%2]
		w.Take(b, w.Decided(b, ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{bob}}}, 10))
	}
	for b.Loop() {
		if _, err := replay(w.Genesis, w.Entries); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzEntry has the three documents of strangers, at height 1 and above.
func FuzzEntry(f *testing.F) {
	w := ledgertest.Founded(f, 4, 2)
	for _, e := range w.Entries {
		f.Add(e.Record, e.Value, e.Certificate)
	}
	for _, all := range examples(f) {
		for _, x := range all {
			if x.seats == 4 && x.before == nil {
				first := *w
				first.Log, _ = replay(w.Genesis, w.Entries[:1])
				_, e := x.entry(f, &first, -1)
				f.Add(e.Record, e.Value, e.Certificate)
			}
		}
	}
	none := ledger.New(w.Genesis)
	one, err := replay(w.Genesis, w.Entries[:1])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record, value, certificate []byte) {
		for _, before := range []*ledger.Log{none, one} {
			l := *before
			if err := l.AppendBroken(ledger.Entry{record, value, certificate}); err == nil && l.State().Height != before.State().Height+1 {
				t.Errorf("height %d", l.State().Height)
			}
		}
		if v, err := ledger.ParseValue(value); err == nil && !bytes.Equal(v.Encode(), value) {
			t.Errorf("%q is read, and written as %q", value, v.Encode())
		}
		if c, err := ledger.ParseCertificate(certificate); err == nil && !bytes.Equal(c.Encode(), certificate) {
			t.Errorf("%q is read, and written as %q", certificate, c.Encode())
		}
	})
}
