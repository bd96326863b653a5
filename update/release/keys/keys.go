// Package keys keeps the keys that make releases, on the computers of those who make
// them. In comes a folder; out come signatures and versions of root.json. Nodes know
// the public side only, in package release.
//
// A set is a folder:
//
//	N.root.json              every version since the first; public
//	NAME.pub                 a public key, root-1 or targets-1 for instance
//	NAME.key, NAME.key.age   the private one, open or under a passphrase
//
// Private keys may lie elsewhere: those of the root belong on media that are put away.
package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/locked"
	"kogge.example/update/release"
)

var (
	// ErrNoSet says that there is no key set in a folder.
	ErrNoSet = errors.New("there is no key set")
	// ErrExists says that there is one.
	ErrExists = errors.New("there is a key set already")
	// ErrTooFew says that keys are missing to make a new root.json.
	ErrTooFew = errors.New("too few root keys are here")
)

// RootLife is how long a root.json is good. Each new version begins it anew.
const RootLife = 5 * 365 * 24 * time.Hour

// Quota is how many keys of a role have to sign, K of N.
type Quota struct{ K, N int }

// ParseQuota reads K/N.
func ParseQuota(text string) (Quota, error) {
	k, n, ok := strings.Cut(text, "/")
	var q Quota
	var kErr, nErr error
	q.K, kErr = strconv.Atoi(k)
	q.N, nErr = strconv.Atoi(n)
	if !ok || kErr != nil || nErr != nil || q.K < 1 || q.N < q.K || q.N > 16 {
		return q, fmt.Errorf("%q: write K/N, K of N keys, like 2/3; N is 16 at most", text)
	}
	return q, nil
}

// String is K/N.
func (q Quota) String() string { return fmt.Sprintf("%d/%d", q.K, q.N) }

// Key is one key of a set.
type Key struct {
	Name   string // root-1; "" if no file of the folder has this key
	Role   release.Role
	ID     string
	Public ed25519.PublicKey
	// File is the private key's; "" if it is not in the folder.
	File   string
	Locked bool
}

// Set is a folder of keys.
type Set struct {
	Dir   string
	Roots [][]byte // all versions of root.json, the first one in front
	Root  release.Root
	// Work is what guessing a passphrase of a new file costs; see [locked.Work].
	Work int
}

func rootName(version int) string { return strconv.Itoa(version) + ".root.json" }

// Open reads the set in a folder.
func Open(dir string) (*Set, error) {
	s := &Set{Dir: dir, Work: locked.Work}
	for version := 1; ; version++ {
		raw, err := os.ReadFile(filepath.Join(dir, rootName(version)))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
		s.Roots = append(s.Roots, raw)
	}
	if len(s.Roots) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoSet)
	}
	if err := release.CheckRoots(s.Roots); err != nil {
		return nil, fmt.Errorf("key set %s: %w", dir, err)
	}
	var err error
	s.Root, err = release.ParseRoot(s.Roots[len(s.Roots)-1])
	return s, err
}

// Newest is the newest root.json: what nodes are to trust.
func (s *Set) Newest() []byte { return s.Roots[len(s.Roots)-1] }

// Plan is what a new set is like.
type Plan struct {
	Root, Targets Quota
	// Passphrase locks the private keys; "" leaves them open.
	Passphrase string
	// Work is what guessing it costs; 0 means [locked.Work].
	Work int
}

