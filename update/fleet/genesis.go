package fleet

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// Genesis is how a fleet began. Every node pins it: the SHA-256 of its bytes is the
// fleet's id, so nothing in it ever changes. It has no nodes in it and no secrets.
// What a Genesis points to is read-only.
type Genesis struct {
	Name          string              // the founder's name for the fleet; fleets are told apart by id
	Owners        []ed25519.PublicKey // numbered from 1, as on the recovery sheets
	Threshold     int                 // how many owners' signatures count as the owner's
	OperatorCA    *x509.Certificate   // signs people, and gives them roles
	NodeCA        *x509.Certificate   // signs nodes, and no role
	FirstOperator *ecdsa.PublicKey    // who made the fleet

	// Policy is what the fleet's decisions may do until one of them changes it. A fleet of
	// version 1, which decides nothing, has the default.
	Policy Policy
	// TUFRoot is the hash of the root.json whose keys make the fleet's releases. Zero: of the
	// one in each node's image.
	TUFRoot document.Hash
	// Predecessor is the id of the fleet of version 1 that became this one. Zero: none.
	Predecessor document.Hash

	version int
	raw     []byte
	id      string
}

// What a genesis may hold.
const (
	MaxGenesis = 64 << 10 // bytes
	maxOwners  = 16
)

// The versions of a genesis. The first one has no policy: its fleet is a set of nodes that
// know the same operators.
const (
	genesisAlone = 1
	genesisFleet = 2
)

// genesisFile is a genesis on disk: this struct as [document.Encode] writes it. No other bytes
// are a genesis.
type genesisFile struct {
	Version       int      `json:"version"`
	Name          string   `json:"name"`
	Random        []byte   `json:"random"` // 32 bytes: two fleets never have one id
	Owners        [][]byte `json:"owners"` // Ed25519, 32 bytes each
	Threshold     int      `json:"threshold"`
	OperatorCA    []byte   `json:"operatorCA"`    // X.509 in DER
	NodeCA        []byte   `json:"nodeCA"`        // X.509 in DER
	FirstOperator []byte   `json:"firstOperator"` // P-256 SubjectPublicKeyInfo in DER

	// From version 2 on.
	Policy      *Policy       `json:"policy,omitempty"`
	TUFRoot     document.Hash `json:"tufRoot,omitzero"`
	Predecessor document.Hash `json:"predecessor,omitzero"`
}

// Founding is what the founders of a fleet say, before it has an id.
type Founding struct {
	Name               string
	Owners             []ed25519.PublicKey
	Threshold          int    // any so many of the owners' keys together are the owner
	OperatorCA, NodeCA []byte // certificates in DER, as [NewCA] makes them
	First              *ecdsa.PublicKey
	Policy             Policy
	TUFRoot            document.Hash
	Predecessor        document.Hash
}

// NewGenesis writes the genesis of a fleet that begins now.
func NewGenesis(o Founding) (*Genesis, error) {
	spki, err := x509.MarshalPKIXPublicKey(o.First)
	if err != nil {
		return nil, fmt.Errorf("first operator's key: %w", err)
	}
	f := genesisFile{
		Version: genesisFleet, Name: o.Name, Random: make([]byte, 32), Threshold: o.Threshold,
		OperatorCA: o.OperatorCA, NodeCA: o.NodeCA, FirstOperator: spki,
		Policy: &o.Policy, TUFRoot: o.TUFRoot, Predecessor: o.Predecessor,
	}
	rand.Read(f.Random) // never fails: it ends the program instead
	for _, k := range o.Owners {
		f.Owners = append(f.Owners, k)
	}
	raw, err := document.Encode(f)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return ParseGenesis(raw)
}

// ParseGenesis reads a genesis and checks all that can be checked without knowing the
// fleet. It is strict: one genesis has one spelling, and only that is accepted.
func ParseGenesis(raw []byte) (*Genesis, error) {
	g, err := parseGenesis(raw)
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	return g, nil
}

