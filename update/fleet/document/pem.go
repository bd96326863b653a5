package document

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// CertificateBlock is the type of a PEM block that holds a certificate.
const CertificateBlock = "CERTIFICATE"

// keyBlock is the type of one that holds a private key: PKCS #8.
const keyBlock = "PRIVATE KEY"

// EncodePEM writes one block of a type.
func EncodePEM(block string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
}

// DecodePEM wants text that is one block of a type and nothing else.
func DecodePEM(block string, text []byte) ([]byte, error) {
	b, rest := pem.Decode(text)
	if b == nil || b.Type != block || len(rest) > 0 {
		return nil, fmt.Errorf("not one PEM block of type %s", block)
	}
	return b.Bytes, nil
}

// EncodeKey writes a private key, of ECDSA or Ed25519, as PEM.
func EncodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return EncodePEM(keyBlock, der), nil
}

// DecodeKey reads what [EncodeKey] wrote for a key of type K.
func DecodeKey[K any](text []byte) (K, error) {
	var none K
	der, err := DecodePEM(keyBlock, text)
	if err != nil {
		return none, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return none, err
	}
	k, ok := key.(K)
	if !ok {
		return none, errors.New("a key of another kind")
	}
	return k, nil
}
