package install

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"

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
		m.Part = func() (ledger.State, signed.Key, error) { return f.Log.State(), key(name), nil }
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
	stopped.Part = func() (ledger.State, signed.Key, error) {
		return alone.Log.State(), key("n1"), errors.New("two histories")
	}
	if _, err := stopped.update(Order{Source: two.open(t), By: "ada"}); !errors.Is(err, slot.ErrUnauthorised) {
		t.Errorf("a node that has stopped: %v", err)
	}
	unseated := newMachine(t, one, 8*mib)
	in(unseated, f, "n9")
	node, m = key("n9"), unseated
	if _, err := m.update(Order{Source: two.open(t), By: "ada", Permit: permit(two.Digest(board))}); err != nil {
		t.Errorf("a node without a seat, by the permit of the fleet's owner: %v", err)
	}
}
