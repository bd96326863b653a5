// Package seed chooses the settings that a node runs with: node.yaml as somebody
// put it beside the image, or the copy that the node took of an earlier one. Texts
// and the record of the last import come in, one checked configuration goes out,
// with what to remember and what to complain about. Reading and writing the places
// is the caller's, so that the choice can be tested alone.
package seed

import (
	"crypto/sha256"
	"encoding/hex"
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

// Choose decides. Only the seed's hash says whether it is new: a seed that was
// imported once does not undo what was changed on the node since. A seed with
// mistakes never replaces a good copy; a node with nothing but a bad one comes up
// on DHCP without workloads, so that somebody can reach it and read why.
func Choose(in Input) Choice {
	sum := sha256.Sum256(in.Seed)
	hash := hex.EncodeToString(sum[:])
	var problem error
	if in.Seed != nil && hash != in.Imported {
		c, err := nodeconfig.Parse("node.yaml", in.Seed)
		if err == nil {
			return Choice{Config: c, Text: in.Seed, Source: in.From, Import: true, Imported: hash}
		}
		problem = fmt.Errorf("node.yaml from %s is not used:\n%w", in.From, err)
	}
	if in.Copy != nil {
		c, err := nodeconfig.Parse("node.yaml", in.Copy)
		if err == nil {
			return Choice{Config: c, Text: in.Copy, Source: "the copy on STATE", Imported: in.Imported, Problem: problem}
		}
		if problem == nil {
			problem = fmt.Errorf("the copy of node.yaml on STATE is not used:\n%w", err)
		}
	}
	// The seed that was imported is still there while its copy is lost: take it again.
	if problem == nil && in.Seed != nil {
		if c, err := nodeconfig.Parse("node.yaml", in.Seed); err == nil {
			return Choice{Config: c, Text: in.Seed, Source: in.From, Import: true, Imported: hash}
		}
	}
	return Choice{Text: []byte{}, Source: "defaults", Imported: in.Imported, Problem: problem}
}
