package identity

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"kogge.example/update/fleet"
)

// damage is what a node could not read of its own files. It serves all the same: who is to repair
// it has to reach it. What it does without is each file's matter, and always the safe side. A file
// stays as it is until another one takes its place, and beside that one even then.
type damage map[string]broken // by the name of the file

type broken struct {
	why error
	raw []byte // of the file, as far as it can be read
}

// without says what follows from that.
var without = map[string]string{
	nodeKeyName:    "this node shows a key made for this start, and is in no fleet: kogge node adopt takes it in again, by a new join.yaml and with the seat that it has",
	membershipName: "this node is in no fleet: kogge node adopt takes it in again, by a new join.yaml and with the seat that it has",
	enrolmentName:  "this node does not know how it came: without a seat or an acceptance it is new",
	revokedName:    "this node knows of operators the first one alone: it is repaired when he has revoked keys once more (kogge operator revoke)",
}

// asideSuffix is behind the name of a file that could not be read, once another one has taken its
// place.
const asideSuffix = ".damaged"

func (d damage) has(name string) bool { _, is := d[name]; return is }

// aside keeps what is there of a damaged file, before another one takes its place.
func (d damage) aside(files files, name string) error {
	b, is := d[name]
	if !is || len(b.raw) == 0 {
		return nil
	}
	return files.Replace(name+asideSuffix, b.raw)
}

// Problem says which files of the node cannot be read, and what follows; nil: none.
func (n *Node) Problem() error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var all []error
	for _, name := range []string{nodeKeyName, membershipName, enrolmentName, revokedName} {
		if b, is := n.damaged[name]; is {
			all = append(all, fmt.Errorf("%s: %w: %s", name, b.why, without[name]))
		}
	}
	return errors.Join(all...)
}

// Lost says that the node may have been in a fleet, and cannot show it any more.
func (n *Node) Lost() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.lost()
}

func (n *Node) lost() bool { return n.damaged.has(nodeKeyName) || n.damaged.has(membershipName) }

// Forgets says that keys may have been revoked of which the node does not know.
func (n *Node) Forgets() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.damaged.has(revokedName)
}

var anyKey = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// keysIn are the keys that can still be read in a damaged list: they stay revoked.
func keysIn(raw []byte) (keys []string) {
	for _, key := range anyKey.FindAll(raw, maxRevoked) {
		if fleet.IsHash(string(key)) {
			keys = append(keys, string(key))
		}
	}
	return slices.Compact(keys)
}
