package fleet

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"
)

// TestNodeCA takes a node CA as NewCA makes it, and none under which nodes could not connect, or that another
// release would read in another way.
func TestNodeCA(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	der, _, err := NewCA("hanse", KindNode, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseNodeCA(der); err != nil {
		t.Error(err)
	}
	if der, _, err = NewCA("hanse", KindOperator, now); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseNodeCA(der); err == nil {
		t.Error("a CA of operators is taken")
	}
	policy, err := x509.OIDFromInts([]uint64{2, 5, 29, 32, 0})
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*x509.Certificate){
		"as it is":        func(*x509.Certificate) {},
		"for clients":     func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] },
		"for anything":    func(c *x509.Certificate) { c.ExtKeyUsage = nil },
		"nobody below it": func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true },
		"for some names":  func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} },
		"also for lists":  func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
		"with a policy":   func(c *x509.Certificate) { c.Policies = []x509.OID{policy} },
		"with another one": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
	} {
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			Subject: pkix.Name{CommonName: "Kogge fleet hanse: node CA"}, NotBefore: now, NotAfter: now.AddDate(20, 0, 0),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: usages(KindNode), MaxPathLen: 1,
		}
		edit(c)
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCA(der); err != nil {
			t.Errorf("%s: it is no CA at all: %v", name, err)
		}
		if _, err := ParseNodeCA(der); (err == nil) != (name == "as it is") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
