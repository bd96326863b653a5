package keyring

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/update/fleet"
)

func newFleet(t testing.TB, name string) *Keyring {
	t.Helper()
	k, err := Create(name, "ada", today)
	if err != nil {
		t.Fatal(err)
	}
	k.work = quickWork
	return k
}

// request makes a key and a certificate request for it.
func request(t testing.TB) (csr []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := fleet.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if csr, err = fleet.NewRequest(key); err != nil {
		t.Fatal(err)
	}
	return csr, key
}

func parse(t testing.TB, der []byte, err error) *x509.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (k *Keyring) testNode(t testing.TB, name string, now time.Time) *x509.Certificate {
	t.Helper()
	csr, _ := request(t)
	der, err := k.SignNode(csr, name, now)
	return parse(t, der, err)
}

func savedFleet(t testing.TB, name string) *Keyring {
	t.Helper()
	k := newFleet(t, name)
	if err := k.Save(filepath.Join(t.TempDir(), name), ""); err != nil {
		t.Fatal(err)
	}
	return k
}

// quickWork is scrypt's N for tests, which protect nothing.
const quickWork = 4

// today is when the fleets of the tests are made.
var today = time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)

func second[T any](_ T, err error) error { return err }

var errCut = errors.New("power cut")

// knownToken is the token of 32 bytes 0, 1, 2 ….
func knownToken(t testing.TB) fleet.Token {
	t.Helper()
	token, err := fleet.ParseToken(knownText)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const knownText = "kogge-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dyp5clio"
