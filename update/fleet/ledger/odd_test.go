package ledger_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// oddSignatures are signatures that some verifiers of Ed25519 take, and others do not.
func oddSignatures(c ledger.Certificate, owners bool) map[string][]byte {
	list := c.Seats
	if owners {
		list = c.Owners
	}
	fits := list[0].Signature
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	little := func(n *big.Int) []byte {
		b := n.FillBytes(make([]byte, 32))
		slices.Reverse(b)
		return b
	}
	s := bytes.Clone(fits[32:])
	slices.Reverse(s)
	more := new(big.Int).Add(new(big.Int).SetBytes(s), order)
	identity, again := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32) // 1, and 1 + p, which is no canonical 1
	identity[0], again[0], again[31] = 1, 0xee, 0x7f
	zero := make([]byte, 32)
	return map[string][]byte{
		"with S above the order": slices.Concat(fits[:32], little(more)),
		"with S the order":       slices.Concat(fits[:32], little(order)),
		"with a high bit of S":   slices.Concat(fits[:63], []byte{fits[63] | 0x80}),
		"with S 0":               slices.Concat(fits[:32], zero),
		"of the identity":        slices.Concat(identity, zero),
		"of it, not canonical":   slices.Concat(again, zero),
		"of zeros":               slices.Concat(zero, zero),
		"with the sign of R":     slices.Concat(fits[:31], []byte{fits[31] ^ 0x80}, fits[32:]),
		"of 63 bytes":            fits[:63],
		"of 65 bytes":            append(bytes.Clone(fits), 0),
		"of no bytes":            {},
		"missing":                nil,
	}
}

// keys adds seats and owners with keys that nobody may have.
func (p *pile) keys() {
	unhex := func(digits string) []byte {
		return ledgertest.Must[[]byte](p.t)(hex.DecodeString(digits))
	}
	odd := map[string][]byte{"zero": make([]byte, 32), "p": unhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), "p with the sign": unhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")}
	for _, small := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0200000000000000000000000000000000000000000000000000000000000000", "ebffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		k := unhex(small)
		odd[small] = k
		k = bytes.Clone(k)
		k[31] |= 0x80
		odd[small+" with the sign"] = k
	}
	for name, k := range odd {
		for _, algorithm := range []byte{0, 1, 2} {
			text := base64.StdEncoding.EncodeToString(append([]byte{algorithm}, k...))
			w := ledgertest.Begun(p.t, 3)
			plain := w.Founding(p.t).Encode()
			n3 := base64.StdEncoding.EncodeToString([]byte(ledgertest.Key(p.t, "n3")))
			bad := bytes.Replace(plain, []byte(n3), []byte(text), 1)
			e := forge(w, bad, nil)
			if read, err := ledger.ParseValue(bad); err != nil { // the record names the roster that there would be
				r := ledgertest.Must[ledger.Record](p.t)(ledger.ParseRecord(e.Record))
				r.Roster = rosterOf(p.t, bad)
				e = resign(w, r, bad, nil, false)
			} else if read.Founding == nil {
				p.t.Fatal("no founding")
			}
			p.entries(fmt.Sprintf("a seat of key %d %s", algorithm, name), w, e)
		}
	}
}

// rosterOf is the hash of the founding roster in a value that cannot be read.
func rosterOf(t testing.TB, value []byte) document.Hash {
	_, text, found := bytes.Cut(value, []byte("\n    \"roster\": "))
	text, _, end := bytes.Cut(text, []byte("\n    },\n"))
	if !found || !end {
		t.Fatal("no roster")
	}
	return document.HashOf(append(bytes.ReplaceAll(text, []byte("\n    "), []byte("\n")), "\n}\n"...))
}

// cas adds node CAs that are none, or that the fleet had.
func (p *pile) cas() {
	t := p.t
	w := ledgertest.Founded(t, 4, 1)
	key, other := ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey()), ledgertest.Must[*ecdsa.PrivateKey](t)(fleet.NewKey())
	p384 := ledgertest.Must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(edit func(*x509.Certificate), public, private any) []byte {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "CA"}, NotBefore: ledgertest.Today, NotAfter: ledgertest.Today.Add(time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
		edit(c)
		return ledgertest.Must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, c, public, private))
	}
	same := func(*x509.Certificate) {}
	good := certificate(same, &key.PublicKey, key)
	for name, der := range map[string][]byte{
		"a CA": good, "none": {}, "missing": nil, "something": []byte("x"), "something behind it": append(bytes.Clone(good), 0), "cut": good[:len(good)-1],
		"no CA":                certificate(func(c *x509.Certificate) { c.IsCA = false }, &key.PublicKey, key),
		"no basic constraints": certificate(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false }, &key.PublicKey, key),
		"no key usage":         certificate(func(c *x509.Certificate) { c.KeyUsage = 0 }, &key.PublicKey, key),
		"another key usage":    certificate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, &key.PublicKey, key),
		"SHA-384":              certificate(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }, &key.PublicKey, key),
		"P-384":                certificate(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA256 }, &p384.PublicKey, p384),
		"Ed25519":              certificate(same, edwards.Public(), edwards),
		"signed by another":    certificate(same, &key.PublicKey, other),
		"much text":            certificate(func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 3000)} }, &key.PublicKey, key),
		"path length":          certificate(func(c *x509.Certificate) { c.MaxPathLenZero = true }, &key.PublicKey, key),
		"the node CA":          w.Genesis.NodeCA.Raw, "the operator CA": w.Genesis.OperatorCA.Raw,
		"a byte changed": func() []byte { b := bytes.Clone(good); b[len(b)-3] ^= 1; return b }(),
	} {
		v := value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: der} })
		p.entries("ca: "+name, w, forge(w, v.Encode(), rested(t, w, example{said: nothing}, v.Encode())))
	}
	for i := range 19 { // the oldest of the former ones is forgotten
		v := value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: ledgertest.NewNodeCA(t)} })
		must(t, w, v, nothing)
		back := value(func(v *ledger.Value) { v.CA = &decision.CA{Certificate: w.Genesis.NodeCA.Raw} })
		p.entries(fmt.Sprintf("ca: the genesis' after %d others", i+1), w, forge(w, back.Encode(), rested(t, w, example{said: nothing}, back.Encode())))
	}
}
