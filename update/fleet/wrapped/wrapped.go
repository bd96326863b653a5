// Package wrapped is a secret of a fleet on its way to one seat: encrypted to a key that the
// seat's own key has certified (update/fleet/notice), so that whoever carries it learns nothing.
//
// In come a secret and the public key of who is to have it, or the same wrapped and the private
// key; out goes the other of the two. The secret is that of the node CA: who holds it signs the
// certificates of nodes. That a key is a seat's, and which seats are to hold the secret, is the
// caller's to know; that what was opened is the right secret shows by its public half.
//
// It is HPKE (RFC 9180) of the standard library, in base mode: DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256, ChaCha20-Poly1305. Nobody signs what is wrapped: who knows no secret can wrap
// none that fits.
package wrapped

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// For says for whom, and what, something is wrapped: it opens for nothing else.
type For struct {
	Fleet document.Hash
	Seat  signed.Key    // of the seat that may open it
	CA    document.Hash // fingerprint of the CA's public key, as fleet.KeyID has it
}

// Sizes in bytes.
const (
	KeySize = 32
	// Size is what a wrapped key has: the encapsulated key, the secret and a tag.
	Size = KeySize + secretSize + 16

	secretSize = 32
)

// ErrWrapped is of bytes that do not open, or hold another key than they should.
var ErrWrapped = errors.New("not the CA's key, wrapped for this seat")

// NewKey makes the key pair for which secrets are wrapped.
func NewKey() (*ecdh.PrivateKey, error) { return ecdh.X25519().GenerateKey(rand.Reader) }

// ParseKey reads the private half of one.
func ParseKey(raw []byte) (*ecdh.PrivateKey, error) { return ecdh.X25519().NewPrivateKey(raw) }

// CAOf is the fingerprint of the key of a CA.
func CAOf(ca *x509.Certificate) document.Hash { return document.HashOf(ca.RawSubjectPublicKeyInfo) }

func (f For) info() []byte {
	return document.Message("kogge/wrapped/v1", f.Fleet[:], []byte(f.Seat), f.CA[:])
}

// Wrap encrypts the key of a CA to a public key, of [KeySize] bytes. A key of small order, which
// would give the secret to everybody, is an error.
func Wrap(key *ecdsa.PrivateKey, to []byte, whom For) ([]byte, error) {
	if _, err := fleet.P256(&key.PublicKey); err != nil {
		return nil, fmt.Errorf("wrap the CA's key: %w", err)
	}
	secret, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("wrap the CA's key: %w", err)
	}
	public, err := ecdh.X25519().NewPublicKey(to)
	if err != nil {
		return nil, fmt.Errorf("wrap the CA's key: %w", err)
	}
	recipient, err := hpke.NewDHKEMPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("wrap the CA's key: %w", err)
	}
	sealed, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), whom.info(), secret)
	if err != nil {
		return nil, fmt.Errorf("wrap the CA's key: %w", err)
	}
	return sealed, nil
}

// Open decrypts the key of a CA, and wants that it is the one of its certificate. The error
// wraps [ErrWrapped], and says nothing of what was inside.
func Open(sealed []byte, own *ecdh.PrivateKey, whom For) (*ecdsa.PrivateKey, error) {
	if len(sealed) != Size {
		return nil, fmt.Errorf("%w: %d bytes: %d wanted", ErrWrapped, len(sealed), Size)
	}
	recipient, err := hpke.NewDHKEMPrivateKey(own)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrapped, err)
	}
	secret, err := hpke.Open(recipient, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), whom.info(), sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: it was wrapped for another one, or damaged", ErrWrapped)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
	if err != nil {
		return nil, fmt.Errorf("%w: it holds no key", ErrWrapped)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil || document.HashOf(spki) != whom.CA {
		return nil, fmt.Errorf("%w: it holds another key", ErrWrapped)
	}
	return key, nil
}
