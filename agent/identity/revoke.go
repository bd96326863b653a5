package identity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// revokedName is the file of a node that lists the keys it no longer believes. Where a later release has
// written that, what is revoked since stands in the one of addedName; both count in every release.
const (
	revokedName    = "revoked.json"
	addedName      = "revoked.added.json"
	revokedVersion = 1
	maxRevoked     = 10_000 // keys
)

type revokedFile struct {
	Version int      `json:"version"`
	Keys    []string `json:"keys"` // as in Peer.Key, sorted
	// Partial says that there were keys before of which nobody knows: the file before could not be read.
	Partial bool `json:"partial,omitempty"`
}

// errPartial is of a list that has taken the place of one that could not be read.
var errPartial = errors.New("the list before it was damaged: keys may be missing")

// Revoke has the node turn keys away from now on, whatever certificates there are for
// them, durably. There is no way back: who returns makes a new key. A key is as in
// Peer.Key; the node's own is refused. After a power cut all of them are revoked, or
// none that was not before; so it is with an error. Nobody's keys are all keys of the fleet: what a
// member has called revoked stays so ([Node.LetIn]), and where a list was damaged, keys may be missing
// ([Node.Forgets]) until somebody says that none is ([Node.RevokeAll]).
func (n *Node) Revoke(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.revoke(keys, false); err != nil {
		return fmt.Errorf("revoke %w", err)
	}
	return nil
}

// RevokeAll is [Node.Revoke] of all keys that the fleet has revoked: a list that could not be read is
// whole again.
func (n *Node) RevokeAll(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.revoke(keys, true)
	if wrong, is := n.damaged[toldName]; err == nil && is && !errors.Is(wrong.why, document.ErrNewer) {
		err = n.tell(n.Told()) // as far as it can be read
	}
	if err != nil {
		return fmt.Errorf("revoke %w", err)
	}
	return nil
}

// revoke adds keys; all says that the fleet has revoked no others. n.mu is held.
func (n *Node) revoke(keys []string, all bool) error {
	before := *n.revoked.Load()
	after := maps.Clone(before)
	for _, key := range keys {
		switch {
		case !fleet.IsHash(key):
			return fmt.Errorf("key %s: a key is named by 64 hexadecimal digits", fleet.Short(key))
		case key == n.Key():
			return fmt.Errorf("key %s: it is this node's own", fleet.Short(key))
		}
		after[key] = true
	}
	if len(after) > maxRevoked {
		return fmt.Errorf("%d keys: %d at most", len(after), maxRevoked)
	}
	var names []string
	for _, name := range []string{revokedName, addedName} {
		if all && n.damaged.has(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 && len(after) > len(before) {
		names = []string{revokedName}
		if errors.Is(n.damaged[revokedName].why, document.ErrNewer) {
			names = []string{addedName}
		}
	}
	for _, name := range names {
		if err := n.writeRevoked(name, after, all); err != nil {
			return fmt.Errorf("%d keys: %w", len(keys), err)
		}
	}
	return nil
}

// writeRevoked has a file list keys, which count once it does; all says that none is missing.
func (n *Node) writeRevoked(name string, keys map[string]bool, all bool) error {
	wrong, damaged := n.damaged[name]
	partial := damaged && !all
	text, err := document.Encode(revokedFile{revokedVersion, slices.Sorted(maps.Keys(keys)), partial})
	if err == nil && !errors.Is(wrong.why, errPartial) {
		err = n.damaged.aside(n.files, name)
	}
	if err == nil {
		err = n.files.Replace(name, text)
	}
	if err != nil {
		return err
	}
	delete(n.damaged, name)
	if partial {
		n.damaged[name] = broken{why: errPartial}
	}
	n.revoked.Store(&keys)
	return nil
}

// toldName is the file with the keys that the member has called revoked by which the node came in.
// Nobody has signed that list, and the member may be hostile: it turns callers of the node's API away,
// and a few nodes (agent/part), until an operator revokes those keys himself, or says which of them are
// to come in.
const (
	toldName = "told.json"
	maxTold  = 1000 // keys
)

// LetIn lets keys in again, durably, that a member alone has called revoked. Others stay as they are.
func (n *Node) LetIn(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := *n.told.Load()
	if !slices.ContainsFunc(keys, func(key string) bool { return told[key] }) {
		return nil
	}
	left := slices.DeleteFunc(slices.Collect(maps.Keys(told)), func(key string) bool { return slices.Contains(keys, key) })
	if err := n.tell(left); err != nil {
		return fmt.Errorf("let in %w", err)
	}
	return nil
}

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
	text, err := document.Encode(revokedFile{Version: revokedVersion, Keys: slices.Sorted(maps.Keys(all))})
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
		names []string
		into  *atomic.Pointer[map[string]bool]
	}{{[]string{revokedName, addedName}, &n.revoked}, {[]string{toldName}, &n.told}} {
		all := make(map[string]bool)
		for _, name := range list.names {
			n.read(name, func(raw []byte) error {
				keys, err := parseRevoked(raw)
				if err != nil && !errors.Is(err, errPartial) {
					keys = keysIn(raw)
				}
				for _, k := range keys {
					all[k] = true
				}
				return err
			})
		}
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
	if f.Partial {
		return f.Keys, errPartial
	}
	return f.Keys, nil
}