// Create makes a set in a folder, which is for the user alone. The first root.json is
// written last: after a cut there is a set, whole, or none, and a second Create makes
// it.
func Create(dir string, p Plan, now time.Time) (*Set, error) {
	if _, err := Open(dir); !errors.Is(err, ErrNoSet) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, ErrExists), err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	s := &Set{Dir: dir, Work: p.Work}
	if s.Work == 0 {
		s.Work = locked.Work
	}
	rootKeys, rootPublic, err := s.makeKeys(release.RoleRoot, p.Root.N, p.Passphrase)
	if err != nil {
		return nil, err
	}
	_, targets, err := s.makeKeys(release.RoleTargets, p.Targets.N, p.Passphrase)
	if err != nil {
		return nil, err
	}
	first := release.NewRoot{Version: 1, Expires: now.Add(RootLife), Root: rootPublic, RootK: p.Root.K, Targets: targets, TargetsK: p.Targets.K}
	if err := s.publish(first, rootKeys); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) makeKeys(role release.Role, n int, passphrase string) (private []ed25519.PrivateKey, public []ed25519.PublicKey, err error) {
	for i := range n {
		key, err := Make(filepath.Join(s.Dir, fmt.Sprintf("%s-%d", role, i+1)), passphrase, s.Work)
		if err != nil {
			return nil, nil, err
		}
		private, public = append(private, key), append(public, key.Public().(ed25519.PublicKey))
	}
	return private, public, nil
}

// publish signs a root.json with those of the keys that are to sign it, and adds it to
// the set.
func (s *Set) publish(next release.NewRoot, keys []ed25519.PrivateKey) error {
	raw, err := next.Sign(keys)
	if err != nil {
		return err
	}
	roots := append(slices.Clone(s.Roots), raw)
	if err := release.CheckRoots(roots); err != nil {
		if errors.Is(err, release.ErrSignatures) {
			return fmt.Errorf("%w: %w", ErrTooFew, err)
		}
		return err
	}
	file := filepath.Join(s.Dir, rootName(int(next.Version)))
	err = durable.Replace(file, raw, 0o644)
	if _, there := os.Stat(file); there != nil {
		return err
	}
	// It counts from now on, even if nobody knows whether it would after a cut.
	s.Roots = roots
	root, unread := release.ParseRoot(raw)
	s.Root = root
	return errors.Join(err, unread)
}

// Keys are those that the newest root.json names, by role and name. The folder may
// have none of their private sides.
func (s *Set) Keys() ([]Key, error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	var all []Key
	for _, role := range []release.Role{release.RoleRoot, release.RoleTargets} {
		for id, public := range s.Root.Keys(role) {
			key := files[id]
			key.Role, key.ID, key.Public = role, id, public
			all = append(all, key)
		}
	}
	slices.SortFunc(all, func(x, y Key) int {
		return strings.Compare(string(x.Role)+"\x00"+x.Name+"\x00"+x.ID, string(y.Role)+"\x00"+y.Name+"\x00"+y.ID)
	})
	return all, nil
}

// files are the keys that the folder has, by id.
func (s *Set) files() (map[string]Key, error) {
	names, err := filepath.Glob(filepath.Join(s.Dir, "*.pub"))
	if err != nil {
		return nil, err
	}
	found := map[string]Key{}
	for _, file := range names {
		public, err := ReadPublic(file)
		if err != nil {
			return nil, err
		}
		id, err := release.KeyID(public)
		if err != nil {
			return nil, err
		}
		key := Key{Name: strings.TrimSuffix(filepath.Base(file), ".pub")}
		for _, suffix := range []string{".key", ".key.age"} {
			private := strings.TrimSuffix(file, ".pub") + suffix
			if _, err := os.Stat(private); err == nil {
				key.File, key.Locked = private, suffix != ".key"
			}
		}
		found[id] = key
	}
	return found, nil
}

// Private reads the private keys of a role that the folder has, asking for the
// passphrase at most once, and only if it is needed.
func (s *Set) Private(role release.Role, passphrase func() (string, error)) ([]ed25519.PrivateKey, error) {
	all, err := s.Keys()
	if err != nil {
		return nil, err
	}
	ask := once(passphrase)
	var keys []ed25519.PrivateKey
	for _, key := range all {
		if key.Role != role || key.File == "" {
			continue
		}
		private, err := Read(key.File, ask)
		if err != nil {
			return nil, err
		}
		if !key.Public.Equal(private.Public()) {
			return nil, fmt.Errorf("key %s: it does not belong to %s.pub; is there another %s.key or .key.age?", key.File, key.Name, key.Name)
		}
		keys = append(keys, private)
	}
	return keys, nil
}

