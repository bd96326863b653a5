package keyring

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// RevokedNode is a key of a node that this folder believes no more: its disk was stolen or
// copied, say. Nodes are told of it as of an operator's key.
type RevokedNode struct {
	Name    string    `json:"name"`
	Key     string    `json:"key"` // as in Peer.Key
	Revoked time.Time `json:"revoked"`
}

type revokedNodesFile struct {
	Version int           `json:"version"`
	Nodes   []RevokedNode `json:"nodes"`
}

const revokedNodesVersion = 1

// ErrNoNode says that no key of a node of that name is known.
var ErrNoNode = errors.New("no node of that name")

// RevokedNodes are the keys of nodes that were revoked from this folder, the first one
// first.
func (k *Keyring) RevokedNodes() ([]RevokedNode, error) { return revokedNodeList.all(k) }

// RevokedKeys are all keys that the fleet's folder has as revoked, of operators and of nodes, as in
// Peer.Key.
func (k *Keyring) RevokedKeys() ([]string, error) {
	people, err := k.Operators()
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, o := range people {
		if o.Revoked != nil {
			keys = append(keys, o.Key)
		}
	}
	lost, err := k.RevokedNodes()
	for _, n := range lost {
		keys = append(keys, n.Key)
	}
	return keys, err
}

// RevokeNode notes, durably, that keys of a node are revoked: those that the caller knows,
// and those with which nodes of that name came in by a token of this folder. It returns all
// of the name's, those of earlier calls too: the other nodes have to be told. Who comes back
// by that name makes a new key.
func (k *Keyring) RevokeNode(name string, known []string, now time.Time) ([]string, error) {
	keys, err := k.revokeNode(name, known, now)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: revoke node %s: %w", k.Genesis.Name, name, err)
	}
	return keys, nil
}

func (k *Keyring) revokeNode(name string, known []string, now time.Time) ([]string, error) {
	if err := fleet.CheckName(name); err != nil {
		return nil, err
	}
	tokens, err := k.Tokens()
	if err != nil {
		return nil, err
	}
	keys := slices.Clone(known)
	for _, t := range tokens {
		for _, u := range t.Used {
			if u.Node == name {
				keys = append(keys, u.Key)
			}
		}
	}
	for _, key := range keys {
		if !fleet.IsHash(key) {
			return nil, fmt.Errorf("%q names no key", key)
		}
	}
	var revoked []string
	err = revokedNodeList.edit(k, func(all []RevokedNode) ([]RevokedNode, error) {
		for _, key := range keys {
			if !slices.ContainsFunc(all, func(n RevokedNode) bool { return n.Key == key }) {
				all = append(all, RevokedNode{Name: name, Key: key, Revoked: now.UTC().Truncate(time.Second)})
			}
		}
		for _, n := range all {
			if n.Name == name {
				revoked = append(revoked, n.Key)
			}
		}
		if revoked == nil {
			return nil, ErrNoNode
		}
		return all, nil
	})
	return revoked, err
}

// trustsNode wants that the key of a node was not revoked: nothing is signed for it. The
// error wraps [fleet.ErrRevoked].
func (k *Keyring) trustsNode(key string) error {
	if k.Dir == "" {
		return nil // a fleet that is being made
	}
	all, err := k.RevokedNodes()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, func(n RevokedNode) bool { return n.Key == key }); i >= 0 {
		return fmt.Errorf("key %s: %w, since %s: a node that returns makes a new key", fleet.Short(key), fleet.ErrRevoked, all[i].Revoked.Format(time.DateOnly))
	}
	return nil
}

// revokedNodeList is revoked-nodes.json.
var revokedNodeList = list[RevokedNode]{name: revokedNodesName, most: 4 << 20, parse: parseRevokedNodes, file: func(all []RevokedNode) any {
	return revokedNodesFile{revokedNodesVersion, all}
}}

func parseRevokedNodes(raw []byte) ([]RevokedNode, error) {
	var file revokedNodesFile
	if err := document.Decode(raw, revokedNodesVersion, &file); err != nil {
		return nil, err
	}
	for _, n := range file.Nodes {
		if err := fleet.CheckName(n.Name); err != nil {
			return nil, err
		}
		if !fleet.IsHash(n.Key) {
			return nil, fmt.Errorf("node %s: %q names no key", n.Name, n.Key)
		}
	}
	return file.Nodes, nil
}
