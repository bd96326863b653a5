package document

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is a SHA-256. In a document it is 64 hexadecimal digits, and "" where it is zero.
type Hash [sha256.Size]byte

// HashOf is the SHA-256 of a document's bytes, as sha256sum prints it.
func HashOf(raw []byte) Hash { return sha256.Sum256(raw) }

// ParseHash reads 64 hexadecimal digits, without capitals.
func ParseHash(text string) (Hash, error) {
	var h Hash
	if len(text) != hex.EncodedLen(len(h)) {
		return h, fmt.Errorf("a hash of %d characters: %d wanted", len(text), hex.EncodedLen(len(h)))
	}
	if n, err := hex.Decode(h[:], []byte(text)); err != nil {
		return Hash{}, fmt.Errorf("character %d of a hash is none of 0 to 9 and a to f", 2*n+1)
	}
	if h.String() != text {
		return Hash{}, fmt.Errorf("a hash with capitals")
	}
	return h, nil
}

// IsZero says whether there is no hash.
func (h Hash) IsZero() bool { return h == Hash{} }

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short is what people are shown where they only tell a few apart: 12 digits, "none" of
// the zero hash.
func (h Hash) Short() string {
	if h.IsZero() {
		return "none"
	}
	return h.String()[:12]
}

// MarshalText writes the hash as it stands in a document.
func (h Hash) MarshalText() ([]byte, error) {
	if h.IsZero() {
		return []byte{}, nil
	}
	return []byte(h.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*h = Hash{}
		return nil
	}
	*h, err = ParseHash(string(text))
	return err
}