func parseGenesis(raw []byte) (*Genesis, error) {
	if len(raw) > MaxGenesis {
		return nil, fmt.Errorf("%d bytes: %d at most", len(raw), MaxGenesis)
	}
	f, err := document.DecodeExact[genesisFile](raw, genesisAlone, genesisFleet)
	if err != nil {
		return nil, err
	}
	g := &Genesis{Name: f.Name, Threshold: f.Threshold, version: f.Version, raw: bytes.Clone(raw)}
	sum := sha256.Sum256(raw)
	g.id = hex.EncodeToString(sum[:])
	if err := CheckName(f.Name); err != nil {
		return nil, fmt.Errorf("field name: %w", err)
	}
	if len(f.Random) != 32 {
		return nil, fmt.Errorf("field random: %d bytes: 32 wanted", len(f.Random))
	}
	if err := g.setOwners(f.Owners); err != nil {
		return nil, err
	}
	if err := g.setPolicy(f); err != nil {
		return nil, err
	}
	if g.OperatorCA, err = ParseCA(f.OperatorCA); err != nil {
		return nil, fmt.Errorf("field operatorCA: %w", err)
	}
	if g.NodeCA, err = ParseCA(f.NodeCA); err != nil {
		return nil, fmt.Errorf("field nodeCA: %w", err)
	}
	if bytes.Equal(g.OperatorCA.RawSubjectPublicKeyInfo, g.NodeCA.RawSubjectPublicKeyInfo) {
		return nil, errors.New("field nodeCA: operator CA and node CA have the same key")
	}
	first, err := x509.ParsePKIXPublicKey(f.FirstOperator)
	if err != nil {
		return nil, fmt.Errorf("field firstOperator: %w", err)
	}
	if g.FirstOperator, err = P256(first); err != nil {
		return nil, fmt.Errorf("field firstOperator: %w", err)
	}
	return g, nil
}

func (g *Genesis) setOwners(keys [][]byte) error {
	if len(keys) < 1 || len(keys) > maxOwners {
		return fmt.Errorf("field owners: %d owner keys: 1 to %d", len(keys), maxOwners)
	}
	if g.Threshold < 1 || g.Threshold > len(keys) {
		return fmt.Errorf("field threshold: %d with %d owner keys", g.Threshold, len(keys))
	}
	for i, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("field owners[%d]: owner key %d has %d bytes: %d wanted", i, i+1, len(k), ed25519.PublicKeySize)
		}
		if before := g.Owner(k); before > 0 {
			return fmt.Errorf("field owners[%d]: owner keys %d and %d are the same", i, before, i+1)
		}
		g.Owners = append(g.Owners, k)
	}
	return nil
}

// setPolicy reads what version 2 has more than version 1.
func (g *Genesis) setPolicy(f genesisFile) error {
	if f.Version == genesisAlone {
		if f.Policy != nil || !f.TUFRoot.IsZero() || !f.Predecessor.IsZero() {
			return fmt.Errorf("field policy: it has one, and its format is version %d", f.Version)
		}
		g.Policy = DefaultPolicy()
		return nil
	}
	if f.Policy == nil {
		return errors.New("field policy: there is none")
	}
	for i, k := range g.Owners {
		if _, err := signed.KeyOf(k); err != nil {
			return fmt.Errorf("field owners[%d]: owner key %d: %w", i, i+1, err)
		}
	}
	g.Policy, g.TUFRoot, g.Predecessor = *f.Policy, f.TUFRoot, f.Predecessor
	if err := g.Policy.check(); err != nil {
		return fmt.Errorf("%w: field policy.%w", ErrPolicy, err)
	}
	return nil
}

// Alone says whether the fleet is of version 1: it has no ledger, and can have none until its
// owners make a genesis of version 2 that follows on it.
func (g *Genesis) Alone() bool { return g.version == genesisAlone }

