package ledger_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
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
	p384 := ledgertest.Must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), crand.Reader))
	_, edwards, err := ed25519.GenerateKey(crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(edit func(*x509.Certificate), public, private any) []byte {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: w.Genesis.NodeCA.Subject, NotBefore: ledgertest.Today, NotAfter: w.Genesis.NodeCA.NotAfter,
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLen: 1, SubjectKeyId: make([]byte, 20),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		edit(c)
		return ledgertest.Must[[]byte](t)(x509.CreateCertificate(crand.Reader, c, c, public, private))
	}
	same := func(*x509.Certificate) {}
	good := certificate(same, &key.PublicKey, key)
	for name, der := range map[string][]byte{
		"a CA": good, "none": {}, "missing": nil, "something": []byte("x"), "something behind it": append(bytes.Clone(good), 0), "cut": good[:len(good)-1],
		"no CA":                certificate(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = false, 0 }, &key.PublicKey, key),
		"no basic constraints": certificate(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA, c.MaxPathLen = false, false, 0 }, &key.PublicKey, key),
		"no key usage":         certificate(func(c *x509.Certificate) { c.KeyUsage = 0 }, &key.PublicKey, key),
		"another key usage":    certificate(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, &key.PublicKey, key),
		"SHA-384":              certificate(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }, &key.PublicKey, key),
		"P-384":                certificate(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA256 }, &p384.PublicKey, p384),
		"Ed25519":              certificate(same, edwards.Public(), edwards),
		"signed by another":    certificate(same, &key.PublicKey, other),
		"much text":            certificate(func(c *x509.Certificate) { c.Subject.Organization = []string{strings.Repeat("x", 3000)} }, &key.PublicKey, key),
		"path length 0":        certificate(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, &key.PublicKey, key),
		"no path length":       certificate(func(c *x509.Certificate) { c.MaxPathLen = -1 }, &key.PublicKey, key),
		"another name":         certificate(func(c *x509.Certificate) { c.Subject.CommonName += "x" }, &key.PublicKey, key),
		"an earlier end":       certificate(func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(-time.Second) }, &key.PublicKey, key),
		"a later end":          certificate(func(c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(30, 0, 0) }, &key.PublicKey, key),
		"an end for ever":      certificate(func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, &key.PublicKey, key),
		"a large number":       certificate(func(c *x509.Certificate) { c.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 158) }, &key.PublicKey, key),
		"for clients alone":    certificate(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, &key.PublicKey, key),
		"for whatever":         certificate(func(c *x509.Certificate) { c.ExtKeyUsage = nil }, &key.PublicKey, key),
		"two key usages":       certificate(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, &key.PublicKey, key),
		"another key id":       certificate(func(c *x509.Certificate) { c.SubjectKeyId = make([]byte, 19) }, &key.PublicKey, key),
		"for one domain":       certificate(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }, &key.PublicKey, key),
		"an extension more": certificate(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte{5, 0}}}
		}, &key.PublicKey, key),
		"the node CA": w.Genesis.NodeCA.Raw, "the operator CA": w.Genesis.OperatorCA.Raw,
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

