package door

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/identity"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

var now = time.Now()

// newFleet makes a fleet with its folder, which was founded four years ago.
func newFleet(t testing.TB, name string) *keyring.Keyring {
	t.Helper()
	f, err := keyring.Create(name, "ada", now.AddDate(-4, 0, 0))
	if err == nil {
		err = f.Save(filepath.Join(t.TempDir(), name), "")
	}
	if err == nil {
		err = f.RenewOperator(now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// operator makes a certificate of a role, as it was signed at a time.
func operator(t testing.TB, f *keyring.Keyring, role fleet.Role, at time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := fleet.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.SignOperator(csr, "op-"+string(role), role, at)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// newNode makes a node; with a fleet it has that fleet's join.yaml.
func newNode(t testing.TB, f *keyring.Keyring) *identity.Node {
	t.Helper()
	n, err := identity.OpenNode(filepath.Join(t.TempDir(), "identity"))
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		return n
	}
	token, err := f.NewToken(keyring.Terms{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Join(&fleet.JoinFile{Genesis: f.Genesis, Token: token.Token}); err != nil {
		t.Fatal(err)
	}
	return n
}

// adoptNode has the node join its fleet without a server.
func adoptNode(t testing.TB, f *keyring.Keyring, n *identity.Node, name string) {
	t.Helper()
	nonce := make([]byte, api.NonceSize)
	csr, mac, err := n.Answer(nonce)
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.AdoptNode(csr, nonce, mac, name, "", now)
	if err == nil {
		err = n.Adopt(der)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// has fails unless err says all of it.
func has(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		err = errors.New("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}

// timeout is for one call; a machine that is busy gets all of it.
func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
