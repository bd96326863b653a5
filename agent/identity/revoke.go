package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync/atomic"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// revokedName is the file of a node that lists the keys it no longer believes. Where a later release has
// written that, or the disk does not give it, what is revoked since stands in the one of addedName; both
// count in every release.
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
// whole again, and so is what a member has told, as far as that is known.
func (n *Node) RevokeAll(keys ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.revoke(keys, true)
	if err == nil {
		err = n.toldAll()
	}
	if err != nil {
		return fmt.Errorf("revoke %w", err)
	}
	return nil
}

// revoke adds keys; all says that the fleet has revoked no others. n.mu is held.
func (n *Node) revoke(keys []string, all bool) error {
	n.readAgain()
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
		if n.damaged.mayBeWhole(revokedName) {
			names = []string{addedName}
		}
	}
	for _, name := range names {
		if err := n.writeList(name, after, all); err != nil {
			return fmt.Errorf("%d keys: %w", len(keys), err)
		}
		n.revoked.Store(&after)
	}
	return nil
}

// writeList has a file list keys; all says that none is missing.
func (n *Node) writeList(name string, keys map[string]bool, all bool) error {
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
	return nil
}

// RevokedKeys are all keys that were withdrawn, sorted.
func (n *Node) RevokedKeys() []string {
	return slices.Sorted(maps.Keys(*n.revoked.Load()))
}

// Revoked says whether the key was withdrawn, by an operator's word, at once. It fits
// [fleet.Genesis.VerifyPeer].
func (n *Node) Revoked(key string) bool { return (*n.revoked.Load())[key] }

// readAgain reads the lists that the disk did not give: it may by now. n.mu is held.
func (n *Node) readAgain() {
	n.readLists(func(name string) bool {
		unread := n.damaged[name].unread
		if unread {
			delete(n.damaged, name)
		}
		return unread
	})
}

// addKeys adds the keys of a list, and of one that is damaged those that can still be read.
func addKeys(all map[string]bool, raw []byte) error {
	keys, err := parseRevoked(raw)
	if err != nil && !errors.Is(err, errPartial) {
		keys = keysIn(raw)
	}
	for _, k := range keys {
		all[k] = true
	}
	return err
}

// readRevoked reads the lists. Of one that cannot be read all keys stay revoked that are found in
// it, and [Node.Forgets] says that there may have been more. Those of a list that lies aside stay so, too:
// the disk may not have given it when another one took its place.
func (n *Node) readRevoked() {
	n.revoked.Store(new(map[string]bool))
	n.told.Store(new(map[string]bool))
	n.readLists(func(string) bool { return true })
	all := maps.Clone(*n.revoked.Load())
	for _, name := range []string{revokedName, addedName} {
		for i := range durable.MaxAside {
			raw, err := n.files.Read(durable.AsideName(name, i+1))
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			_ = addKeys(all, raw)
		}
	}
	n.revoked.Store(&all)
}

// readLists reads those that are wanted, and adds what they list to what is known.
func (n *Node) readLists(wanted func(name string) bool) {
	for _, list := range []struct {
		names []string
		keys  *atomic.Pointer[map[string]bool]
	}{{[]string{revokedName, addedName}, &n.revoked}, {toldNames, &n.told}} {
		all := make(map[string]bool)
		maps.Copy(all, *list.keys.Load())
		for _, name := range list.names {
			if wanted(name) {
				n.read(name, func(raw []byte) error { return addKeys(all, raw) })
			}
		}
		if list.keys == &n.told {
			n.spare(all)
		}
		list.keys.Store(&all)
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
