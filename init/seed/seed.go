// Package seed chooses the settings that a node runs with: node.yaml as somebody
// put it beside the image, or the copy that the node took of an earlier one. Texts
// and the record of the last import come in, one checked configuration goes out,
// with what to remember and what to complain about. Reading and writing the places
// is the caller's, so that the choice can be tested alone.
package seed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"kogge.example/init/nodeconfig"
)

// Input is what was found. A nil text means that there is none.
type Input struct {
	// Seed is the node.yaml beside the image, and From the place it was found in.
	Seed []byte
	From string
	// Copy is the node's own copy on STATE, Imported the hash of the seed that was
	// last taken over, as Choice.Imported gave it; "" if none was.
	Copy     []byte
	Imported string
	// CopyErr and ImportedErr are why either is there and cannot be read.
	CopyErr, ImportedErr error
}

// Choice is what the node runs with.
type Choice struct {
	Config nodeconfig.Config
	Text   []byte // of the configuration, never nil
	Source string // where it came from, for people
	// Import says that Text has to replace the copy on STATE, with Imported as the
	// record of its hash.
	Import   bool
	Imported string
	// Problem is why a seed or a copy was not taken; nil if all is well.
	Problem error
}

// errEmpty is what is wrong with a file of no bytes: a write that was cut off looks
// like that, and nobody means it. Who wants the defaults writes {} or a comment.
var errEmpty = errors.New("node.yaml: the file is empty")

// Parse reads a node.yaml that is to be a node's.
func Parse(text []byte) (nodeconfig.Config, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nodeconfig.Config{}, errEmpty
	}
	return nodeconfig.Parse("node.yaml", text)
}

// errLost is a copy that was there: one is written before the record of its import.
var errLost = errors.New("the copy of node.yaml on STATE is lost, and with it what was changed on the node: the disk may be damaged")

// Choose decides. Only the seed's hash says whether it is new: a seed that was
// imported once does not undo what was changed on the node since. A seed with
// mistakes never replaces a good copy; a node with nothing but bad ones comes up
// on DHCP without workloads, so that somebody can reach it and read why. What cannot be
// read is not what is not there: nothing takes its place but a seed that is new for sure.
func Choose(in Input) Choice {
	sum := sha256.Sum256(in.Seed)
	hash := hex.EncodeToString(sum[:])
	fromSeed, seedErr := Parse(in.Seed)
	fromCopy, copyErr := Parse(in.Copy)
	var seedProblem, copyProblem, lost, recordProblem error
	if in.Seed != nil && seedErr != nil {
		seedProblem = fmt.Errorf("node.yaml from %s is not used:\n%w", in.From, seedErr)
	}
	switch {
	case in.CopyErr != nil:
		lost = fmt.Errorf("the copy of node.yaml on STATE cannot be read: %w", in.CopyErr)
	case in.Copy == nil && (in.Imported != "" || in.ImportedErr != nil):
		lost = errLost
	case in.Copy != nil && copyErr != nil:
		copyProblem = fmt.Errorf("the copy of node.yaml on STATE is not used:\n%w", copyErr)
	}
	if in.ImportedErr != nil {
		recordProblem = fmt.Errorf("the record of which node.yaml was taken over last cannot be read, so that none is taken for a new one: %w", in.ImportedErr)
	}
	// Without a record, a copy that cannot be read may be of this seed.
	isNew := hash != in.Imported && in.ImportedErr == nil && (in.Imported != "" || in.CopyErr == nil)
	switch {
	case seedErr == nil && isNew:
		return Choice{Config: fromSeed, Text: in.Seed, Source: in.From, Import: true, Imported: hash, Problem: lost}
	case copyErr == nil && in.CopyErr == nil:
		if !isNew {
			seedProblem = nil // its place has been taken
		}
		return Choice{Config: fromCopy, Text: in.Copy, Source: "the copy on STATE", Imported: in.Imported, Problem: errors.Join(seedProblem, recordProblem)}
	case seedErr == nil:
		// The seed that was imported is still there while its copy is lost: take it
		// again. A copy that makes no sense stays: another release may have written
		// it, and will understand it when it is back. So does one that cannot be read.
		again := in.Copy == nil && in.CopyErr == nil && in.ImportedErr == nil
		if again && lost != nil {
			lost = fmt.Errorf("%w; node.yaml from %s, which was taken over before, takes its place", lost, in.From)
		}
		return Choice{Config: fromSeed, Text: in.Seed, Source: in.From, Import: again, Imported: hash, Problem: errors.Join(lost, copyProblem, recordProblem)}
	}
	return Choice{Text: []byte{}, Source: "defaults", Imported: in.Imported, Problem: errors.Join(seedProblem, lost, copyProblem, recordProblem)}
}
