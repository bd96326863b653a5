package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
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

// Revoke has the node turn a key away from now on, whatever certificates there are for
// it, durably. There is no way back: who returns makes a new key. key is as in
// Peer.Key; the node's own is refused.
func (n *Node) Revoke(key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.revoke(key); err != nil {
		return fmt.Errorf("revoke key %s: %w", Short(key), err)
	}
	return nil
}

func (n *Node) revoke(key string) error {
	switch {
	case !isHash(key):
		return errors.New("a key is named by 64 hexadecimal digits")
	case key == n.Key():
		return errors.New("it is this node's own")
	case n.revoked[key]:
		return nil
	case len(n.revoked) == maxRevoked:
		return fmt.Errorf("%d keys are revoked: no more fit", maxRevoked)
	}
	keys := append(slices.Collect(maps.Keys(n.revoked)), key)
	slices.Sort(keys)
	text, err := encodeJSON(revokedFile{revokedVersion, keys})
	if err != nil {
		return err
	}
	if err := n.files.Replace(revokedName, text); err != nil {
		return err
	}
	n.revoked[key] = true
	return nil
}

// Revoked says whether the key was withdrawn. It fits [Genesis.VerifyPeer].
func (n *Node) Revoked(key string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.revoked[key]
}

// RevokedKeys are all keys that were withdrawn, sorted.
func (n *Node) RevokedKeys() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Sorted(maps.Keys(n.revoked))
}

// readRevoked reads the list. One that cannot be read is an error, for an empty one
// would let in whom somebody had reason to turn away.
func (n *Node) readRevoked() error {
	n.revoked = make(map[string]bool)
	raw, err := n.files.Read(revokedName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keys, err := parseRevoked(raw)
	for _, k := range keys {
		n.revoked[k] = true
	}
	return err
}

func parseRevoked(raw []byte) ([]string, error) {
	var f revokedFile
	if err := decodeStrict(raw, revokedVersion, &f); err != nil {
		return nil, err
	}
	for _, k := range f.Keys {
		if !isHash(k) {
			return nil, fmt.Errorf("%q names no key", k)
		}
	}
	return f.Keys, nil
}
