package roster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// ID names a vote journal: 16 random bytes, made together with the seat's key. In a document
// it is 32 hexadecimal digits.
type ID [16]byte

// NewID makes one that nobody has.
func NewID() (id ID) {
	rand.Read(id[:]) // never fails: it ends the program instead
	return id
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes the id as it stands in a document.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (id *ID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(id) {
		return errors.New("an id is 32 hexadecimal digits")
	}
	*id = ID(b)
	return nil
}
