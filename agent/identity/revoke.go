package identity

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// revokedName is the file of a node that lists the keys it no longer believes.
const (
	revokedName    = "revoked.json"
	revokedVersion = 1
	maxRevoked     = 10_000 // keys
)

type revokedFile struct {
	Version int      `json:"version"`
	Keys    []string `json:"keys"` // as in Peer.Key, sorted
}

// Revoke has the node turn keys away from now on, whatever certificates there are for
// them, durably. There is no way back: who returns makes a new key. A key is as in
// Peer.Key; the node's own is refused. After a power cut all of them are revoked, or
// none that was not before; so it is with an error. Then the node lets go what a member has
// called revoked ([Node.Told]): whoever tells it keys has told it all of his.
func (n *Node) Revoke(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.revoke(keys); err != nil {
		return fmt.Errorf("revoke %w", err)
	}
	if err := n.tell(nil); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

func (n *Node) revoke(keys []string) error {
	before := *n.revoked.Load()
	all := maps.Clone(before)
	for _, key := range keys {
		switch {
		case !fleet.IsHash(key):
			return fmt.Errorf("key %s: a key is named by 64 hexadecimal digits", fleet.Short(key))
		case key == n.Key():
			return fmt.Errorf("key %s: it is this node's own", fleet.Short(key))
		}
		all[key] = true
	}
	switch {
	case len(all) == len(before) && !n.damaged.has(revokedName):
		return nil
	case len(all) > maxRevoked:
		return fmt.Errorf("%d keys: %d at most", len(all), maxRevoked)
	}
	text, err := document.Encode(revokedFile{revokedVersion, slices.Sorted(maps.Keys(all))})
	if err == nil {
		err = n.damaged.aside(n.files, revokedName)
	}
	if err == nil {
		err = n.files.Replace(revokedName, text)
	}
	if err != nil {
		return fmt.Errorf("%d keys: %w", len(keys), err)
	}
	delete(n.damaged, revokedName)
	n.revoked.Store(&all)
	return nil
}

// toldName is the file with the keys that the member has called revoked by which the node came in.
// Nobody has signed that list, and the member may be hostile: it turns callers of the node's API away,
// and no more, until an operator tells the node his own.
const (
	toldName = "told.json"
	maxTold  = 1000 // keys
)

// tell keeps what a member has called revoked, in the place of what another one has. Of a longer list
// it keeps the front. n.mu is held.
func (n *Node) tell(keys []string) error {
	all := make(map[string]bool)
	for _, key := range keys {
		if fleet.IsHash(key) && key != n.Key() && len(all) < maxTold {
			all[key] = true
		}
	}
	if maps.Equal(all, *n.told.Load()) && !n.damaged.has(toldName) {
		return nil
	}
	text, err := document.Encode(revokedFile{revokedVersion, slices.Sorted(maps.Keys(all))})
	if err == nil {
		err = n.damaged.aside(n.files, toldName)
	}
	if err == nil {
		err = n.files.Replace(toldName, text)
	}
	if err != nil {
		return fmt.Errorf("%d keys that a member has called revoked: %w", len(all), err)
	}
	delete(n.damaged, toldName)
	n.told.Store(&all)
	return nil
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

// RevokedKeys are all keys that were withdrawn, sorted.
func (n *Node) RevokedKeys() []string {
	return slices.Sorted(maps.Keys(*n.revoked.Load()))
}

// Revoked says whether the key was withdrawn, by an operator's word, at once. It fits
// [fleet.Genesis.VerifyPeer].
func (n *Node) Revoked(key string) bool { return (*n.revoked.Load())[key] }

// readRevoked reads the lists. Of one that cannot be read all keys stay revoked that are found in
// it, and [Node.Forgets] says that there may have been more.
func (n *Node) readRevoked() {
	for _, list := range []struct {
		name string
		into *atomic.Pointer[map[string]bool]
	}{{revokedName, &n.revoked}, {toldName, &n.told}} {
		all := make(map[string]bool)
		n.read(list.name, func(raw []byte) error {
			keys, err := parseRevoked(raw)
			if err != nil {
				keys = keysIn(raw)
			}
			for _, k := range keys {
				all[k] = true
			}
			return err
		})
		list.into.Store(&all)
	}
}

func parseRevoked(raw []byte) ([]string, error) {
	var f revokedFile
	if err := document.Decode(raw, revokedVersion, &f); err != nil {
		return nil, err
	}
	for _, k := range f.Keys {
		if !fleet.IsHash(k) {
			return nil, fmt.Errorf("%q names no key", k)
		}
	}
	return f.Keys, nil
}
