package signed

import (
	"crypto/ed25519"
	"fmt"
)

// Signature is one of several under a document: by the number of who signed, among those who
// may.
type Signature struct {
	By        int    `json:"by"`        // from 1
	Signature []byte `json:"signature"` // Ed25519, 64 bytes
}

// Sign makes a signature.
func Sign(by int, key ed25519.PrivateKey, message []byte) Signature {
	return Signature{By: by, Signature: ed25519.Sign(key, message)}
}

// CheckSignatures wants signatures of a size, each by another one, in order. field is how the
// error calls the list.
func CheckSignatures(field string, list []Signature) error {
	for i, s := range list {
		if len(s.Signature) != ed25519.SignatureSize {
			return fmt.Errorf("field %s[%d].signature: %d bytes: %d wanted", field, i, len(s.Signature), ed25519.SignatureSize)
		}
		if s.By < 1 || i > 0 && s.By <= list[i-1].By {
			return fmt.Errorf("field %s[%d].by: %d is out of order", field, i, s.By)
		}
	}
	return nil
}
