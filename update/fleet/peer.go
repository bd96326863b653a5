// Package fleet is what a fleet is, before any program carries it out: how it began, who
// belongs to it, and what its certificates and tokens mean. Here are pure rules, which
// whoever sits below the programs (update/slot too) may ask.
//
// In come bytes that somebody else wrote (a genesis, a certificate, a token), keys, and
// the time; out go the same in words: a [Genesis], the [Peer] that a certificate names,
// what a [Role] includes, a new certificate. A token is proved, never sent.
//
// The package opens no file and no connection and reads no clock, and it imports the
// standard library alone: a node's keys are agent/identity's, an operator's
// cmd/kogge/keyring's. A certificate makes a connection and no more: what a peer may do
// about the fleet is not decided here. The bytes of join.yaml are written here; they are
// read in agent/identity, because its answers name line and column, for which a YAML
// parser is needed.
package fleet

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Why a peer is turned away. Errors of [PeerOf] and [Genesis.VerifyPeer] wrap one of
// them and say more.
var (
	ErrForeign = errors.New("not a certificate of this fleet")
	ErrKind    = errors.New("certificate of the wrong kind")
	ErrRevoked = errors.New("certificate is revoked")
	ErrExpired = errors.New("certificate is not valid now") // too late, or too early
)

// Role is what an operator may do. Each includes those before it.
type Role string

// The roles, from the least to the most.
const (
	RoleReader   Role = "reader"   // sees everything but secrets
	RoleOperator Role = "operator" // also runs, stops and configures
	RoleAdmin    Role = "admin"    // also resets nodes and invites operators
)

// Roles are all roles, from the least to the most.
var Roles = []Role{RoleReader, RoleOperator, RoleAdmin}

func (r Role) rank() int {
	switch r {
	case RoleReader:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// AtLeast says whether r includes other. An unknown role includes nothing, and nothing
// includes it.
func (r Role) AtLeast(other Role) bool {
	return other.rank() > 0 && r.rank() >= other.rank()
}

// ParseRole reads a role as an operator types it.
func ParseRole(text string) (Role, error) {
	if r := Role(text); r.rank() > 0 {
		return r, nil
	}
	return "", fmt.Errorf("role %q is unknown: use reader, operator or admin", text)
}

// PeerKind is what is at the other end of a connection.
type PeerKind string

// The kinds of peers. Each is signed by a CA of its own.
const (
	KindOperator PeerKind = "operator"
	KindNode     PeerKind = "node"
)

// Peer is whom a certificate names.
type Peer struct {
	Kind  PeerKind
	Name  string
	Role  Role   // of an operator; "" for a node, which has none
	Fleet string // fleet id: 64 hexadecimal digits
	Key   string // SHA-256 of the public key (SubjectPublicKeyInfo): 64 hexadecimal digits
}

// String is "operator ada (admin)" or "node n1".
func (p Peer) String() string {
	if p.Kind == KindOperator {
		return fmt.Sprintf("operator %s (%s)", p.Name, p.Role)
	}
	return fmt.Sprintf("%s %s", p.Kind, p.Name)
}

// scheme of the URI in a certificate's subjectAltName:
//
//	kogge:FLEETID/operator/NAME?role=ROLE
//	kogge:FLEETID/node/NAME
//
// The fleet id stands in the path: it is longer than a label of a host name may be.
const scheme = "kogge"

// uri is what a certificate of this peer carries.
func (p Peer) uri() *url.URL {
	u := &url.URL{Scheme: scheme, Opaque: p.Fleet + "/" + string(p.Kind) + "/" + p.Name}
	if p.Kind == KindOperator {
		u.RawQuery = "role=" + string(p.Role)
	}
	return u
}

// PeerOf reads whom a certificate names, without any check of who signed it:
// [Genesis.VerifyPeer] is for that. The error wraps [ErrForeign].
func PeerOf(cert *x509.Certificate) (Peer, error) {
	var found *url.URL
	for _, u := range cert.URIs {
		if u.Scheme != scheme {
			continue
		}
		if found != nil {
			return Peer{}, fmt.Errorf("%w: it names two peers, %s and %s", ErrForeign, found, u)
		}
		found = u
	}
	if found == nil {
		return Peer{}, fmt.Errorf("%w: it names no peer", ErrForeign)
	}
	p := Peer{Key: KeyID(cert.RawSubjectPublicKeyInfo)}
	fleet, rest, _ := strings.Cut(found.Opaque, "/")
	kind, name, _ := strings.Cut(rest, "/")
	p.Fleet, p.Kind, p.Name = fleet, PeerKind(kind), name
	ok := IsHash(fleet)
	switch p.Kind {
	case KindOperator:
		p.Role = Role(strings.TrimPrefix(found.RawQuery, "role="))
		ok = ok && p.Role.rank() > 0 && CheckOperatorName(name) == nil
	case KindNode:
		ok = ok && CheckName(name) == nil
	default:
		ok = false
	}
	// One peer has one spelling, so that nothing hides in another.
	if !ok || p.uri().String() != found.String() {
		return Peer{}, fmt.Errorf("%w: it names %q", ErrForeign, found)
	}
	return p, nil
}

// KeyID is the SHA-256 of a public key in DER (SubjectPublicKeyInfo), as 64
// hexadecimal digits.
func KeyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// shortDigits is how much of an id people are shown where they only tell a few apart.
const shortDigits = 12

// Short is the first 12 digits of a fleet id or a key id.
func Short(id string) string { return id[:min(len(id), shortDigits)] }

// IsHash says whether text is a SHA-256 as we write it.
func IsHash(text string) bool {
	if len(text) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(text) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// CheckName says what is wrong with the name of a fleet or a node, which is also a
// folder or a host name: lower-case letters, digits and hyphens, at most 63, a letter
// or digit at both ends.
func CheckName(name string) error { return checkName(name, "-", "digits and hyphens") }

// CheckOperatorName says what is wrong with an operator's name: as [CheckName], and
// dots and underscores may stand inside.
func CheckOperatorName(name string) error {
	return checkName(name, "-._", "digits, hyphens, dots and underscores")
}

func checkName(name, inside, inWords string) error {
	alnum := func(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
	if name == "" {
		return errors.New("the name is empty")
	}
	if len(name) > 63 {
		return fmt.Errorf("name %q has %d characters: 63 at most", name[:20]+"…", len(name))
	}
	for _, c := range []byte(name) {
		if !alnum(c) && !strings.ContainsRune(inside, rune(c)) {
			return fmt.Errorf("name %q: a name has lower-case letters, %s", name, inWords)
		}
	}
	if !alnum(name[0]) || !alnum(name[len(name)-1]) {
		return fmt.Errorf("name %q: a name starts and ends with a letter or digit", name)
	}
	return nil
}
