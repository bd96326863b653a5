package release

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Root is one version of root.json: which keys make a release, and which say so.
type Root struct {
	Version int64
	Expires time.Time

	keys map[string]map[string]ed25519.PublicKey // by role and id
	want map[string]int                          // by role
}

// Role is who signs: roots say which keys there are, targets make releases.
type Role string

// The two roles that keys have. Snapshot and timestamp are signed by the keys of
// targets: a release is one thing, and its counter is the version of all three.
const (
	RoleRoot    Role = metadata.ROOT
	RoleTargets Role = metadata.TARGETS
)

// Keys are the public keys of a role, by id.
func (r Root) Keys(role Role) map[string]ed25519.PublicKey { return r.keys[string(role)] }

// Threshold is how many of a role's keys have to sign.
func (r Root) Threshold(role Role) int { return r.want[string(role)] }

// ParseRoot reads a root.json. Whether to trust it is another question.
func ParseRoot(raw []byte) (Root, error) {
	m, err := parseMetadata[metadata.RootType](raw)
	if err != nil {
		return Root{}, fmt.Errorf("root.json: %w", err)
	}
	r := Root{Version: m.Signed.Version, Expires: m.Signed.Expires, keys: map[string]map[string]ed25519.PublicKey{}, want: map[string]int{}}
	if r.Version < 1 || r.Version > maxRoots {
		return Root{}, fmt.Errorf("root.json: version %d: want 1 to %d", r.Version, maxRoots)
	}
	for name, role := range m.Signed.Roles {
		if role == nil {
			return Root{}, fmt.Errorf("root.json: %w: role %.40q is null", ErrLayout, name)
		}
		r.keys[name], r.want[name] = map[string]ed25519.PublicKey{}, role.Threshold
		for _, id := range role.KeyIDs {
			key, ok := m.Signed.Keys[id]
			if !ok || key == nil || key.Type != metadata.KeyTypeEd25519 {
				return Root{}, fmt.Errorf("root.json: %w: key %.16q of role %.40q is not an Ed25519 key", ErrLayout, id, name)
			}
			public, err := hex.DecodeString(key.Value.PublicKey)
			if err != nil || len(public) != ed25519.PublicKeySize {
				return Root{}, fmt.Errorf("root.json: %w: key %.16q of role %.40q is not an Ed25519 key", ErrLayout, id, name)
			}
			r.keys[name][id] = public
		}
	}
	return r, nil
}

// NewRoot is a root.json to be signed: whose keys count, and how many of each.
type NewRoot struct {
	Version       int64
	Expires       time.Time
	Root, Targets []ed25519.PublicKey
	// RootK and TargetsK are how many of the keys have to sign.
	RootK, TargetsK int
}

// Sign makes the root.json, signed by all of keys.
func (n NewRoot) Sign(keys []ed25519.PrivateKey) ([]byte, error) {
	m := metadata.Root(n.Expires.UTC().Truncate(time.Second))
	m.Signed.Version, m.Signed.ConsistentSnapshot = n.Version, false
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		want, list := n.TargetsK, n.Targets
		if role == metadata.ROOT {
			want, list = n.RootK, n.Root
		}
		if want < 1 || want > len(list) {
			return nil, fmt.Errorf("root.json: %d of %d keys for %s: want at least one, and no more than there are", want, len(list), role)
		}
		m.Signed.Roles[role].Threshold = want
		for _, public := range list {
			key, err := metadata.KeyFromPublicKey(public)
			if err != nil {
				return nil, fmt.Errorf("root.json: %w", err)
			}
			if err := m.Signed.AddKey(key, role); err != nil {
				return nil, fmt.Errorf("root.json: %w", err)
			}
		}
		if len(m.Signed.Roles[role].KeyIDs) != len(list) {
			return nil, errors.New("root.json: a key is named twice")
		}
	}
	for _, key := range keys {
		if err := addSignature(m, key); err != nil {
			return nil, fmt.Errorf("root.json: %w", err)
		}
	}
	return m.ToBytes(true)
}

// CheckRoots says whether the last of roots follows from the first: each newer one
// signed by enough keys of the one before it, and of its own.
func CheckRoots(roots [][]byte) error {
	if len(roots) == 0 {
		return fmt.Errorf("%w: there is none", ErrTrust)
	}
	files := metadataFiles{}
	for i, raw := range roots {
		root, err := ParseRoot(raw)
		if err != nil {
			return err
		}
		if root.Version != int64(i+1) {
			return fmt.Errorf("%d.root.json has version %d", i+1, root.Version)
		}
		files[rootName(root.Version)] = raw
	}
	version, err := files.walk(roots[0])
	if err == nil && version != int64(len(roots)) {
		err = fmt.Errorf("root.json: version %d does not follow", version+1)
	}
	return err
}
