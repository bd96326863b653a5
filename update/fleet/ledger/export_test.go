package ledger

// For tests that use ledgertest, which package ledger cannot import.
const (
	TileHeight       = tileHeight
	MaxEvidenceBytes = maxEvidenceBytes
)

// EvidenceBytes are those of objects in a certificate.
func EvidenceBytes(objects [][]byte) int { return evidenceBytes(objects) }
