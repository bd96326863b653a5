package memory

import "fmt"

// Votes is how many votes decide in the fleet whose ledger the node has pinned. PID 1, which knows
// no ledger, asks it whether it may arm anything by itself.
type Votes int

const votesName = "votes.json"

type votesFile struct {
	Version int   `json:"version"`
	Votes   Votes `json:"votes"`
}

// ReadVotes is how many votes decide in the node's fleet; 1 where nothing says more, as on a node
// of no founded fleet. What cannot be read is an error: there may be any number.
func ReadVotes(m Folder) (Votes, error) {
	var file votesFile
	found, err := read(m, votesName, &file)
	if err == nil && found && file.Votes < 1 {
		err = fmt.Errorf("what this node remembers: %s: %w: %d votes", votesName, errDamaged, file.Votes)
	}
	if err != nil {
		return 0, err
	}
	return max(1, file.Votes), nil
}

// Write remembers how many votes decide. A record that makes them more than one is taken only
// once they are remembered.
func (v Votes) Write(m Folder) error { return write(m, votesName, votesFile{format, v}) }
