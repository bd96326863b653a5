package keyring

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"kogge.example/update/fleet"
)

// TestRenewNodeRefused wants that who signs does not sign for just anybody.
func TestRenewNodeRefused(t *testing.T) {
	k, other := savedFleet(t, "dev"), savedFleet(t, "other")
	later := today.AddDate(1, 0, 0)
	for name, cert := range map[string]*x509.Certificate{"another fleet's": other.testNode(t, "n1", today), "an operator's": k.me.Leaf, "one signed by itself": k.Genesis.NodeCA} {
		if _, err := k.RenewNode(cert, later); err == nil {
			t.Errorf("%s was renewed", name)
		}
	}
	invited := *k
	invited.nodeCA = nil
	if _, err := invited.RenewNode(k.testNode(t, "n1", today), later); !errors.Is(err, ErrNoKey) {
		t.Errorf("without the CA's key: %v", err)
	}
}

// TestRenewOperatorClock: a clock that is behind gives nobody an older certificate.
func TestRenewOperatorClock(t *testing.T) {
	k := savedFleet(t, "dev")
	before := k.Certificate().Leaf
	if err := k.RenewOperator(today.AddDate(0, 0, -2)); !errors.Is(err, fleet.ErrClock) || !k.Certificate().Leaf.Equal(before) {
		t.Error(err)
	}
	if err := k.RenewOperator(k.Genesis.OperatorCA.NotAfter.Add(time.Second)); !errors.Is(err, fleet.ErrClock) {
		t.Error(err)
	}
}
