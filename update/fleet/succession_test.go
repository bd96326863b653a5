package fleet_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
)

// successor is a genesis that names a predecessor.
func successor(t testing.TB, of *fleet.Genesis, predecessor string) *fleet.Genesis {
	t.Helper()
	o := fleet.Founding{Name: of.Name, Owners: of.Owners, Threshold: of.Threshold, OperatorCA: of.OperatorCA.Raw, NodeCA: of.NodeCA.Raw, First: of.FirstOperator, Policy: fleet.DefaultPolicy()}
	if predecessor != "" {
		o.Predecessor = ledgertest.Must[document.Hash](t)(document.ParseHash(predecessor))
	}
	return ledgertest.Must[*fleet.Genesis](t)(fleet.NewGenesis(o))
}

func owner(i int) ed25519.PrivateKey { return ledgertest.Private(fmt.Sprintf("owner %d", i)) }

func succession(t testing.TB, of, next *fleet.Genesis, by ...int) []byte {
	t.Helper()
	s := fleet.Succession{Version: 1, Genesis: next.Bytes()}
	for _, i := range by {
		s.Owners = append(s.Owners, signed.Sign(i, owner(i), of.SuccessionBytes(next)))
	}
	return ledgertest.Must[[]byte](t)(s.Encode())
}

// TestSuccessor follows a fleet of version 1 to the one that its owner has signed, and to no
// other.
func TestSuccessor(t *testing.T) {
	two := ledgertest.Begun(t, 3).Genesis
	one := ledgertest.Version1(t, two)
	if !one.Alone() || one.ID() == two.ID() {
		t.Fatal("not a fleet of version 1")
	}
	next := successor(t, one, one.ID())
	good := succession(t, one, next, 1, 3)
	got, err := one.Successor(good)
	if err != nil || got.ID() != next.ID() {
		t.Fatal(got, err)
	}
	if _, err := one.Successor(succession(t, one, next, 1, 2, 3)); err != nil {
		t.Errorf("by all: %v", err)
	}
	for i := range good {
		for _, bit := range []byte{1, 4, 0x20} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			if got, err := one.Successor(bad); err == nil {
				t.Fatalf("byte %d changed by %#x: fleet %s", i, bit, fleet.Short(got.ID()))
			} else if !errors.Is(err, fleet.ErrSuccession) {
				t.Fatal(err)
			}
		}
	}
	other := successor(t, one, one.ID())
	mixed := fleet.Succession{Version: 1, Genesis: other.Bytes()}
	var of fleet.Succession
	if err := json.Unmarshal(good, &of); err != nil {
		t.Fatal(err)
	}
	mixed.Owners = of.Owners
	twice := fleet.Succession{Version: 1, Genesis: next.Bytes(), Owners: []signed.Signature{of.Owners[0], of.Owners[0]}}
	stranger := fleet.Succession{Version: 1, Genesis: next.Bytes(), Owners: []signed.Signature{of.Owners[0], signed.Sign(4, owner(4), one.SuccessionBytes(next))}}
	encode := func(s fleet.Succession) []byte { return ledgertest.Must[[]byte](t)(s.Encode()) }
	for name, raw := range map[string][]byte{
		"one owner": succession(t, one, next, 2), "nobody": succession(t, one, next), "one owner twice": encode(twice), "a fourth owner": encode(stranger),
		"the signatures of another": encode(mixed), "of version 1": succession(t, one, one, 1, 2),
		"of no predecessor": succession(t, one, two, 1, 2), "of another predecessor": succession(t, one, successor(t, one, two.ID()), 1, 2),
		"nothing": nil, "a megabyte": make([]byte, 1<<20),
	} {
		if _, err := one.Successor(raw); !errors.Is(err, fleet.ErrSuccession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, raw := range map[string][]byte{"signed": good, "by nobody": succession(t, one, next)} {
		if got, err := fleet.SuccessorNamed(raw); err != nil || got.ID() != next.ID() {
			t.Errorf("%s: it names %v, %v", name, got, err)
		}
	}
	for name, raw := range map[string][]byte{"nothing": nil, "a megabyte": make([]byte, 1<<20), "a genesis": next.Bytes()} {
		if _, err := fleet.SuccessorNamed(raw); !errors.Is(err, fleet.ErrSuccession) {
			t.Errorf("%s names one: %v", name, err)
		}
	}
	again := successor(t, next, next.ID())
	if _, err := next.Successor(succession(t, next, again, 1, 2)); !errors.Is(err, fleet.ErrSuccession) {
		t.Errorf("a fleet of version 2 has a successor: %v", err)
	}
}

// FuzzSuccessor has a stranger's bytes.
func FuzzSuccessor(f *testing.F) {
	one := ledgertest.Version1(f, ledgertest.Begun(f, 3).Genesis)
	f.Add(succession(f, one, successor(f, one, one.ID()), 1, 2))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if next, err := one.Successor(raw); err == nil && next.Predecessor.String() != one.ID() {
			t.Errorf("it follows on %s", next.Predecessor)
		} else if named, namedErr := fleet.SuccessorNamed(raw); err == nil && (namedErr != nil || named.ID() != next.ID()) {
			t.Errorf("it names %v, %v", named, namedErr)
		}
	})
}
