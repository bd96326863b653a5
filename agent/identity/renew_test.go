package identity

import (
	"crypto/x509"
	"errors"
	"maps"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// TestRenewNode moves the clock of who signs over all the life of a fleet.
func TestRenewNode(t *testing.T) {
	f, n := savedFleet(t, "dev"), openedNode(t, t.TempDir())
	adopted(t, f, n, "n1")
	old := n.Certificate().Leaf
	for _, c := range []struct {
		name string
		now  time.Time
		due  bool
		is   error
	}{
		{"the moment it was made", today, false, nil},
		{"the same moment, by a clock that is two days behind", today.AddDate(0, 0, -2), false, fleet.ErrClock},
		{"a clock that starts in 1970", time.Unix(0, 0), false, fleet.ErrClock},
		{"a clock an hour behind: no longer life", today.Add(-time.Hour), false, fleet.ErrNoRenewal},
		{"after half a year", today.AddDate(0, 6, 0), false, nil},
		{"after nine months", today.AddDate(0, 9, 0), true, nil},
		{"after three years", today.AddDate(3, 0, 0), true, nil},
		{"in the CA's last month", f.Genesis.NodeCA.NotAfter.AddDate(0, -1, 0), true, nil},
		{"when the CA is over", f.Genesis.NodeCA.NotAfter.Add(time.Second), true, fleet.ErrClock},
	} {
		if due := fleet.RenewDue(old, f.Genesis.NodeCA, c.now); due != c.due {
			t.Errorf("%s: due %v", c.name, due)
		}
		der, err := f.RenewNode(old, c.now)
		if !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", c.name, err, c.is)
		}
		if err != nil {
			continue
		}
		next, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if peer, err := f.Genesis.VerifyPeer(next, nil, c.now, true, nil); err != nil || peer.Name != "n1" || peer.Key != n.Key() {
			t.Errorf("%s: %v, %v", c.name, peer, err)
		}
		if next.Equal(old) != (c.now == today) {
			t.Errorf("%s: it is the old one", c.name)
		}
		if next.NotAfter.After(f.Genesis.NodeCA.NotAfter) {
			t.Errorf("%s: it outlives the CA", c.name)
		}
	}
	// One that ends with its CA is not due: there is no more to have.
	end := f.Genesis.NodeCA.NotAfter
	last, err := f.RenewNode(old, end.AddDate(0, -1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Renew(last); err != nil || fleet.RenewDue(n.Certificate().Leaf, f.Genesis.NodeCA, end.Add(-time.Hour)) {
		t.Errorf("the last certificate of the CA: %v", err)
	}
}

// TestRenewRefused offers certificates that do not follow on the one before.
func TestRenewRefused(t *testing.T) {
	f, other, n := savedFleet(t, "dev"), savedFleet(t, "other"), openedNode(t, t.TempDir())
	later := today.AddDate(1, 0, 0)
	if err := n.Renew(otherNode(t, f, "n1", later)); !errors.Is(err, fleet.ErrNoRenewal) {
		t.Errorf("a node of no fleet: %v", err)
	}
	adopted(t, f, n, "n1")
	own := n.Certificate().Leaf
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	signed := func(f *keyring.Keyring, name string, at time.Time) []byte {
		der, err := f.SignNode(csr, name, at)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	operator, err := f.SignOperator(csr, "n1", fleet.RoleAdmin, later)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		der []byte
		is  error
	}{
		"the same":           {own.Raw, fleet.ErrNoRenewal},
		"an earlier one":     {signed(f, "n1", today.Add(-time.Hour)), fleet.ErrNoRenewal},
		"another name":       {signed(f, "n2", later), fleet.ErrNoRenewal},
		"another fleet":      {signed(other, "n1", later), fleet.ErrForeign},
		"an operator's":      {operator, fleet.ErrKind},
		"another key":        {otherNode(t, f, "n1", later), nil},
		"none":               {nil, nil},
		"garbage":            {[]byte("certificate"), nil},
		"signed by itself":   {n.self.Certificate[0], fleet.ErrForeign},
		"one of an operator": {f.Certificate().Certificate[0], fleet.ErrKind},
	} {
		if err := n.Renew(c.der); err == nil || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want %v", name, err, c.is)
		}
	}
	for name, der := range map[string][]byte{"another name": signed(f, "n2", later), "a later one": signed(f, "n1", later)} {
		if err := n.Adopt(der); !errors.Is(err, ErrAdopted) {
			t.Errorf("adopted anew with %s: %v", name, err)
		}
	}
	if err := n.Adopt(own.Raw); err != nil {
		t.Errorf("the certificate once more, whose answer was lost: %v", err)
	}
	if n.Name() != "n1" || !n.Certificate().Leaf.Equal(own) {
		t.Errorf("it is %v", n)
	}
}

// TestRenewPowerCut cuts the power while a node takes a renewal: it has the old
// certificate or the new one.
func TestRenewPowerCut(t *testing.T) {
	f := savedFleet(t, "dev")
	m := &memoryFiles{disk: make(map[string]string), left: 100}
	n, err := openNode(m)
	if err != nil {
		t.Fatal(err)
	}
	adopted(t, f, n, "n1")
	old := n.Certificate().Leaf
	der, err := f.RenewNode(old, today.AddDate(2, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, lands := range []bool{false, true} {
		m := &memoryFiles{disk: maps.Clone(m.disk), left: 0, lands: lands}
		n, err := openNode(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Renew(der); !errors.Is(err, errCut) || !n.Certificate().Leaf.Equal(old) {
			t.Errorf("lands=%v: %v", lands, err)
		}
		if n, err = openNode(m); err != nil || n.Name() != "n1" || n.Certificate().Leaf.Equal(old) == lands {
			t.Errorf("lands=%v: after the cut: %v, %v", lands, n, err)
		}
	}
}