// Owner is the number of an owner key, from 1; 0: it is none of them.
func (g *Genesis) Owner(key ed25519.PublicKey) int {
	for i, k := range g.Owners {
		if k.Equal(key) {
			return i + 1
		}
	}
	return 0
}

// ParseCA reads the certificate of a CA that signs itself.
func ParseCA(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if _, err := P256(c.PublicKey); err != nil {
		return nil, err
	}
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("it is not a CA certificate")
	}
	if c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
		return nil, fmt.Errorf("signed with %v: ECDSA-SHA256 wanted", c.SignatureAlgorithm)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		return nil, fmt.Errorf("it is not signed by itself: %w", err)
	}
	return c, nil
}

// Bytes are the genesis as it lies on disk, to the last byte. Do not change them.
func (g *Genesis) Bytes() []byte { return g.raw }

// ID is the fleet's id: the SHA-256 of Bytes as 64 hexadecimal digits. [Short] is for
// people.
func (g *Genesis) ID() string { return g.id }

// VerifyPeer says who is at the other end of a connection: [Genesis.Identify], and then
// [Identity.Check]. The error wraps [ErrForeign], [ErrKind], [ErrRevoked] or [ErrExpired].
// Only with ErrExpired is the Peer told all the same: everything else about it holds, and
// a renewal may go on from there.
func (g *Genesis) VerifyPeer(cert *x509.Certificate, intermediates []*x509.Certificate, now time.Time, clockSure bool, revoked func(key string) bool) (Peer, error) {
	i, err := g.Identify(cert, intermediates)
	if err != nil {
		return Peer{}, err
	}
	return i.Check(now, clockSure, revoked)
}

// Identity is whom certificates name whose signatures lead to a CA of the fleet. Of what
// is to be known about a connection it is the part that stays as it is: whoever keeps it
// asks [Identity.Check] again.
type Identity struct {
	Peer
	// NotBefore is when the peer's certificate begins: a day before it was signed. It is
	// the word of whoever holds the CA.
	NotBefore time.Time

	chains [][]*x509.Certificate // those that hold, each from the peer's to the CA's
}

// Identify says whom certificates are of, at no time in particular. cert is the
// certificate that the peer proved to hold (TLS does that) and intermediates what it sent
// besides. A peer is verified by CA and name, never by address.
//
// A stranger decides how many certificates he sends and what is in them. What no
// certificate of a fleet has is refused before any signature is looked at: so at most
// five signatures are verified, all by keys of the one kind that the CAs sign.
//
// The error wraps [ErrForeign] or [ErrKind].
func (g *Genesis) Identify(cert *x509.Certificate, intermediates []*x509.Certificate) (Identity, error) {
	peer, err := PeerOf(cert)
	if err != nil {
		return Identity{}, err
	}
	if peer.Fleet != g.id {
		return Identity{}, fmt.Errorf("%s: %w: it is of fleet %s", peer, ErrForeign, Short(peer.Fleet))
	}
	own, other, most := g.NodeCA, g.OperatorCA, 1 // of the members who will sign nodes
	if peer.Kind == KindOperator {
		own, other, most = other, own, 0
	}
	if len(intermediates) > most {
		return Identity{}, fmt.Errorf("%s: %w: it was sent with %d others, and those of the fleet come with %d at most", peer, ErrForeign, len(intermediates), most)
	}
	for _, c := range append([]*x509.Certificate{cert}, intermediates...) {
		if _, err := P256(c.PublicKey); err != nil {
			return Identity{}, fmt.Errorf("%s: %w: %w", peer, ErrForeign, err)
		}
		if c.SignatureAlgorithm != x509.ECDSAWithSHA256 {
			return Identity{}, fmt.Errorf("%s: %w: signed with %v, and the fleet's CAs sign with ECDSA-SHA256", peer, ErrForeign, c.SignatureAlgorithm)
		}
	}
	chains, err := chainsTo(cert, intermediates, own)
	if err != nil {
		// Of the other CA nothing but its key is tried: it says whose mistake it is.
		if other.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			return Identity{}, fmt.Errorf("%s: %w: the wrong CA signed it", peer, ErrKind)
		}
		return Identity{}, fmt.Errorf("%s: %w: %w", peer, ErrForeign, err)
	}
	if cert.IsCA || !sameUsages(cert.ExtKeyUsage, usages(peer.Kind)) {
		return Identity{}, fmt.Errorf("%s: %w: it is not made for a peer of that kind", peer, ErrKind)
	}
	return Identity{Peer: peer, NotBefore: cert.NotBefore, chains: chains}, nil
}

