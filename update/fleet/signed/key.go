// Package signed is what a seat signs, and how it is checked: public keys with an algorithm,
// signatures over bytes that say what they are for, and envelopes that carry a signed object
// from its maker to whoever acts on it, through hands that nobody believes.
//
// In come bytes of strangers and keys; out go the same checked, or an error in words. Whose
// key counts for what is the ledger's state's to say, and where an object lies or travels is
// the agent's. Signatures are Ed25519 of RFC 8032 as crypto/ed25519 checks them, one by one; an
// operator's are ECDSA.
package signed

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"kogge.example/update/fleet/document"
)

// algorithm is the first byte of a public key: Ed25519, with the number that a C2SP signed
// note gives it. Another kind of key gets another byte.
const algorithm = 1

// Key is a public key that may sign for a fleet: a byte for the algorithm, and the key. The
// zero Key is none. In a document it is base64.
type Key string

// KeySize is the bytes of a Key.
const KeySize = 1 + ed25519.PublicKeySize

// ErrKey is of bytes that are no public key which a fleet takes.
var ErrKey = errors.New("not a public key that a fleet takes")

// KeyOf is the Key of an Ed25519 key pair's public half.
func KeyOf(public ed25519.PublicKey) (Key, error) {
	return ParseKey(append([]byte{algorithm}, public...))
}

// ParseKey reads a Key. A point of small order, for which signatures can be made that fit many
// messages, and a point that is spelled in two ways are refused: so two keys that differ are
// two keys. The error wraps [ErrKey].
func ParseKey(raw []byte) (Key, error) {
	if len(raw) != KeySize {
		return "", fmt.Errorf("%w: %d bytes: %d wanted", ErrKey, len(raw), KeySize)
	}
	if raw[0] != algorithm {
		return "", fmt.Errorf("%w: its algorithm is number %d, and this kogge knows number %d", ErrKey, raw[0], algorithm)
	}
	y := bytes.Clone(raw[1:])
	y[31] &= 0x7f // the sign of x
	if slices.Reverse(y); bytes.Compare(y, prime) >= 0 {
		return "", fmt.Errorf("%w: its spelling is not canonical", ErrKey)
	}
	if slices.ContainsFunc(smallOrder, func(small []byte) bool { return bytes.Equal(small, y) }) {
		return "", fmt.Errorf("%w: it is a point of small order", ErrKey)
	}
	return Key(raw), nil
}

// prime is 2^255 - 19, and smallOrder are the y of the eight points whose order divides 8,
// without the sign of their x: 1 (order 1), -1 (2), 0 (4) and the two of order 8. Big-endian.
//
// Source: RFC 8032, 5.1; the last two solve the doubling formula for a point of order 4.
var (
	prime      = unhex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed")
	smallOrder = [][]byte{
		unhex("0000000000000000000000000000000000000000000000000000000000000000"),
		unhex("0000000000000000000000000000000000000000000000000000000000000001"),
		unhex("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec"),
		unhex("7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7"),
		unhex("05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826"),
	}
)

func unhex(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err) // a constant of this file
	}
	return b
}

// parseSigner reads the key of who signed an envelope: a seat's, or an operator's.
func parseSigner(raw []byte) (Key, error) {
	if len(raw) == operatorKeySize && raw[0] == operatorAlgorithm {
		if _, err := operatorPublic(raw); err != nil {
			return "", err
		}
		return Key(raw), nil
	}
	return ParseKey(raw)
}

// ID is the fingerprint of the key, which people compare by eye.
func (k Key) ID() document.Hash { return document.HashOf([]byte(k)) }

// Verify says whether signature is the key's over message.
func (k Key) Verify(message, signature []byte) bool {
	if len(k) == operatorKeySize && k[0] == operatorAlgorithm {
		return k.verifyOperator(message, signature)
	}
	return len(k) == KeySize && k[0] == algorithm && ed25519.Verify(ed25519.PublicKey(k[1:]), message, signature)
}

// MarshalText writes the key as it stands in a document.
func (k Key) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(k)), nil
}

// UnmarshalText reads what MarshalText writes; the error wraps [ErrKey].
func (k *Key) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("%w: not base64", ErrKey)
	}
	*k, err = ParseKey(raw)
	return err
}
