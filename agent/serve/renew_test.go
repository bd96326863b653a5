package serve

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// adoptedAt makes a node that was adopted at a time.
func adoptedAt(t *testing.T, f *keyring.Keyring, name string, at time.Time) *identity.Node {
	t.Helper()
	n := newNode(t, f)
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.SignNode(csr, name, at)
	if err == nil {
		err = n.Adopt(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRenew reaches a node whose certificate has been over for two years, whatever its
// own clock says.
func TestRenew(t *testing.T) {
	for name, clock := range map[string]struct {
		sure bool
		now  time.Time
	}{
		"its clock is right":                {true, now},
		"its clock starts in 1970":          {false, time.Unix(0, 0)},
		"it takes its clock for right":      {true, now.AddDate(5, 0, 0)},
		"and it is before the fleet's time": {true, time.Unix(0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, "hanse")
			n := adoptedAt(t, f, "n1", now.AddDate(-3, 0, 0))
			before := n.Certificate().Leaf
			address := start(t, n, func(c *Config) {
				c.ClockSure = func() bool { return clock.sure }
				c.Now = func() time.Time { return clock.now }
			})
			status := func() error {
				c := api.Dial(address, "n1", f.Genesis, f.Certificate())
				defer c.Close()
				_, err := c.Status(timeout(t), connect.NewRequest(&apiv1.StatusRequest{}))
				if shown := c.Shown(); shown == nil || !shown.Equal(n.Certificate().Leaf) {
					t.Errorf("shown was %v", shown)
				}
				return err
			}
			if err := status(); !errors.Is(err, fleet.ErrExpired) {
				t.Fatalf("a certificate that is over: %v", err)
			}
			sign := func(old *x509.Certificate) ([]byte, error) { return f.RenewNode(old, now) }
			next, err := api.Renew(timeout(t), address, "n1", f.Genesis, f.Certificate(), sign)
			if err != nil {
				t.Fatal(err)
			}
			if leaf := n.Certificate().Leaf; !leaf.Equal(next) || leaf.Equal(before) || n.Name() != "n1" {
				t.Errorf("it has %s", leaf.NotAfter)
			}
			err = status()
			if clock.sure && clock.now != now {
				has(t, err, "your certificate", "not valid now") // its clock refuses all but a renewal
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRenewRefused: a renewal changes nothing but how long a certificate is good.
func TestRenewRefused(t *testing.T) {
	f, other := newFleet(t, "hanse"), newFleet(t, "other")
	n := adoptedAt(t, f, "n1", now.AddDate(0, -10, 0))
	address := start(t, n, nil)
	before := n.Certificate().Leaf
	sign := func(old *x509.Certificate) ([]byte, error) { return f.RenewNode(old, now) }
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	as := func(f *keyring.Keyring, name string) func(*x509.Certificate) ([]byte, error) {
		return func(*x509.Certificate) ([]byte, error) { return f.SignNode(csr, name, now) }
	}
	for name, c := range map[string]struct {
		node string
		who  fleet.Role
		sign func(*x509.Certificate) ([]byte, error)
		want string
	}{
		"another node answers": {"n2", fleet.RoleAdmin, sign, "another node answers there: n1"},
		"by an operator":       {"n1", fleet.RoleOperator, sign, "this needs admin"},
		"another name":         {"n1", fleet.RoleAdmin, as(f, "n2"), "not a renewal: it is for node n2"},
		"another fleet":        {"n1", fleet.RoleAdmin, as(other, "n1"), "not a certificate of this fleet"},
		"an older one": {"n1", fleet.RoleAdmin, func(*x509.Certificate) ([]byte, error) {
			return f.SignNode(csr, "n1", now.AddDate(0, -11, 0))
		}, "not a renewal: it is good until"},
		"the key is missing": {"n1", fleet.RoleAdmin, func(*x509.Certificate) ([]byte, error) { return nil, keyring.ErrNoKey }, "the key is not in this folder"},
	} {
		_, err := api.Renew(timeout(t), address, c.node, f.Genesis, operator(t, f, c.who, now), c.sign)
		if has(t, err, c.want); !n.Certificate().Leaf.Equal(before) || n.Name() != "n1" {
			t.Errorf("%s: it has another certificate", name)
		}
	}
	stranger := start(t, newNode(t, f), nil)
	_, err = api.Renew(timeout(t), stranger, "n1", f.Genesis, f.Certificate(), sign)
	has(t, err, "not a certificate of this fleet")
	der, err := sign(before)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first answer may be lost
		if _, err := api.Renew(timeout(t), address, "n1", f.Genesis, f.Certificate(), func(*x509.Certificate) ([]byte, error) { return der, nil }); err != nil {
			t.Error(err)
		}
	}
}
