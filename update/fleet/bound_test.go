package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"testing"
)

// strangers are certificates as somebody makes them who belongs to no fleet, and wants
// the other side to work: n of them that have the CA's name, and a leaf below the first.
func strangers(t testing.TB, g *Genesis, kind PeerKind, n int) (leaf *x509.Certificate, above []*x509.Certificate) {
	t.Helper()
	ca := g.NodeCA
	if kind == KindOperator {
		ca = g.OperatorCA
	}
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(c, parent *x509.Certificate, public any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, public, key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	for i := range n {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), RawSubject: ca.RawSubject, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
		above = append(above, sign(c, &x509.Certificate{RawSubject: ca.RawSubject}, key.Public()))
	}
	p := Peer{Kind: kind, Name: "eve", Fleet: g.ID()}
	if kind == KindOperator {
		p.Role = RoleAdmin
	}
	own := newPublic(t)
	l := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, URIs: []*url.URL{p.uri()}, ExtKeyUsage: usages(kind)}
	return sign(l, &x509.Certificate{RawSubject: ca.RawSubject}, own), above
}

// TestStrangersChains counts what a stranger's certificates cost, in pieces of memory: as
// much with a hundred of them as with none, and less than a good one does.
func TestStrangersChains(t *testing.T) {
	f := found(t, "dev")
	cost := func(leaf *x509.Certificate, above []*x509.Certificate) float64 {
		return testing.AllocsPerRun(1, func() { _, _ = f.Genesis.VerifyPeer(leaf, above, today, true, nil) })
	}
	good := cost(f.admin, nil)
	for _, kind := range []PeerKind{KindOperator, KindNode} {
		for _, n := range []int{0, 1, 2, 99} {
			leaf, above := strangers(t, f.Genesis, kind, n)
			if _, err := f.Genesis.VerifyPeer(leaf, above, today, true, nil); !errors.Is(err, ErrForeign) {
				t.Errorf("%s with %d more: %v", kind, n, err)
			}
			if got := cost(leaf, above); got > 2*good {
				t.Errorf("%s with %d more certificates: %.0f pieces of memory, a good one takes %.0f", kind, n, got, good)
			}
		}
	}
}

// TestOtherKeys refuses certificates for, or by, keys that no CA of a fleet signs, which
// may be dear to verify with.
func TestOtherKeys(t *testing.T) {
	f := found(t, "dev")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	large, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := Peer{Kind: KindNode, Name: "n1", Fleet: f.Genesis.ID()}
	for name, public := range map[string]any{"RSA": rsaKey.Public(), "P-521": large.Public()} {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: today, NotAfter: today, URIs: []*url.URL{p.uri()}, ExtKeyUsage: usages(KindNode)}
		der, err := x509.CreateCertificate(rand.Reader, c, f.Genesis.NodeCA, public, f.nodeCA)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Genesis.VerifyPeer(cert, nil, today, true, nil); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOverByTheFloor refuses what ended before the earliest that the time can be, though
// the clock is not sure, and nothing that only begins later.
func TestOverByTheFloor(t *testing.T) {
	f := found(t, "dev")
	for i, c := range []struct {
		years int // from the certificate's day to the floor
		want  error
	}{{-1, nil}, {0, nil}, {2, ErrExpired}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			floor := today.AddDate(c.years, 0, 0)
			peer, err := f.Genesis.VerifyPeer(f.admin, nil, floor, false, nil)
			if !errors.Is(err, c.want) || peer.Name != "ada" {
				t.Errorf("%d years: %v, %v", c.years, peer, err)
			}
		})
	}
}
