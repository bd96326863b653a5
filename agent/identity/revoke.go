package identity

import (
	"fmt"
	"maps"
	"slices"

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
// none that was not before; so it is with an error.
func (n *Node) Revoke(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.revoke(keys); err != nil {
		return fmt.Errorf("revoke %w", err)
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

// RevokedKeys are all keys that were withdrawn, sorted.
func (n *Node) RevokedKeys() []string {
	return slices.Sorted(maps.Keys(*n.revoked.Load()))
}

// Revoked says whether the key was withdrawn, at once. It fits [fleet.Genesis.VerifyPeer].
func (n *Node) Revoked(key string) bool { return (*n.revoked.Load())[key] }

// readRevoked reads the list. Of one that cannot be read all keys stay revoked that are found in
// it, and [Node.Forgets] says that there may have been more.
func (n *Node) readRevoked() {
	all := make(map[string]bool)
	n.read(revokedName, func(raw []byte) error {
		keys, err := parseRevoked(raw)
		if err != nil {
			keys = keysIn(raw)
		}
		for _, k := range keys {
			all[k] = true
		}
		return err
	})
	n.revoked.Store(&all)
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
