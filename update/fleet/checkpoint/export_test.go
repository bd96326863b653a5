package checkpoint

import (
	"crypto/ed25519"

	"golang.org/x/mod/sumdb/note"
)

// MaxCheckpoint is for tests that use ledgertest, which package checkpoint cannot import.
const MaxCheckpoint = maxCheckpoint

// SeatSigner signs notes with any key in the name of any seat.
func SeatSigner(name string, key ed25519.PrivateKey) note.Signer { return seatKey{name, key} }