// Check says whether the identity counts now. It verifies no signature.
//
// now is the time. Where the clock was not set since it booted, clockSure is false, and
// now is the earliest that the time can be: what ended before is over whatever the clock
// says, and what begins later is good, for all that is known. The zero time is of one who
// knows none. revoked says whether a key, as in Peer.Key, was withdrawn; nil: none was.
//
// The error wraps [ErrRevoked] or [ErrExpired]; with ErrExpired the Peer is told too.
func (i Identity) Check(now time.Time, clockSure bool, revoked func(key string) bool) (Peer, error) {
	if revoked != nil && revoked(i.Key) {
		return Peer{}, fmt.Errorf("%s: %w", i.Peer, ErrRevoked)
	}
	why := ""
	for _, chain := range i.chains {
		if why = outOfTime(chain, now, clockSure); why == "" {
			return i.Peer, nil
		}
	}
	return i.Peer, fmt.Errorf("%s: %w: %s", i.Peer, ErrExpired, why)
}

// outOfTime says of the first certificate that is not valid now when it would be; "" if
// all are. Where now is not sure it is the earliest that the time can be.
func outOfTime(chain []*x509.Certificate, now time.Time, sure bool) string {
	for i, c := range chain {
		if now.After(c.NotAfter) || sure && now.Before(c.NotBefore) {
			which, latest := "it is", "now is"
			if i > 0 {
				which = "one above it is"
			}
			if !sure {
				latest = "now is not before"
			}
			return fmt.Sprintf("%s for %s to %s, and %s %s", which,
				c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly), latest, now.UTC().Format(time.DateTime))
		}
	}
	return ""
}

// chainsTo are the chains of signatures that lead from cert to ca, at no time in
// particular. There is at least one, or an error.
func chainsTo(cert *x509.Certificate, intermediates []*x509.Certificate, ca *x509.Certificate) ([][]*x509.Certificate, error) {
	// Copies that are valid always: signatures are checked over the raw bytes.
	middle := time.Unix(0, 0)
	dated := map[*x509.Certificate]*x509.Certificate{} // the certificate of each copy
	timeless := func(c *x509.Certificate) *x509.Certificate {
		copied := *c
		copied.NotBefore, copied.NotAfter = middle, middle
		dated[&copied] = c
		return &copied
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: middle,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, // all our peers have it, and may have more
	}
	options.Roots.AddCert(timeless(ca))
	for _, c := range intermediates {
		options.Intermediates.AddCert(timeless(c))
	}
	chains, err := timeless(cert).Verify(options)
	for _, chain := range chains {
		for i, c := range chain {
			chain[i] = dated[c]
		}
	}
	return chains, err
}

// FirstOperatorID is the fingerprint of the first operator's key, as in Peer.Key.
func (g *Genesis) FirstOperatorID() string { return keyID(g.FirstOperator) }

// OwnerKeyID is the fingerprint of owner key i, from 1, as in Peer.Key.
func (g *Genesis) OwnerKeyID(i int) string { return keyID(g.Owners[i-1]) }

func keyID(public crypto.PublicKey) string {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		panic(err) // a genesis has no keys that cannot be written
	}
	return KeyID(spki)
}
