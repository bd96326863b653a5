package identity

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// today is when the fleets of the tests are made.
var today = time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)

// newFleet is the keyring of who founds a fleet, without a folder.
func newFleet(t testing.TB, name string) *keyring.Keyring {
	t.Helper()
	k, err := keyring.Create(name, "ada", today)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func savedFleet(t testing.TB, name string) *keyring.Keyring {
	t.Helper()
	k := newFleet(t, name)
	if err := k.Save(filepath.Join(t.TempDir(), name), ""); err != nil {
		t.Fatal(err)
	}
	return k
}

// request makes a certificate request for a new key.
func request(t testing.TB) []byte {
	t.Helper()
	key, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := fleet.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// otherNode is the certificate of a node with a key of its own.
func otherNode(t testing.TB, k *keyring.Keyring, name string, now time.Time) []byte {
	t.Helper()
	der, err := k.SignNode(request(t), name, now)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// operator is the certificate of an operator of the fleet.
func operator(t testing.TB, k *keyring.Keyring, name string, role fleet.Role) []byte {
	t.Helper()
	der, err := k.SignOperator(request(t), name, role, today)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var errCut = errors.New("power cut")
