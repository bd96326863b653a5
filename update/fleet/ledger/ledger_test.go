package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

// replay verifies entries from genesis on.
func replay(g *fleet.Genesis, entries []Entry) (*Log, error) {
	l := New(g)
	for _, e := range entries {
		if err := l.Append(e); err != nil {
			return l, err
		}
	}
	return l, nil
}

// TestLedger founds a fleet, decides, and verifies all of it from genesis.
func TestLedger(t *testing.T) {
	w := founded(t, 4, 8)
	l, err := replay(w.genesis, w.entries)
	if err != nil {
		t.Fatal(err)
	}
	s := l.State()
	if s.Height != 8 || s.Roster.Votes() != 4 || len(s.Operators) != 2 || s.Tree != w.log.State().Tree {
		t.Errorf("%+v", s)
	}
	if o, ok := s.Operator(s.Operators[1].Key); !ok || o.Name != "bob" {
		t.Errorf("%+v", o)
	}
	if _, ok := s.Operator([]byte("eve")); ok {
		t.Error("eve is an operator")
	}
}

// TestChangedByte changes each byte of each document of a ledger: the record that has it is
// refused, and the ledger is as it was.
func TestChangedByte(t *testing.T) {
	w := founded(t, 4, 3)
	for k, e := range w.entries {
		before, err := replay(w.genesis, w.entries[:k])
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
	w := founded(t, 4, 2)
	n := begun(t, 4)
	carol := Value{Version: 1, Operators: &Operators{Set: []Operator{operator(t, "carol", fleet.RoleReader)}}}
	good := must[Record](t)(w.log.State().Next(carol))
	edited := func(edit func(*Record)) Entry {
		r := good
		edit(&r)
		return w.proved(r, carol, 3)
	}
	certified := func(edit func(*Certificate)) Entry {
		e := w.proved(good, carol, 3)
		c := must[Certificate](t)(ParseCertificate(e.Certificate))
		edit(&c)
		e.Certificate = c.Encode()
		return e
	}
	valued := func(v Value) Entry {
		r := good
		r.Value = v.Hash()
		return w.proved(r, v, 3)
	}
	first := func(edit func(*Founding)) Entry {
		v := n.founding(t)
		edit(v.Founding)
		r := n.log.State().next()
		r.Roster, r.Value = v.Founding.Roster.Hash(), v.Hash()
		return n.proved(r, v, 2)
	}
	hash := document.HashOf([]byte("another"))
	rows := []struct {
		name  string
		where *world
		entry Entry
	}{
		{"good", founded(t, 4, 2), Entry{}},
		{"nothing", w, Entry{}},
		{"another fleet", w, edited(func(r *Record) { r.Fleet = hash })},
		{"a height too low", w, edited(func(r *Record) { r.Height = 2 })},
		{"a height too high", w, edited(func(r *Record) { r.Height = 4 })},
		{"another record before it", w, edited(func(r *Record) { r.Previous = hash })},
		{"another roster", w, edited(func(r *Record) { r.Roster = hash })},
		{"another value", w, edited(func(r *Record) { r.Value = hash })},
		{"of the next version", w, edited(func(r *Record) { r.Version = 2 })},
		{"two votes of four", w, w.proved(good, carol, 2)},
		{"a vote twice", w, certified(func(c *Certificate) { c.Seats[1] = c.Seats[0] })},
		{"a vote of nobody", w, certified(func(c *Certificate) { c.Seats[2].By = 5 })},
		{"a vote of another round", w, certified(func(c *Certificate) { c.Round = 1 })},
		{"a vote cut short", w, certified(func(c *Certificate) { c.Seats[0].Signature = c.Seats[0].Signature[:63] })},
		{"owners above height 1", w, certified(func(c *Certificate) { c.Owners, c.Seats = c.Seats, nil })},
		{"a second founding", w, valued(n.founding(t))},
		{"nothing decided", w, valued(Value{Version: 1})},
		{"two things decided", w, valued(Value{Version: 1, Founding: n.founding(t).Founding, Operators: carol.Operators})},
		{"nobody to remove", w, valued(Value{Version: 1, Operators: &Operators{Remove: []string{"eve"}}})},
		{"the last admin", w, valued(Value{Version: 1, Operators: &Operators{Remove: []string{"ada"}}})},
		{"a name of escapes", w, valued(Value{Version: 1, Operators: &Operators{Remove: []string{"\x1b[2J"}}})},
		{"a key of two", w, valued(Value{Version: 1, Operators: &Operators{Set: []Operator{{"eve", fleet.RoleAdmin, w.log.State().Operators[0].Key}}}})},
		{"no key", w, valued(Value{Version: 1, Operators: &Operators{Set: []Operator{{"eve", fleet.RoleAdmin, nil}}}})},
		{"an unknown role", w, valued(Value{Version: 1, Operators: &Operators{Set: []Operator{{"eve", "god", carol.Operators.Set[0].Key}}}})},
		{"founded", n, n.decided(t, n.founding(t), 1)},
		{"founded by seats", n, func() Entry {
			e := n.decided(t, n.founding(t), 2)
			e.Certificate = Certificate{Version: 1, Seats: []Signature{Sign(1, private("n1"), e.Record)}}.Encode()
			return e
		}()},
		{"a founding of another owner", n, first(func(f *Founding) { f.Roster.Owners[0].Threshold = 1 })},
		{"a weaker rule", n, first(func(f *Founding) { f.Roster.Seats[3].Vote, f.Roster.Rule = false, "two-thirds" })},
		{"a seat that left before", n, first(func(f *Founding) { f.Roster.Given = 5 })},
		{"no member", n, first(func(f *Founding) {
			for i := range 3 {
				f.Roster.Seats[i].Member = false
			}
			f.Cluster = nil
		})},
		{"an address of nobody", n, first(func(f *Founding) { f.Cluster[1].Seat = 4 })},
		{"no operators", n, first(func(f *Founding) { f.Operators = nil })},
	}
	rows[0].entry = rows[0].where.decided(t, carol, 3)
	ids := strings.NewReplacer(w.genesis.ID(), "FLEET", n.genesis.ID(), "FLEET")
	var b strings.Builder
	for _, r := range rows {
		height := r.where.log.State().Height
		err := r.where.log.Append(r.entry)
		if err != nil && (!errors.Is(err, ErrRecord) && !errors.Is(err, ErrValue) && !errors.Is(err, ErrCertificate) || r.where.log.State().Height != height) {
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
	w := founded(t, 1, records)
	for size := int64(1); size <= records; size++ {
		root := must[document.Hash](t)(w.log.Root(size))
		for k := int64(1); k <= size; k++ {
			proof := must[tlog.RecordProof](t)(w.log.ProveRecord(size, k))
			if err := tlog.CheckRecord(proof, size, tlog.Hash(root), k-1, tlog.RecordHash(w.entries[k-1].Record)); err != nil {
				t.Errorf("record %d of %d: %v", k, size, err)
			}
			older := must[document.Hash](t)(w.log.Root(k))
			grown := must[tlog.TreeProof](t)(w.log.ProveTree(size, k))
			if err := tlog.CheckTree(grown, size, tlog.Hash(root), k, tlog.Hash(older)); err != nil {
				t.Errorf("height %d to %d: %v", k, size, err)
			}
		}
	}
	for _, bad := range [][2]int64{{0, 1}, {5, 0}, {5, 6}, {records + 1, 1}} {
		if _, err := w.log.ProveRecord(bad[0], bad[1]); !errors.Is(err, ErrHeight) {
			t.Errorf("record %d of %d: %v", bad[1], bad[0], err)
		}
		if _, err := w.log.ProveTree(bad[0], bad[1]); !errors.Is(err, ErrHeight) {
			t.Errorf("height %d to %d: %v", bad[1], bad[0], err)
		}
	}
	if _, err := w.log.Root(records + 1); !errors.Is(err, ErrHeight) {
		t.Errorf("%v", err)
	}
}

// TestAlone has no founding of a fleet whose genesis is of version 1.
func TestAlone(t *testing.T) {
	raw := must[[]byte](t)(os.ReadFile(filepath.Join("..", "testdata", "v1", "genesis.json")))
	old := New(must[*fleet.Genesis](t)(fleet.ParseGenesis(raw)))
	if r, err := old.State().Next(begun(t, 3).founding(t)); !errors.Is(err, ErrValue) || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestNext refuses, before anybody signs it, what would be refused afterwards.
func TestNext(t *testing.T) {
	w := begun(t, 4)
	for _, v := range []Value{{}, {Version: 1, Founding: &Founding{}}, {Version: 1, Operators: &Operators{Remove: []string{"ada"}}}} {
		if _, err := w.log.State().Next(v); !errors.Is(err, ErrValue) {
			t.Errorf("%+v: %v", v, err)
		}
	}
}

// BenchmarkVerify verifies a ledger of 10,000 records, ten signatures each, as it comes from
// disk.
func BenchmarkVerify(b *testing.B) {
	w := begun(b, 13)
	w.take(b, w.decided(b, w.founding(b), 2))
	bob := operator(b, "bob", fleet.RoleOperator)
	for i := 2; i <= 10000; i++ {
		bob.Role = fleet.Roles[i%2]
		w.take(b, w.decided(b, Value{Version: 1, Operators: &Operators{Set: []Operator{bob}}}, 10))
	}
	for b.Loop() {
		if _, err := replay(w.genesis, w.entries); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzEntry has the three documents of strangers, at height 1 and above.
func FuzzEntry(f *testing.F) {
	w := founded(f, 4, 2)
	for _, e := range w.entries {
		f.Add(e.Record, e.Value, e.Certificate)
	}
	none := New(w.genesis)
	one, err := replay(w.genesis, w.entries[:1])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, record, value, certificate []byte) {
		for _, before := range []*Log{none, one} {
			l := *before
			if err := l.Append(Entry{record, value, certificate}); err == nil && l.State().Height != before.State().Height+1 {
				t.Errorf("height %d", l.State().Height)
			}
		}
		if v, err := ParseValue(value); err == nil && !bytes.Equal(v.Encode(), value) {
			t.Errorf("%q is read, and written as %q", value, v.Encode())
		}
		if c, err := ParseCertificate(certificate); err == nil && !bytes.Equal(c.Encode(), certificate) {
			t.Errorf("%q is read, and written as %q", certificate, c.Encode())
		}
	})
}
