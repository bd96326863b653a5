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
	// last taken over, as Choice.Imported gave it.
	Copy     []byte
	Imported string
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

// Choose decides. Only the seed's hash says whether it is new: a seed that was
// imported once does not undo what was changed on the node since. A seed with
// mistakes never replaces a good copy; a node with nothing but bad ones comes up
// on DHCP without workloads, so that somebody can reach it and read why.
func Choose(in Input) Choice {
	sum := sha256.Sum256(in.Seed)
	hash := hex.EncodeToString(sum[:])
	fromSeed, seedErr := Parse(in.Seed)
	fromCopy, copyErr := Parse(in.Copy)
	var seedProblem, copyProblem error
	if in.Seed != nil && seedErr != nil {
		seedProblem = fmt.Errorf("node.yaml from %s is not used:\n%w", in.From, seedErr)
	}
	if in.Copy != nil && copyErr != nil {
		copyProblem = fmt.Errorf("the copy of node.yaml on STATE is not used:\n%w", copyErr)
	}
	isNew := hash != in.Imported
	switch {
	case seedErr == nil && isNew:
		return Choice{Config: fromSeed, Text: in.Seed, Source: in.From, Import: true, Imported: hash}
	case copyErr == nil:
		if !isNew {
			seedProblem = nil // its place has been taken
		}
		return Choice{Config: fromCopy, Text: in.Copy, Source: "the copy on STATE", Imported: in.Imported, Problem: seedProblem}
	case seedErr == nil:
		// The seed that was imported is still there while its copy is lost: take it
		// again. A copy that makes no sense stays: another release may have written
		// it, and will understand it when it is back.
		return Choice{Config: fromSeed, Text: in.Seed, Source: in.From, Import: in.Copy == nil, Imported: hash, Problem: copyProblem}
	}
	return Choice{Text: []byte{}, Source: "defaults", Imported: in.Imported, Problem: errors.Join(seedProblem, copyProblem)}
}
