package release

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// names are the files in the order in which a release has them: roots first.
func (f metadataFiles) names() []string {
	version := func(name string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(name, "."+metadata.ROOT+".json"))
		if err != nil {
			return maxRoots * 1000 // behind the roots
		}
		return n
	}
	return slices.SortedFunc(maps.Keys(f), func(x, y string) int {
		if c := version(x) - version(y); c != 0 {
			return c
		}
		return compareText(x, y)
	})
}

// Prepare gives the release the metadata that is to be signed, instead of what it
// had: what each board's manifest is, until when that is good, and the roots that
// lead to the keys, the first one in front.
func (b *Bundle) Prepare(expires time.Time, roots [][]byte) error {
	if len(b.boards) == 0 {
		return errors.New("prepare signatures: the release has no board")
	}
	expires = expires.UTC().Truncate(time.Second)
	counter := int64(b.boards[0].Facts.Counter)
	targets, snapshot, timestamp := metadata.Targets(expires), metadata.Snapshot(expires), metadata.Timestamp(expires)
	targets.Signed.Version, snapshot.Signed.Version, timestamp.Signed.Version = counter, counter, counter
	// No hashes here: a signature more would change them, and all that is needed is
	// that the three are of one release.
	snapshot.Signed.Meta[targetsName] = &metadata.MetaFiles{Version: counter}
	timestamp.Signed.Meta[snapshotName] = &metadata.MetaFiles{Version: counter}
	for _, one := range b.boards {
		said, err := json.Marshal(custom{Version: one.Facts.Version, Counter: one.Facts.Counter})
		if err != nil {
			return err
		}
		digest, err := hex.DecodeString(digestOf(one.manifest).Encoded())
		if err != nil {
			return err
		}
		targets.Signed.Targets[targetName(one.Facts.Board)] = &metadata.TargetFiles{
			Length: int64(len(one.manifest)), Hashes: metadata.Hashes{"sha256": digest}, Custom: (*json.RawMessage)(&said),
		}
	}
	b.tuf = metadataFiles{}
	var err [3]error
	b.tuf[targetsName], err[0] = targets.ToBytes(true)
	b.tuf[snapshotName], err[1] = snapshot.ToBytes(true)
	b.tuf[timestampName], err[2] = timestamp.ToBytes(true)
	if err := errors.Join(err[:]...); err != nil {
		return fmt.Errorf("prepare signatures: %w", err)
	}
	if err := b.AddRoots(roots); err != nil {
		return err
	}
	return b.finish()
}

// AddRoots has the release carry further versions of root.json. One that it carries
// already must be the same.
func (b *Bundle) AddRoots(roots [][]byte) error {
	for _, raw := range roots {
		root, err := ParseRoot(raw)
		if err != nil {
			return err
		}
		name := rootName(root.Version)
		if have, ok := b.tuf[name]; ok && string(have) != string(raw) {
			return fmt.Errorf("the release has a different %s: it belongs to other keys", name)
		}
		b.tuf[name] = raw
	}
	return b.finish()
}

// NewestRoot is the newest root.json that the release carries, unverified; nil if it
// has none.
func (b *Bundle) NewestRoot() []byte {
	for version := int64(maxRoots); version > 0; version-- {
		if raw, ok := b.tuf[rootName(version)]; ok {
			return raw
		}
	}
	return nil
}

// Sign signs targets, snapshot and timestamp with one key, which may have signed
// before.
func (b *Bundle) Sign(key ed25519.PrivateKey) error {
	files := maps.Clone(b.tuf)
	err := errors.Join(
		signFile[metadata.TargetsType](files, targetsName, key),
		signFile[metadata.SnapshotType](files, snapshotName, key),
		signFile[metadata.TimestampType](files, timestampName, key),
	)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	b.tuf = files
	return b.finish()
}

// roles are the kinds of TUF's metadata.
type roles interface {
	metadata.RootType | metadata.SnapshotType | metadata.TimestampType | metadata.TargetsType
}

func signFile[T roles](files metadataFiles, name string, key ed25519.PrivateKey) error {
	m, err := parseMetadata[T](files[name])
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := addSignature(m, key); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	files[name], err = m.ToBytes(true)
	return err
}

// addSignature signs with a key. The order of the signatures is that of the keys' ids.
func addSignature[T roles](m *metadata.Metadata[T], key ed25519.PrivateKey) error {
	id, err := KeyID(key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	m.Signatures = slices.DeleteFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id })
	signer, err := signature.LoadED25519Signer(key)
	if err != nil {
		return err
	}
	if _, err := m.Sign(signer); err != nil {
		return err
	}
	slices.SortFunc(m.Signatures, func(x, y metadata.Signature) int { return compareText(x.KeyID, y.KeyID) })
	return nil
}

// parseMetadata reads one of TUF's files.
func parseMetadata[T roles](raw []byte) (m *metadata.Metadata[T], err error) {
	defer unpanic(&err)
	if len(raw) == 0 {
		return nil, layoutError(errors.New("it is missing"))
	}
	m, err = new(metadata.Metadata[T]).FromBytes(raw)
	if err != nil {
		return nil, layoutError(err)
	}
	return m, nil
}

// KeyID is TUF's name of a key.
func KeyID(key ed25519.PublicKey) (string, error) {
	k, err := metadata.KeyFromPublicKey(key)
	if err != nil {
		return "", err
	}
	return k.ID()
}

// Tally is how many of the keys of a role have signed.
type Tally struct {
	Role string `json:"role"`
	Have int    `json:"have"` // distinct keys
	Want int    `json:"want"`
	Of   int    `json:"of"` // keys that may sign
}

// String is "2 of 3 targets signatures".
func (t Tally) String() string { return fmt.Sprintf("%d of %d %s signatures", t.Have, t.Want, t.Role) }

// Signatures counts who has signed the release, by what root says.
func (b *Bundle) Signatures(root Root) []Tally {
	return []Tally{
		tally[metadata.TargetsType](root, metadata.TARGETS, b.tuf[targetsName]),
		tally[metadata.SnapshotType](root, metadata.SNAPSHOT, b.tuf[snapshotName]),
		tally[metadata.TimestampType](root, metadata.TIMESTAMP, b.tuf[timestampName]),
	}
}

func tally[T roles](root Root, role string, raw []byte) Tally {
	keys := root.keys[role]
	t := Tally{Role: role, Want: root.want[role], Of: len(keys)}
	m, err := parseMetadata[T](raw)
	if err != nil {
		return t
	}
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return t
	}
	for id, key := range keys {
		if slices.ContainsFunc(m.Signatures, func(s metadata.Signature) bool { return s.KeyID == id && ed25519.Verify(key, payload, s.Signature) }) {
			t.Have++
		}
	}
	return t
}

// Expires is until when the signatures of the release are good; zero if it has none.
func (b *Bundle) Expires() time.Time {
	m, err := parseMetadata[metadata.TargetsType](b.tuf[targetsName])
	if err != nil {
		return time.Time{}
	}
	return m.Signed.Expires
}
