// Package token is how a node comes into a fleet without its founder's computer, and what
// operators sign about that outside of the ledger: a token that an operator has given out, a
// node's use of it, the end of one, and the acceptance of a node.
//
//	an operator signs: this public key lets in one node ─▶ [Record], public; the seed is in join.yaml
//	a node signs, with its key and the token's: ─────────▶ [Use], which a member checks and keeps
//	an operator signs: this node is accepted ────────────▶ [Accept]
//
// In come bytes of strangers, the ledger's state and the time; out go the same checked, a [Set]
// of what counts, or an error in words. The package stores nothing, sends nothing and reads no
// clock. Who signs certificates, and what a node may do that is not accepted, is the agent's.
package token

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// Paper is what an operator has signed outside of the ledger. It is found on many nodes, and
// counts because the fleet's ledger lists its issuer.
type Paper struct {
	Kind   string
	Fleet  document.Hash
	Issuer []byte // the operator's public key: P-256 SubjectPublicKeyInfo in DER
	Body   []byte // a document; its form is the kind's

	raw     []byte
	message int // bytes of raw that are signed
}

// The kinds of papers.
const (
	RecordKind = "kogge/token/v1"
	EndKind    = "kogge/token-end/v1"
	AcceptKind = "kogge/accept/v1"
)

const version = 1

// What a paper, and a use, may hold.
const (
	MaxPaper     = 4 << 10 // bytes
	maxRecord    = 2 << 10 // of them, so that a use has room for it
	maxKind      = 64
	maxIssuer    = 128 // bytes; one of P-256 has 91
	maxSignature = 80  // bytes; 72 at most on P-256
)

// ErrPaper is of bytes that are no paper of an operator of the fleet.
var ErrPaper = errors.New("not a paper that an operator of this fleet has signed")

// ErrLater is of a paper whose kind this release does not know: a later one may have written it.
var ErrLater = errors.New("this release does not know it")

// Sign makes a paper with an operator's key. What is too large is an error.
func Sign(kind string, id document.Hash, body []byte, operator *ecdsa.PrivateKey) (Paper, error) {
	if _, err := fleet.P256(&operator.PublicKey); err != nil {
		return Paper{}, fmt.Errorf("sign %s: %w", kind, err)
	}
	issuer, err := x509.MarshalPKIXPublicKey(&operator.PublicKey)
	if err != nil {
		return Paper{}, fmt.Errorf("sign %s: %w", kind, err)
	}
	message := document.Message(kind, id[:], issuer, body)
	sum := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, operator, sum[:])
	if err != nil {
		return Paper{}, fmt.Errorf("sign %s: %w", kind, err)
	}
	return ParsePaper(append(message, signature...))
}

// ParsePaper reads a paper, and verifies nothing. What it returns points into raw. The error
// wraps [ErrPaper].
func ParsePaper(raw []byte) (Paper, error) {
	if len(raw) > MaxPaper {
		return Paper{}, fmt.Errorf("%w: %d bytes: %d at most", ErrPaper, len(raw), MaxPaper)
	}
	fields, signature, ok := document.Fields(raw, 4)
	if !ok || len(signature) == 0 || len(signature) > maxSignature {
		return Paper{}, fmt.Errorf("%w: its %d bytes do not add up", ErrPaper, len(raw))
	}
	kind, id, issuer, body := fields[0], fields[1], fields[2], fields[3]
	p := Paper{Kind: string(kind), Issuer: issuer, Body: body, raw: raw, message: len(raw) - len(signature)}
	if len(kind) < 1 || len(kind) > maxKind || len(id) != len(p.Fleet) || len(issuer) > maxIssuer {
		return Paper{}, fmt.Errorf("%w: a field has the wrong size", ErrPaper)
	}
	p.Fleet = document.Hash(id)
	return p, nil
}

// Verify says which operator has signed the paper: one whom the ledger lists in a state as an
// admin. The error wraps [ErrPaper], and [ledger.ErrWithdrawn] where his key was revoked.
func (p Paper) Verify(s ledger.State) (ledger.Operator, error) {
	if id := s.Fleet(); p.Fleet != id {
		return ledger.Operator{}, fmt.Errorf("%w: it is of fleet %s", ErrPaper, p.Fleet.Short())
	}
	by := document.HashOf(p.Issuer)
	if err := s.Withdrawn(by); err != nil {
		return ledger.Operator{}, fmt.Errorf("%w: %w", ErrPaper, err)
	}
	operator, ok := s.Operator(by)
	if !ok || !operator.Role.AtLeast(fleet.RoleAdmin) {
		return ledger.Operator{}, fmt.Errorf("%w: key %s is no admin of the fleet's ledger at height %d", ErrPaper, by.Short(), s.Height)
	}
	parsed, err := x509.ParsePKIXPublicKey(p.Issuer)
	if err != nil {
		return ledger.Operator{}, fmt.Errorf("%w: the key of %s: %w", ErrPaper, operator.Name, err)
	}
	key, err := fleet.P256(parsed)
	if err != nil {
		return ledger.Operator{}, fmt.Errorf("%w: the key of %s: %w", ErrPaper, operator.Name, err)
	}
	sum := sha256.Sum256(p.raw[:p.message])
	if !ecdsa.VerifyASN1(key, sum[:], p.raw[p.message:]) {
		return ledger.Operator{}, fmt.Errorf("%w: the signature is not that of %s", ErrPaper, operator.Name)
	}
	return operator, nil
}

// Bytes are the paper as it travels. Do not change them.
func (p Paper) Bytes() []byte { return p.raw }

// ID stands for what the paper says. Who holds the key can sign one thing in many ways, and it
// is one paper.
func (p Paper) ID() document.Hash { return document.HashOf(p.raw[:p.message]) }

// parse reads the body of a paper of a kind; the value checks itself.
func parse[T interface{ check() error }](p Paper, kind string) (T, error) {
	var none T
	if p.Kind != kind {
		return none, fmt.Errorf("%w: its kind is %.70q, and %s is wanted", ErrPaper, p.Kind, kind)
	}
	v, err := document.DecodeExact[T](p.Body, version)
	if err == nil {
		err = v.check()
	}
	if err != nil {
		return none, fmt.Errorf("%w: %s: %w", ErrPaper, kind, err)
	}
	return v, nil
}

// issue signs a document of this package, whose types JSON can always write, if it is sound.
func issue(kind string, id document.Hash, v interface{ check() error }, operator *ecdsa.PrivateKey, most int) (Paper, error) {
	err := v.check()
	if err != nil {
		return Paper{}, fmt.Errorf("%s: %w", kind, err)
	}
	p, err := Sign(kind, id, encode(v), operator)
	if err == nil && len(p.raw) > most {
		err = fmt.Errorf("%s: %d bytes: %d at most", kind, len(p.raw), most)
	}
	return p, err
}

func encode(value any) []byte {
	raw, err := document.Encode(value)
	if err != nil {
		panic(err)
	}
	return bytes.Clone(raw)
}
