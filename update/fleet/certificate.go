package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// Backdate is how long before it was made a certificate counts: a node without a
// battery for its clock starts at the time its image was built.
const Backdate = 24 * time.Hour

// Years of life: a CA is in the genesis and outlives the hardware; a leaf is renewed.
const (
	caYears   = 20
	leafYears = 1
	maxCSR    = 16 << 10
)

// NewKey makes a key for a certificate: ECDSA on P-256.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// NewCA makes a CA that signs itself and may sign peers of one kind. Below a node CA
// one intermediate may stand, for the day when members sign with keys of their own.
func NewCA(fleet string, kind PeerKind, now time.Time) (der []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = NewKey(); err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: fmt.Sprintf("Kogge fleet %s: %s CA", fleet, kind)},
		NotBefore: now.Add(-Backdate), NotAfter: now.AddDate(caYears, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: usages(kind),
		MaxPathLen: 1,
	}
	if kind == KindOperator {
		t.MaxPathLen, t.MaxPathLenZero = 0, true
	}
	der, err = x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return der, key, err
}

// usages are what a certificate of a kind is for. Operators call; nodes also answer.
func usages(kind PeerKind) []x509.ExtKeyUsage {
	if kind == KindOperator {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

func sameUsages(a, b []x509.ExtKeyUsage) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(u x509.ExtKeyUsage) bool { return !slices.Contains(b, u) })
}

// SignPeer makes the certificate of a peer for a year from now, or for as long as its
// CA has left.
func SignPeer(p Peer, key *ecdsa.PublicKey, ca *x509.Certificate, caKey *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	until := now.AddDate(leafYears, 0, 0)
	if until.After(ca.NotAfter) {
		until = ca.NotAfter
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: p.Name}, NotBefore: now.Add(-Backdate), NotAfter: until,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages(p.Kind),
		URIs: []*url.URL{p.uri()},
	}
	if p.Kind == KindNode {
		// For clients that know only host names; ours go by the URI.
		t.DNSNames = []string{p.Name, p.Name + ".local"}
	}
	return x509.CreateCertificate(rand.Reader, t, ca, key, caKey)
}

// RequestKey checks a certificate request in DER: its signature holds and its key is
// ECDSA on P-256. It returns the key and its SubjectPublicKeyInfo. Names that the
// request asks for are ignored: who signs, names.
func RequestKey(csr []byte) (key *ecdsa.PublicKey, spki []byte, err error) {
	if len(csr) > maxCSR {
		return nil, nil, fmt.Errorf("certificate request: %d bytes: %d at most", len(csr), maxCSR)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	if key, err = P256(r.PublicKey); err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	return key, r.RawSubjectPublicKeyInfo, nil
}

// NewRequest makes a certificate request in DER for a key; it names nobody.
func NewRequest(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// P256 wants a public key that is ECDSA on P-256, the one kind that certificates have.
func P256(key any) (*ecdsa.PublicKey, error) {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA key on P-256")
	}
	return k, nil
}
