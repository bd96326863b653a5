package signed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"

	"kogge.example/update/fleet/document"
)

// An operator signs with the key of his certificate: ECDSA on P-256. Such a key signs envelopes
// alone; no seat and no owner has one. Its [Key] is a byte for the algorithm and the point,
// uncompressed; its signature is r and s, 32 bytes each. Who has a signature can make a second
// one of the same message, which is why envelopes are told apart by their messages. TLS has the
// same key sign what begins with 64 spaces (RFC 8446, 4.4.3), and an envelope begins with the
// length of its kind: neither passes for the other.
const (
	operatorAlgorithm = 2
	operatorKeySize   = 1 + 65
	scalarSize        = 32
)

// OperatorKey is the Key of an operator's public key.
func OperatorKey(public *ecdsa.PublicKey) (Key, error) {
	if public.Curve != elliptic.P256() {
		return "", fmt.Errorf("%w: an operator's is ECDSA on P-256", ErrKey)
	}
	point, err := public.Bytes()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	return Key(append([]byte{operatorAlgorithm}, point...)), nil
}

// Operator is the fingerprint of an operator's key, by which the ledger lists him; false: the
// key is no operator's.
func (k Key) Operator() (document.Hash, bool) {
	if len(k) != operatorKeySize || k[0] != operatorAlgorithm {
		return document.Hash{}, false
	}
	public, err := operatorPublic([]byte(k))
	if err != nil {
		return document.Hash{}, false
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return document.Hash{}, false
	}
	return document.HashOf(spki), true
}

func operatorPublic(raw []byte) (*ecdsa.PublicKey, error) {
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw[1:])
	if err != nil {
		return nil, fmt.Errorf("%w: not a point of P-256", ErrKey)
	}
	return public, nil
}

func signByOperator(key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	hash := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 2*scalarSize)
	r.FillBytes(signature[:scalarSize])
	s.FillBytes(signature[scalarSize:])
	return signature, nil
}

func (k Key) verifyOperator(message, signature []byte) bool {
	public, err := operatorPublic([]byte(k))
	if err != nil || len(signature) != 2*scalarSize {
		return false
	}
	hash := sha256.Sum256(message)
	r, s := new(big.Int).SetBytes(signature[:scalarSize]), new(big.Int).SetBytes(signature[scalarSize:])
	return ecdsa.Verify(public, hash[:], r, s)
}
