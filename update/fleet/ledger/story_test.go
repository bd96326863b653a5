package ledger_test

import (
	"bytes"
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
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/golden"
)

// story is the ledger of a fleet that has decided something of each kind.
func story(t testing.TB) *ledgertest.Fleet {
	w := ledgertest.Founded(t, 7, 1)
	also := func(voter string, more said) said {
		return func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return append(more(w, id), w.Opinion(t, voter, id))
		}
	}
	bare := func(v ledger.Value, evidence ...[]byte) {
		t.Helper()
		if err := w.Decides(t, v.Resting(evidence), evidence); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w, value(func(v *ledger.Value) { v.Members = &decision.Members{Members: []int{1, 2, 3}, Spares: []int{4, 5}} }), nothing)
	must(t, w, list("bob", fleet.RoleOperator), nothing)
	withKaper(t, w) // n8
	p := fleet.DefaultPolicy()
	p.Canaries = 2
	must(t, w, value(func(v *ledger.Value) { v.Policy = &p }), nothing)
	must(t, w, value(func(v *ledger.Value) {
		v.TUFRoot = &decision.TUFRoot{Number: 2, Root: document.HashOf([]byte("root.json"))}
	}), nothing)
	must(t, w, value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: ca(t, "ca-second")} }), nothing)
	must(t, w, lost(t), allows)
	bare(value(func(v *ledger.Value) { v.Settle = &decision.Settle{Record: w.Log.State().Claim.Record} }))
	must(t, w, value(func(v *ledger.Value) { v.Isolate = &decision.Isolate{Seats: []int{6}} }), nothing)
	bare(value(func(v *ledger.Value) { v.DoubleVote = &decision.DoubleVote{Seat: 6} }), contrary(t, "n6")(w, document.Hash{})...)
	must(t, w, unseated(nil, 6), also("n8", nothing))
	new2 := replaced(t, w, 2)
	must(t, w, value(func(v *ledger.Value) {
		v.Replace = &decision.Replace{Old: 2, New: new2, CA: ca(t, "ca-third")}
	}), func(w *ledgertest.Fleet, id document.Hash) [][]byte { return [][]byte{w.Request(t, new2)} })
	must(t, w, value(func(v *ledger.Value) { v.Owners = &decision.Owners{Owner: ledgertest.NewOwner(t, "hanse", "new")} }),
		func(w *ledgertest.Fleet, id document.Hash) [][]byte {
			return [][]byte{w.Answer(id, true, "hanse", "", 1, 3), w.Answer(id, true, "hanse", "new", 1, 2), w.Answer(id, true, "kaper", "new", 1, 2)}
		})
	return w
}

func list(name string, role fleet.Role) ledger.Value {
	return value(func(v *ledger.Value) {
		v.Operators = &ledger.Operators{Set: []ledger.Operator{{Name: name, Role: role, Key: document.HashOf([]byte(name))}}}
	})
}

// TestStory reads a ledger that has a decision of each kind as it was written when the kinds were new: each
// later release has to read it to the same end.
func TestStory(t *testing.T) {
	path := filepath.Join("testdata", "v1", "ledger.txt")
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && golden.Updating() { // it stays
		raw = written(t, story(t))
		err = os.WriteFile(path, raw, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := ledger.OpenFile(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	l, entries, err := ledger.Read(bytes.NewReader(raw), f.Genesis)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		v := ledgertest.Must[ledger.Value](t)(ledger.ParseValue(e.Value))
		c := ledgertest.Must[ledger.Certificate](t)(ledger.ParseCertificate(e.Certificate))
		r := ledgertest.Must[ledger.Record](t)(ledger.ParseRecord(e.Record))
		fmt.Fprintf(&b, "%2d  %s  %-11s  %d signatures, %d objects\n", r.Height, r.Hash().Short(), v.Kind(), len(c.Seats)+len(c.Owners), len(c.Evidence))
	}
	fmt.Fprintf(&b, "root %s\n%s", l.State().Tree.Short(), tell(l.State()))
	golden.Compare(t, filepath.Join("v1", "ledger-told.txt"), b.String())

	// Who wrote it today would come to the same decisions.
	again := story(t)
	if got, want := again.Log.State().Roster, l.State().Roster; got.Hash() != want.Hash() || again.Log.State().Height != l.State().Height {
		t.Errorf("today the roster is\n%s\nand was\n%s", got.Encode(), want.Encode())
	}
	// One changed byte of the evidence, and the record is refused.
	for k, e := range entries {
		if k == 0 {
			continue
		}
		before, err := replay(f.Genesis, entries[:k])
		if err != nil {
			t.Fatal(err)
		}
		c := ledgertest.Must[ledger.Certificate](t)(ledger.ParseCertificate(e.Certificate))
		for i := range c.Evidence {
			bad := c
			bad.Evidence = slices.Clone(c.Evidence)
			bad.Evidence[i] = bytes.Clone(c.Evidence[i])
			bad.Evidence[i][len(bad.Evidence[i])/2] ^= 1
			e.Certificate = bad.Encode()
			if err := before.Append(e); !errors.Is(err, ledger.ErrValue) || before.State().Height != int64(k) {
				t.Errorf("record %d, object %d: %v", k+1, i, err)
			}
		}
	}
}

// TestOwner has the keys that an owner got count from then on, and the old ones no more: for permits and
// orders, too.
func TestOwner(t *testing.T) {
	w := story(t)
	s := w.Log.State()
	message := []byte("message")
	keys := func(generation string) (all []roster.Owner) {
		return []roster.Owner{ledgertest.NewOwner(t, "hanse", generation)}
	}
	if owner, err := s.Owner(); err != nil || !slices.Equal(owner.Keys, keys("new")[0].Keys) {
		t.Errorf("%+v, %v", owner, err)
	}
	a, old := w.Answer(document.HashOf(message), true, "hanse", "new", 1, 2), w.Answer(document.HashOf(message), true, "hanse", "", 1, 2)
	for raw, want := range map[string]bool{string(a): true, string(old): false} {
		parsed := ledgertest.Must[proposal.Answer](t)(proposal.ParseAnswer([]byte(raw)))
		if err := s.SignedByOwner(parsed.Signatures, parsed.Bytes(s.Fleet())); (err == nil) != want {
			t.Errorf("%v", err)
		}
	}
}
