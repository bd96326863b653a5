package fleet

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"testing"
	"time"
)

// founder is who has the keys of a fleet: what an operator's keyring holds, without a
// folder.
type founder struct {
	Genesis            *Genesis
	admin              *x509.Certificate
	operatorCA, nodeCA *ecdsa.PrivateKey
}

// found makes the keys of a fleet and its genesis, with ada as its first admin.
func found(t testing.TB, name string) *founder {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var owners []ed25519.PublicKey
	for range 3 {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		owners = append(owners, public)
	}
	operatorCA, operatorKey, err := NewCA(name, KindOperator, today)
	must(err)
	nodeCA, nodeKey, err := NewCA(name, KindNode, today)
	must(err)
	own, err := NewKey()
	must(err)
	g, err := NewGenesis(Founding{
		Name: name, Owners: owners, Threshold: 2, OperatorCA: operatorCA, NodeCA: nodeCA, First: &own.PublicKey, Policy: DefaultPolicy(),
	})
	must(err)
	f := &founder{Genesis: g, operatorCA: operatorKey, nodeCA: nodeKey}
	f.admin = f.sign(t, Peer{Kind: KindOperator, Name: "ada", Role: RoleAdmin}, &own.PublicKey, today)
	return f
}

// sign makes a peer's certificate with the CA of its kind.
func (f *founder) sign(t testing.TB, p Peer, key *ecdsa.PublicKey, now time.Time) *x509.Certificate {
	t.Helper()
	ca, caKey := f.Genesis.NodeCA, f.nodeCA
	if p.Kind == KindOperator {
		ca, caKey = f.Genesis.OperatorCA, f.operatorCA
	}
	p.Fleet = f.Genesis.ID()
	der, err := SignPeer(p, key, ca, caKey, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// node is the certificate of a node with a key of its own.
func (f *founder) node(t testing.TB, name string, now time.Time) *x509.Certificate {
	t.Helper()
	return f.sign(t, Peer{Kind: KindNode, Name: name}, newPublic(t), now)
}

// operator is the certificate of an operator with a key of his own.
func (f *founder) operator(t testing.TB, name string, role Role, now time.Time) *x509.Certificate {
	t.Helper()
	return f.sign(t, Peer{Kind: KindOperator, Name: name, Role: role}, newPublic(t), now)
}

func newPublic(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// forge makes a certificate that nothing of ours would make.
func forge(t testing.TB, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, edit func(*x509.Certificate), uris ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "forged"}, NotBefore: today.Add(-Backdate), NotAfter: today.AddDate(1, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages(KindNode),
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	if edit != nil {
		edit(c)
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// today is when the fleets of the tests are made.
var today = time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)
