package install

import (
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
	in := func(m *machine, f *ledgertest.Fleet, seat int) {
		m.write("state/kogge/ledger/1", "")
		m.Part = func() (ledger.State, signed.Key, error) {
			s, _ := f.Log.State().Roster.Seat(seat)
			return f.Log.State(), s.Key, nil
		}
	}
	m := newMachine(t, one, 8*mib)
	m.have(two)
	in(m, f, 2)
	permit := func(release string) []byte {
		slots, err := m.Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p := ledger.Permit{Version: 1, Seat: 2, Release: release, Arming: slots.NextArming, Height: 1}
		for i := range 2 {
			p.Owners = append(p.Owners, ledger.Sign(i+1, ledgertest.Private(fmt.Sprintf("owner %d", i+1)), p.Bytes(f.Log.State().Fleet())))
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

	lone := newMachine(t, one, 8*mib)
	in(lone, alone, 1)
	if _, err := lone.update(Order{Source: two.open(t), By: "ada"}); err != nil {
		t.Errorf("a fleet of one vote: %v", err)
	}
}
