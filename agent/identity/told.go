package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/token"
)

// toldName is the file with the keys that the member has called revoked by which the node came in.
// Nobody has signed that list, and the member may be hostile: it turns callers of the node's API away,
// and a few nodes (agent/part), until an operator revokes those keys himself, or says which of them are
// to come in. Where a later release has written the file, or the disk does not give it, what the node is
// told since stands in the one of addedToldName; both count.
const (
	toldName      = "told.json"
	addedToldName = "told.added.json"
	maxTold       = 1000 // keys of a file
)

var toldNames = []string{toldName, addedToldName}

// LetIn lets keys in again, durably, that a member alone has called revoked. Others stay as they are, and
// so does what is wrong with a list. A key of a list that a later release has written stays turned away,
// and so does each while the disk does not give one: that is an error. After a power cut each of the keys
// is let in or turned away as before.
func (n *Node) LetIn(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	n.readAgain()
	for _, name := range toldNames {
		if err := n.letIn(name, keys); err != nil {
			return fmt.Errorf("let in: what a member has told of: %w", err)
		}
	}
	all := maps.Clone(*n.told.Load())
	for _, key := range keys {
		delete(all, key)
	}
	n.told.Store(&all)
	return nil
}

// letIn takes keys out of a file. n.mu is held.
func (n *Node) letIn(name string, keys []string) error {
	wrong := n.damaged[name]
	if wrong.unread {
		return fmt.Errorf("%s: %w: it may list them", name, wrong.why)
	}
	raw, err := n.files.Read(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, durable.ErrTooLarge) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	listed := make(map[string]bool)
	_ = addKeys(listed, raw) // what is wrong with it is known, and stays
	before := len(listed)
	for _, key := range keys {
		delete(listed, key)
	}
	if len(listed) == before {
		return nil
	}
	return n.writeList(name, listed, false)
}

// tell adds what a member has called revoked to what another one has. Of a longer list it keeps the
// front. n.mu is held.
func (n *Node) tell(keys []string) error {
	n.readAgain()
	before := *n.told.Load()
	listed := make(map[string]bool)
	for _, key := range slices.Concat(keys, slices.Sorted(maps.Keys(before))) {
		if fleet.IsHash(key) && key != n.Key() && len(listed) < maxTold {
			listed[key] = true
		}
	}
	all := maps.Clone(before)
	maps.Copy(all, listed)
	n.spare(listed)
	n.spare(all)
	if maps.Equal(all, before) {
		return nil
	}
	name := toldName
	if n.damaged.mayBeWhole(name) {
		name = addedToldName
	}
	if err := n.writeList(name, listed, false); err != nil {
		return fmt.Errorf("%d keys that a member has called revoked: %w", len(listed), err)
	}
	n.told.Store(&all)
	return nil
}

// toldAll makes damaged lists of what a member has told whole, as far as they could be read: an operator
// has said who is revoked. One that a later release has written stays. n.mu is held.
func (n *Node) toldAll() error {
	for _, name := range toldNames {
		if wrong, is := n.damaged[name]; is && !errors.Is(wrong.why, document.ErrNewer) {
			if err := n.writeList(name, *n.told.Load(), true); err != nil {
				return fmt.Errorf("what a member has told: %w", err)
			}
		}
	}
	return nil
}

// spare takes out of what a member has told those that no member's word turns away: the genesis vouches
// for the first operator, and a token for who gave it out. Who has no other way to the node has them, and a
// member that lies could shut everybody out.
func (n *Node) spare(told map[string]bool) {
	if n.m.genesis != nil {
		delete(told, n.m.genesis.FirstOperatorID())
	}
	if record, err := token.ParsePaper(n.enrolment.Record); err == nil {
		delete(told, document.HashOf(record.Issuer).String())
	}
}

// Told are the keys that are turned away because a member has called them revoked, and no operator
// has: sorted.
func (n *Node) Told() (keys []string) {
	for key := range *n.told.Load() {
		if !n.Revoked(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// TurnsAway says whether who calls with a key is turned away: it was withdrawn, or a member has said
// so. It fits [fleet.Genesis.VerifyPeer].
func (n *Node) TurnsAway(key string) bool {
	return n.Revoked(key) || (*n.told.Load())[key]
}
