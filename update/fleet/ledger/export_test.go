package ledger

import (
	"crypto/ed25519"

	"golang.org/x/mod/sumdb/note"

	"kogge.example/update/fleet/document"
)

// For tests that use ledgertest, which package ledger cannot import.
const (
	MaxCheckpoint = maxCheckpoint
	TileHeight    = tileHeight

	MaxEvidenceBytes = maxEvidenceBytes
)

// EvidenceBytes are those of objects in a certificate.
func EvidenceBytes(objects [][]byte) int { return evidenceBytes(objects) }

// SeatName is what a seat's key is called in a checkpoint.
func SeatName(fleet document.Hash, seat int) string { return seatName(fleet, seat) }

// SeatSigner signs notes with any key in the name of any seat.
func SeatSigner(name string, key ed25519.PrivateKey) note.Signer { return seatKey{name, key} }

// Text is what a checkpoint's seats sign.
func (c Checkpoint) Text() string { return c.text() }