// proofs adds double votes that are none, or that were cast in odd ways.
func (p *pile) proofs() {
	w := ledgertest.Founded(p.t, 7, 1)
	s := w.Log.State()
	id, key, rnd := s.Fleet(), ledgertest.Private("n6"), rand.New(rand.NewPCG(8, 1))
	cast := func(seat uint32, key ed25519.PrivateKey, tag string, fields ...[]byte) []byte {
		m := document.Message(tag, fields...)
		return append(binary.BigEndian.AppendUint32(bytes.Clone(m), seat), ed25519.Sign(key, m)...)
	}
	number := func(size int, n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n)[8-size:] }
	add := func(name string, seat int, one, other []byte) {
		if bytes.Compare(one, other) > 0 {
			one, other = other, one
		}
		v := value(func(v *ledger.Value) { v.DoubleVote = &decision.DoubleVote{Seat: seat} })
		for i, objects := range [][][]byte{{document.Message("kogge/double-vote/v1", one, other)}, {document.Message("kogge/double-vote/v1", other, one)}} {
			p.entries(fmt.Sprint("proof: ", name, ", ", i), w, forge(w, v.Encode(), objects))
		}
	}
	h := func() []byte { sum := document.HashOf(number(8, rnd.Uint64())); return sum[:] }
	tags := []string{"kogge/precommit/v1", "kogge/prevote/v1", "kogge/chair-proposal/v1"}
	for kind, tag := range tags {
		fields := func(height, round uint64, more ...[]byte) [][]byte {
			f := [][]byte{id[:], number(8, height), number(4, round), h(), h(), h()}
			if tag == tags[2] && more == nil {
				more = [][]byte{number(4, 0)}
			}
			return append(f, more...)
		}
		good := fields(2, 0)
		one := cast(6, key, tag, good...)
		add(tag, 6, one, cast(6, key, tag, fields(2, 0)...))
		add(tag+" of another seat", 5, one, cast(6, key, tag, fields(2, 0)...))
		add(tag+" of a seat that is not there", 9, one, cast(6, key, tag, fields(2, 0)...))
		add(tag+" the same", 6, one, one)
		add(tag+" by two", 6, one, cast(6, ledgertest.Private("n5"), tag, fields(2, 0)...))
		add(tag+" of two seats", 6, one, cast(5, key, tag, fields(2, 0)...))
		add(tag+" in two rounds", 6, one, cast(6, key, tag, fields(2, 1)...))
		add(tag+" at two heights", 6, one, cast(6, key, tag, fields(3, 0)...))
		add(tag+" of another step", 6, one, cast(6, key, tags[(kind+1)%3], good...))
		add(tag+" of an unknown step", 6, cast(6, key, "kogge/x/v1", good...), cast(6, key, "kogge/x/v1", fields(2, 0)...))
		add(tag+" of a field more", 6, one, cast(6, key, tag, fields(2, 0, number(4, 0), number(4, 1))...))
		for _, f := range [][2]uint64{{0, 0}, {1, 0}, {1 << 62, 0}, {1<<62 + 1, 0}, {1 << 63, 0}, {2, 1 << 30}, {2, 1<<30 + 1}, {2, 1<<32 - 1}} {
			add(fmt.Sprint(tag, " at ", f), 6, cast(6, key, tag, fields(f[0], f[1])...), cast(6, key, tag, fields(f[0], f[1])...))
		}
		for _, seat := range []uint32{0, 1 << 30, 1<<30 + 1, 1<<32 - 1} {
			add(fmt.Sprint(tag, " of seat ", seat), int(seat), cast(seat, key, tag, good...), cast(seat, key, tag, fields(2, 0)...))
		}
		for i := range good {
			bad := slices.Clone(good)
			bad[i] = bad[i][1:]
			add(fmt.Sprint(tag, " with a short field ", i), 6, one, cast(6, key, tag, bad...))
			bad[i] = append([]byte{0}, good[i]...)
			add(fmt.Sprint(tag, " with a long field ", i), 6, one, cast(6, key, tag, bad...))
			bad[i] = bytes.Clone(good[i])
			bad[i][len(bad[i])-1] ^= 1
			add(fmt.Sprint(tag, " with another field ", i), 6, one, cast(6, key, tag, bad...))
		}
		for _, round := range []uint64{0, 3, 4, 5} {
			add(fmt.Sprint(tag, " with a valid round ", round), 6, cast(6, key, tag, fields(2, 4, number(4, round))...), cast(6, key, tag, fields(2, 4, number(4, round))...))
		}
		add(tag+" cut", 6, one, cast(6, key, tag, fields(2, 0)...)[:100])
	}
}

// twins adds what may be there once, twice.
func (p *pile) twins() {
	t := p.t
	w := ledgertest.Founded(t, 7, 1)
	claimed(t, w)
	waits := w.Log.State().Claim.Owner
	ada := w.Log.State().Operators[0].Key
	add := func(name string, v ledger.Value, seats ...roster.Seat) {
		x := example{said: requests(t, seats...)}
		p.entries("twins: "+name, w, forge(w, v.Encode(), rested(t, w, x, v.Encode())))
	}
	for name, edit := range map[string]func(*roster.Seat){
		"none": func(*roster.Seat) {}, "a name": func(s *roster.Seat) { s.Name = "n1" }, "a journal": func(s *roster.Seat) { s.Journal = roster.ID{1} },
		"a key": func(s *roster.Seat) { s.Key = ledgertest.Key(t, "n1") }, "an owner's key": func(s *roster.Seat) { s.Key = ledgertest.Key(t, "owner 1") },
		"a key that an owner waits for": func(s *roster.Seat) { s.Key = waits.Keys[1] },
	} {
		seat := ledgertest.Seat(t, 9, "n9")
		seat.Vote = false
		edit(&seat)
		request := roster.Request{Version: 1, Name: seat.Name, Journal: seat.Journal, Arch: "arm"}
		for _, signer := range []string{"n9", "n1", "owner 1", "owner kaper new 2"} {
			if ledgertest.Key(t, signer) != seat.Key {
				continue
			}
			v := seated("", seat)
			raw := ledgertest.Must[signed.Envelope](t)(signed.Seal(roster.RequestKind, w.Log.State().Fleet(), ledgertest.Private(signer), 1, request.Encode())).Bytes()
			x := example{said: func(*ledgertest.Fleet, document.Hash) [][]byte { return [][]byte{raw} }}
			p.entries("twins: "+name, w, forge(w, v.Encode(), rested(t, w, x, v.Encode())))
		}
	}
	for name, o := range map[string]ledger.Operator{"an operator": {Name: "bob", Role: fleet.RoleReader, Key: document.HashOf(nil)}, "ada's key": {Name: "bob", Role: fleet.RoleReader, Key: ada}} {
		add(name, value(func(v *ledger.Value) { v.Operators = &ledger.Operators{Set: []ledger.Operator{o}} }))
	}
	for name, edit := range map[string]func(*fleet.Policy){
		"twice the bake": func(p *fleet.Policy) { p.Bake, p.LastBake, p.Undecided = 12*60*60e9, 24*60*60e9, 24*60*60e9 },
		"less than that": func(p *fleet.Policy) { p.Bake, p.LastBake, p.Undecided = 12*60*60e9, 24*60*60e9, 24*60*60e9-1 },
	} {
		policy := fleet.DefaultPolicy()
		edit(&policy)
		add(name, value(func(v *ledger.Value) { v.Policy = &policy }))
	}
}
