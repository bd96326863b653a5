package install

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kogge.example/update/armings"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/slot"
)

// TestPermit updates a node of a founded fleet, and brings it back, each by a permit of its
// own; a fleet of one vote needs none.
func TestPermit(t *testing.T) {
	one, two := makeRelease(t, "1.0", 1, wish{}), makeRelease(t, "1.1", 2, wish{})
	f, alone := ledgertest.Founded(t, 4, 1), ledgertest.Founded(t, 1, 1)
	key := func(name string) signed.Key {
		key, err := signed.KeyOf(ledgertest.Private(name).Public().(ed25519.PublicKey))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	in := func(m *machine, f *ledgertest.Fleet, name string) {
		m.write("state/kogge/ledger/1", "")
		m.Ledger = func() (ledger.State, error) { return f.Log.State(), nil }
		m.Seat = func() (signed.Key, error) { return key(name), nil }
	}
	m := newMachine(t, one, 8*mib)
	m.have(two)
	node := key("n2")
	in(m, f, "n2")
	permit := func(release string) []byte {
		slots, err := m.Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p := ledger.Permit{Version: 1, Node: node, Release: release, Arming: slots.NextArming, Height: 1}
		for i := range 2 {
			p.Owners = append(p.Owners, signed.Sign(i+1, ledgertest.Private(fmt.Sprintf("owner %d", i+1)), p.Bytes(f.Log.State().Fleet())))
		}
		return p.Encode()
	}
	unauthorised := func(what string, o Order) {
		t.Helper()
		o.Source, o.By = two.open(t), "ada"
		if _, err := m.update(o); !errors.Is(err, ErrRefused) || !errors.Is(err, slot.ErrUnauthorised) {
			t.Errorf("%s: %v", what, err)
		}
	}
	unauthorised("without a permit", Order{})
	unauthorised("with something else", Order{Permit: []byte("{}")})
	unauthorised("for another release", Order{Permit: permit("sha256:" + strings.Repeat("0", 64))})
	steps, err := m.update(Order{Source: two.open(t), By: "ada", Permit: permit(two.Digest(board))})
	if err != nil || steps != allSteps {
		t.Fatalf("%s, %v", steps, err)
	}
	if v := m.boot(); v != "1.1" {
		t.Fatalf("booted %s", v)
	}
	m.good()
	if err := m.Rollback(t.Context(), Order{When: Now, By: "ada"}, func(Step) {}); !errors.Is(err, slot.ErrUnauthorised) {
		t.Errorf("back without a permit: %v", err)
	}
	slots, err := m.Slots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Rollback(t.Context(), Order{When: Now, By: "ada", Permit: permit(ledger.RootName(slots.Slots[0].RootHash))}, func(Step) {}); err != nil {
		t.Errorf("back by a permit: %v", err)
	}

	// Whether a permit is needed is for the votes to say, and not for the node, or the order.
	for name, c := range map[string]struct {
		fleet *ledgertest.Fleet
		node  string
		order Order
		ok    bool
	}{
		"the only voter":                           {alone, "n1", Order{}, true},
		"a node without a seat beside one":         {alone, "n9", Order{}, true},
		"that with what is no permit":              {alone, "n9", Order{Permit: []byte("x")}, true},
		"a node of a fleet that is not founded":    {ledgertest.Begun(t, 4), "n1", Order{}, true},
		"a node without a seat beside four":        {f, "n9", Order{}, false},
		"that with what is no permit, beside four": {f, "n9", Order{Permit: []byte("x")}, false},
		"that with the permit of another":          {f, "n9", Order{Permit: permit(two.Digest(board))}, false},
	} {
		m := newMachine(t, one, 8*mib)
		in(m, c.fleet, c.node)
		c.order.Source, c.order.By = two.open(t), "ada"
		if _, err := m.update(c.order); (err == nil) != c.ok || err != nil && !errors.Is(err, slot.ErrUnauthorised) {
			t.Errorf("%s: %v", name, err)
		}
	}
	stopped := newMachine(t, one, 8*mib)
	in(stopped, alone, "n1")
	stopped.Ledger = func() (ledger.State, error) { return alone.Log.State(), errors.New("two histories") }
	if _, err := stopped.update(Order{Source: two.open(t), By: "ada"}); !errors.Is(err, slot.ErrUnauthorised) {
		t.Errorf("a node that has stopped: %v", err)
	}
	unseated := newMachine(t, one, 8*mib)
	in(unseated, f, "n9")
	node, m = key("n9"), unseated
	if _, err := m.update(Order{Source: two.open(t), By: "ada", Permit: permit(two.Digest(board))}); err != nil {
		t.Errorf("a node without a seat, by the permit of the fleet's owner: %v", err)
	}
	// The key of the seat is for permits alone.
	keyless := func(f *ledgertest.Fleet) *machine {
		m := newMachine(t, one, 8*mib)
		in(m, f, "n1")
		m.Seat = func() (signed.Key, error) { return "", errors.New("seat.json: it has no whole key") }
		return m
	}
	if _, err := keyless(alone).update(Order{Source: two.open(t), By: "ada"}); err != nil {
		t.Errorf("the only voter, which has lost the key of its seat: %v", err)
	}
	m = keyless(f)
	unauthorised("one of four that has lost it", Order{Permit: permit(two.Digest(board))})
}

// TestLostCount: a node that has lost count of its armings counts anew, and goes on taking
// updates. A permit from before is over.
func TestLostCount(t *testing.T) {
	one, two, three := makeRelease(t, "1.0", 1, wish{}), makeRelease(t, "1.1", 2, wish{}), makeRelease(t, "1.2", 3, wish{})
	f := ledgertest.Founded(t, 4, 1)
	node, err := signed.KeyOf(ledgertest.Private("n2").Public().(ed25519.PublicKey))
	must(t, err)
	lose := func(m *machine) { m.write("state/kogge/update/"+armings.File, "\x00\x00") }
	next := func(m *machine) int64 {
		t.Helper()
		slots, err := m.Slots(t.Context())
		must(t, err)
		return slots.NextArming
	}
	permit := func(r made, arming int64) []byte {
		p := ledger.Permit{Version: 1, Node: node, Release: r.Digest(board), Arming: arming, Height: 1}
		for i := range 2 {
			p.Owners = append(p.Owners, signed.Sign(i+1, ledgertest.Private(fmt.Sprintf("owner %d", i+1)), p.Bytes(f.Log.State().Fleet())))
		}
		return p.Encode()
	}

	lone := newMachine(t, one, 8*mib)
	lone.have(two, three)
	lose(lone)
	if _, err := lone.update(Order{Source: two.open(t), By: "ada"}); err != nil {
		t.Fatalf("a lone node: %v", err)
	}
	lone.boot()
	lone.good()
	lose(lone)
	if err := lone.Rollback(t.Context(), Order{When: Now, By: "ada"}, func(Step) {}); err != nil {
		t.Errorf("a lone node goes back: %v", err)
	}

	m := newMachine(t, one, 8*mib)
	m.have(two, three)
	m.write("state/kogge/ledger/1", "")
	m.Ledger = func() (ledger.State, error) { return f.Log.State(), nil }
	m.Seat = func() (signed.Key, error) { return node, nil }
	before := permit(two, next(m))
	lose(m)
	done, err := m.begin("staging")
	must(t, err)
	if n := next(m); n != 0 {
		t.Errorf("while somebody is at the slots the next one is arming %d", n)
	}
	done()
	at := next(m)
	if at <= 1<<40 || next(m) != at {
		t.Fatalf("the next one is arming %d, and then %d", at, next(m))
	}
	if _, err := m.update(Order{Source: two.open(t), By: "ada", Permit: before}); !errors.Is(err, slot.ErrUnauthorised) {
		t.Errorf("by a permit from before: %v", err)
	}
	if _, err := m.update(Order{Source: two.open(t), By: "ada", Permit: permit(two, at)}); err != nil {
		t.Fatal(err)
	}
	if n := next(m); n != at+1 {
		t.Errorf("after arming %d comes %d", at, n)
	}
}
