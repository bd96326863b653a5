package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
)

// status asks a node how it is, as any command calls it.
func status(t *testing.T, k *keyring.Keyring, name, address string) error {
	t.Helper()
	return Remote{Keys: k, Name: name, Address: address, Tell: func(Notice) {}}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
		_, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
		return err
	})
}

func nodesOf(t *testing.T, k *keyring.Keyring) map[string]Node {
	t.Helper()
	nodes, err := Nodes(k)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// unmet is the folder of a founded fleet on a computer that has called none of its nodes.
func unmet(t *testing.T, k *keyring.Keyring) *keyring.Keyring {
	t.Helper()
	other := elsewhere(t, k)
	if err := ChangeNodes(other, func(nodes map[string]Node) {
		for name, n := range nodes {
			n.Certified = ""
			nodes[name] = n
		}
	}); err != nil {
		t.Fatal(err)
	}
	return other
}

// TestUnsound: a node whose ledger is damaged or has two histories proves its seat all the same,
// so that its operator can look at it and repair it; nobody founds a fleet by it, or takes records
// from it.
func TestUnsound(t *testing.T) {
	k, s := founded(t, 2, 2)
	_, entries, err := Ledger(k)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.states[0], "ledger", "1")
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := func() ledger.Entry { // another history, by the same owner
		other := elsewhere(t, k)
		for _, name := range []string{ledgerFile, "firsts.json"} {
			if err := os.Remove(filepath.Join(other.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		v, err := ledger.ParseValue(entries[0].Value)
		if err != nil {
			t.Fatal(err)
		}
		v.Founding.Roster.Seats[0].Domain = "attic"
		owner, err := k.OwnerKeys(nil, sheets(t, k)[0])
		if err != nil {
			t.Fatal(err)
		}
		e, err := foundBy(other, v, owner)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	tell := func(n Notice) { t.Errorf("%+v", n) }
	for _, c := range []struct {
		name  string
		spoil func() error
		heals bool
	}{
		{"damaged", func() error { return os.WriteFile(file, sound[:len(sound)-1], 0o600) }, true},
		{"lost", func() error { return os.Remove(file) }, true},
		{"forked", func() error {
			_, err := Give(t.Context(), k, []string{"n1"}, []ledger.Entry{second()}, tell)
			return err
		}, false},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		other := unmet(t, k)
		address := nodesOf(t, other)["n1"].Address
		if err := status(t, other, "n1", address); err != nil {
			t.Errorf("%s: it cannot be asked how it is: %v", c.name, err)
		}
		told, err := Gather(t.Context(), other, []string{"n1", "n2"}, tell)
		if err != nil || !errors.Is(told[0].Err, ErrUnsound) || told[1].Err != nil || !told[0].Answered() {
			t.Errorf("%s: %v, %v", c.name, told, err)
		}
		if all, err := Applicants(t.Context(), other, []string{"n1", "n2"}, tell); !errors.Is(err, ErrUnsound) || all[0].Key != "" || all[1].Key == "" {
			t.Errorf("%s: it founds a fleet: %+v, %v", c.name, all, err)
		}
		err = Remote{Keys: other, Name: "n1", Address: address, Tell: tell}.Call(t.Context(), func(ctx context.Context, c *api.Client) error {
			_, _, err := Fetch(ctx, other, c, "n1")
			return err
		})
		if !errors.Is(err, ErrUnsound) {
			t.Errorf("%s: its ledger is read as if it were whole: %v", c.name, err)
		}
		state, seen, err := Survey(t.Context(), other, tell)
		if err != nil {
			t.Fatal(err)
		}
		h := Judge(state, seen)
		about := func(p Problem) bool { return p.Node == "n1" && strings.Contains(p.What, "not to be relied on") }
		if h.Nodes[0].Standing != StandingDoubt || h.Answering != 1 || !slices.ContainsFunc(h.Problems, about) {
			t.Errorf("%s: %+v", c.name, h)
		}
		told, err = Give(t.Context(), other, []string{"n1"}, entries, tell)
		if err != nil || (told[0].Err == nil) != c.heals {
			t.Errorf("%s: given the records again: %v, %v", c.name, told, err)
		}
		if all, err := Applicants(t.Context(), other, []string{"n1"}, tell); (err == nil && all[0].Height == 1) != c.heals {
			t.Errorf("%s: after that: %+v, %v", c.name, all, err)
		}
	}
}

// TestOtherSeat: a node whose STATE was reset has another key than its seat. It is called again
// once somebody has said that it is the node, by the key that it has now, and nobody else is.
func TestOtherSeat(t *testing.T) {
	k, _ := founded(t, 2, 2)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	seat := nodesOf(t, k)["n1"].Seat
	false1 := func() string { // another one with a certificate for n1
		other := *k
		other.Dir = t.TempDir()
		serveNodes(t, &other, 1, nil)
		return nodesOf(t, &other)["n1"].Address
	}
	reset, thief := false1(), false1()
	stranger := elsewhere(t, k)
	if err := os.Remove(filepath.Join(stranger.Dir, nodesFile)); err != nil {
		t.Fatal(err)
	}
	for name, ring := range map[string]*keyring.Keyring{"who knows n1": k, "who does not": stranger} {
		before := nodesOf(t, ring)
		_, err := Adopt(t.Context(), ring, reset, "", tell)
		other := new(OtherSeat)
		if !errors.As(err, &other) || !errors.Is(err, ErrNotTheSeat) || other.Seat != seat || other.Shown == "" || other.Shown == seat || other.Key() != other.Shown.ID().String() {
			t.Fatalf("%s: %v", name, err)
		}
		if after := nodesOf(t, ring); after["n1"] != before["n1"] {
			t.Errorf("%s: %+v is remembered", name, after["n1"])
		}
		if err := other.Unseat(ring); err != nil {
			t.Fatal(err)
		}
		if is, err := Adopt(t.Context(), ring, reset, "", tell); err != nil || is != (Adopted{Name: "n1", Before: true}) {
			t.Errorf("%s: %+v, %v", name, is, err)
		}
		n := nodesOf(t, ring)["n1"]
		if n.Address != reset || n.Lost != seat || n.Seat != other.Shown {
			t.Errorf("%s: %+v", name, n)
		}
		if err := status(t, ring, "n1", reset); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if all, err := Applicants(t.Context(), ring, []string{"n1"}, tell); err != nil || all[0].Height != 1 {
			t.Errorf("%s: it has not got the ledger: %+v, %v", name, all, err)
		}
		if err := status(t, ring, "n1", thief); !errors.Is(err, api.ErrOtherKey) {
			t.Errorf("%s: a third one is called: %v", name, err)
		}
		if _, err := Adopt(t.Context(), ring, thief, "", tell); !errors.Is(err, ErrNotTheSeat) {
			t.Errorf("%s: a third one is adopted: %v", name, err)
		}
	}
	s, seen, err := Survey(t.Context(), k, tell)
	if err != nil {
		t.Fatal(err)
	}
	if h := Judge(s, seen); h.Nodes[0].Standing != StandingDoubt || h.Answering != 1 {
		t.Errorf("its vote counts: %+v", h)
	}
	// The ledger gives it a new seat: that is its key from then on.
	nodes := nodesOf(t, k)
	s.Roster.Seats[0].Key = nodes["n1"].Seat
	if !seatAll(nodes, s) || nodes["n1"].Lost != "" || nodes["n1"].Seat != s.Roster.Seats[0].Key {
		t.Errorf("%+v", nodes["n1"])
	}
}

// TestKeyless: a node that can show no key at all is known by its TLS key, once somebody has said
// that it is the node.
func TestKeyless(t *testing.T) {
	k, s := founded(t, 2, 2)
	k = unmet(t, k)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	if err := os.WriteFile(filepath.Join(s.states[0], "identity", "seat.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	address := nodesOf(t, k)["n1"].Address
	err := status(t, k, "n1", address)
	other := new(OtherSeat)
	if !errors.As(err, &other) || other.Shown != "" || other.Key() != s.nodes[0].Key() || !strings.Contains(err.Error(), "seat.json") {
		t.Fatal(err)
	}
	if err := other.Unseat(k); err != nil {
		t.Fatal(err)
	}
	if is, err := Adopt(t.Context(), k, address, "", tell); is.Name != "n1" || errors.Is(err, ErrNotTheSeat) {
		t.Error(is, err) // it cannot take the ledger
	}
	if err := status(t, k, "n1", address); err != nil {
		t.Error(err)
	}
	thief := *k
	thief.Dir = t.TempDir()
	serveNodes(t, &thief, 1, nil)
	if err := status(t, k, "n1", nodesOf(t, &thief)["n1"].Address); !errors.Is(err, api.ErrOtherKey) {
		t.Errorf("another one is called: %v", err)
	}
	if _, err := Adopt(t.Context(), k, nodesOf(t, &thief)["n1"].Address, "", tell); !errors.Is(err, ErrNotTheSeat) {
		t.Errorf("another one is adopted: %v", err)
	}
}

// TestSeatsKnown: whatever way a computer comes to know the ledger and a node, it knows the key of
// the node's seat.
func TestSeatsKnown(t *testing.T) {
	k, _ := founded(t, 3, 2)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	want := nodesOf(t, k)
	if want["n1"].Seat == "" || want["n2"].Seat == "" || want["n3"].Seat != "" {
		t.Fatalf("%+v", want)
	}
	seated := func(what string, ring *keyring.Keyring) {
		t.Helper()
		for name, n := range nodesOf(t, ring) {
			if n.Seat != want[name].Seat {
				t.Errorf("%s: %s: seat key %q", what, name, n.Seat)
			}
		}
	}
	unseated := func(ring *keyring.Keyring) {
		t.Helper()
		nodes := nodesOf(t, ring)
		for name, n := range nodes {
			n.Seat, n.Certified = "", ""
			nodes[name] = n
		}
		raw, err := document.Encode(nodes)
		if err == nil {
			err = os.WriteFile(filepath.Join(ring.Dir, nodesFile), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// nodes.json as it was before the ledger came: a cut, or an older copy of the file.
	cut := elsewhere(t, k)
	unseated(cut)
	if _, err := Gather(t.Context(), cut, []string{"n1", "n2"}, tell); err != nil {
		t.Fatal(err)
	}
	seated("after the nodes were asked", cut)
	unseated(cut)
	if err := RememberNode(cut, "n2", Node{Address: want["n2"].Address}); err != nil {
		t.Fatal(err)
	}
	seated("a node more", cut)
	if err := os.Remove(filepath.Join(cut.Dir, nodesFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(t.Context(), cut, want["n1"].Address, "", tell); err != nil {
		t.Fatal(err)
	}
	seated("a node that another computer adopted", cut)
	// The ledger cannot be written: the seats' keys are there before it.
	late := elsewhere(t, k)
	unseated(late)
	if err := os.Remove(filepath.Join(late.Dir, ledgerFile)); err != nil {
		t.Fatal(err)
	}
	l, entries, err := Ledger(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(late.Dir, ledgerFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := late.Alone(func() error { return writeLedger(late, l.State(), entries) }); err == nil {
		t.Fatal("a folder is written over")
	}
	seated("a cut before the ledger", late)
}

// TestRenewCertifies: who has not shown the key of the node's seat gets no certificate, though
// this computer has never called the node; the node gets one though its own is over.
func TestRenewCertifies(t *testing.T) {
	then := time.Now().AddDate(0, -36, 0)
	k, err := keyring.Create("hanse", "ada", then)
	if err == nil {
		err = k.Save(filepath.Join(t.TempDir(), "hanse"), "")
	}
	if err == nil {
		err = k.RenewOperator(time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
	s := serving(t, k, 1, nil)
	s.found(t, k, 1)
	false1 := *k
	false1.Dir = t.TempDir()
	over := servingSince(t, &false1, 1, nil, then)
	k = unmet(t, k)
	r := Remote{Keys: k, Name: "n1", Address: nodesOf(t, &false1)["n1"].Address, Tell: func(Notice) {}}
	before := over.nodes[0].Certificate().Leaf.NotAfter
	if _, err := r.Renew(t.Context()); !errors.Is(err, ErrNotTheSeat) {
		t.Errorf("another one's certificate is renewed: %v", err)
	}
	if err := ChangeNodes(k, func(nodes map[string]Node) {
		n := nodes["n1"]
		n.Until = before // it is time
		nodes["n1"] = n
	}); err != nil {
		t.Fatal(err)
	}
	if err := status(t, k, "n1", r.Address); !errors.Is(err, ErrNotTheSeat) {
		t.Errorf("another one is called: %v", err)
	}
	if until := over.nodes[0].Certificate().Leaf.NotAfter; !until.Equal(before) {
		t.Errorf("another one's certificate is good until %s", until)
	}
	// The same seat, with a certificate that is over.
	if err := (&OtherSeat{Node: "n1", Seat: nodesOf(t, k)["n1"].Seat, Shown: shownBy(t, over.states[0])}).Unseat(k); err != nil {
		t.Fatal(err)
	}
	if next, err := r.Renew(t.Context()); err != nil || !next.NotAfter.After(time.Now()) {
		t.Errorf("the node's certificate is not renewed: %v", err)
	}
	if err := status(t, k, "n1", r.Address); err != nil {
		t.Error(err)
	}
}

// shownBy is the seat's key of a node, by its STATE.
func shownBy(t *testing.T, state string) signed.Key {
	t.Helper()
	s, err := identity.OpenSeat(filepath.Join(state, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	return s.Key
}

// TestAdoptLearns: a node that is adopted on a computer that knows of no founding gets the ledger
// from another node; where none answers, that is said.
func TestAdoptLearns(t *testing.T) {
	k, s := founded(t, 3, 2)
	tell := func(n Notice) { t.Errorf("%+v", n) }
	unknowing := func() *keyring.Keyring {
		t.Helper()
		other := elsewhere(t, k)
		if err := os.Remove(filepath.Join(other.Dir, ledgerFile)); err != nil {
			t.Fatal(err)
		}
		return other
	}
	third := nodesOf(t, k)["n3"].Address
	first, second := unknowing(), unknowing()
	if is, err := Adopt(t.Context(), first, third, "", tell); err != nil || is.Unasked {
		t.Errorf("%+v, %v", is, err)
	}
	if l, _, err := Ledger(first); err != nil || l.State().Height != 1 {
		t.Errorf("this computer knows of no founding: %v", err)
	}
	if all, err := Applicants(t.Context(), first, []string{"n3"}, tell); err != nil || all[0].Height != 1 {
		t.Errorf("the node knows of no founding: %+v, %v", all, err)
	}
	if err := os.RemoveAll(filepath.Join(s.states[2], "ledger")); err != nil {
		t.Fatal(err)
	}
	s.stop[0]()
	s.stop[1]()
	if is, err := Adopt(t.Context(), second, third, "", tell); err != nil || !is.Unasked {
		t.Errorf("nobody else answers: %+v, %v", is, err)
	}
}

// TestAnswered tells a node that was reached from one that was not.
func TestAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"off":                 {connect.NewError(connect.CodeUnavailable, errors.New("connection refused")), false},
		"too slow":            {connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded), false},
		"not allowed":         {connect.NewWireError(connect.CodePermissionDenied, errors.New("no")), true},
		"broken":              {connect.NewWireError(connect.CodeInternal, errors.New("no")), true},
		"full":                {connect.NewWireError(connect.CodeResourceExhausted, errors.New("no")), true},
		"starting":            {connect.NewWireError(connect.CodeUnavailable, errors.New("no")), true},
		"of an older release": {connect.NewWireError(connect.CodeUnimplemented, errors.New("no")), false},
		"damaged":             {ErrUnsound, true},
		"talking nonsense":    {ledger.ErrRecord, true},
	} {
		if got := (Told{Err: c.err}).Answered(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