func once(ask func() (string, error)) func() (string, error) {
	var answer string
	var err error
	asked := false
	return func() (string, error) {
		if !asked {
			answer, err = ask()
			asked = true
		}
		return answer, err
	}
}

// Change is what a new root.json has that the old one has not.
type Change struct {
	Add, Drop []ed25519.PublicKey // of Role
	Role      release.Role
	// K is how many keys of the role have to sign from now on; 0: as many as before.
	K int
}

// Rotate makes the next root.json: signed by all of signers, of whom enough have to be
// root keys of the old one, and enough of the new one.
func (s *Set) Rotate(c Change, signers []ed25519.PrivateKey, now time.Time) error {
	next := release.NewRoot{Version: s.Root.Version + 1, Expires: now.Add(RootLife)}
	if c.Role == "" && (c.K != 0 || len(c.Add)+len(c.Drop) > 0) {
		return errors.New("a change of keys without a role")
	}
	for _, role := range []release.Role{release.RoleRoot, release.RoleTargets} {
		list := sorted(s.Root.Keys(role))
		k := s.Root.Threshold(role)
		if role == c.Role {
			list = slices.DeleteFunc(list, func(k ed25519.PublicKey) bool {
				return slices.ContainsFunc(c.Drop, func(d ed25519.PublicKey) bool { return d.Equal(k) })
			})
			list = append(list, c.Add...)
			if c.K != 0 {
				k = c.K
			}
		}
		if role == release.RoleRoot {
			next.Root, next.RootK = list, k
		} else {
			next.Targets, next.TargetsK = list, k
		}
	}
	if err := s.publish(next, signers); err != nil {
		return fmt.Errorf("version %d of root.json: %w", next.Version, err)
	}
	return nil
}

func sorted(keys map[string]ed25519.PublicKey) []ed25519.PublicKey {
	var ids []string
	for id := range keys {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var list []ed25519.PublicKey
	for _, id := range ids {
		list = append(list, keys[id])
	}
	return list
}

// FreeName is the first name of a role's keys that no file of the folder has.
func (s *Set) FreeName(role release.Role) string {
	for i := 1; ; i++ {
		name := filepath.Join(s.Dir, fmt.Sprintf("%s-%d", role, i))
		if _, err := os.Lstat(name + ".pub"); errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
}

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// Make makes a key in name.key, or name.key.age under a passphrase, and name.pub.
func Make(name, passphrase string, work int) (ed25519.PrivateKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	text, file := pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), name+".key"
	if passphrase != "" {
		if text, err = locked.Lock(text, passphrase, work); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		file += ".age"
	}
	if der, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return nil, err
	}
	for _, other := range []string{".key", ".key.age"} { // of a run that was cut before it made the .pub
		if _, err := os.Lstat(name + ".pub"); errors.Is(err, fs.ErrNotExist) && name+other != file {
			if err := os.Remove(name + other); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	if err := durable.Replace(file, text, 0o600); err != nil {
		return nil, err
	}
	return private, durable.Replace(name+".pub", pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), 0o644)
}

// maxFile is the size of the largest file of a key.
const maxFile = 64 << 10

// Read reads a private key, open or locked.
func Read(file string, passphrase func() (string, error)) (ed25519.PrivateKey, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	if locked.Is(text) {
		word, err := passphrase()
		if err != nil {
			return nil, err
		}
		if text, err = locked.Unlock(text, word); err != nil {
			return nil, fmt.Errorf("key %s: %w", file, err)
		}
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != privateBlock || len(rest) > 0 {
		return nil, fmt.Errorf("key %s: it is not a private key in PEM", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key %s: it is not an Ed25519 key", file)
	}
	return private, nil
}

// ReadPublic reads a public key.
func ReadPublic(file string) (ed25519.PublicKey, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != publicBlock || len(rest) > 0 {
		return nil, fmt.Errorf("key %s: it is not a public key in PEM", file)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key %s: it is not an Ed25519 key", file)
	}
	return public, nil
}

func readFile(file string) ([]byte, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("key %s: it is not a file of at most %d bytes", file, maxFile)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return text, nil
}
