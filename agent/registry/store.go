package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"filippo.io/age"

	"kogge.example/update/durable"
)

// ErrLocked means that the settings of registries cannot be opened with the key that
// the node has, and never will be: they can only be forgotten.
var ErrLocked = errors.New("not encrypted to the key of this node")

// ErrSettings means that settings contradict themselves, or are too many.
var ErrSettings = errors.New("settings refused")

// Store keeps the settings of image registries on STATE, encrypted (age,
// X25519) to a key that lies in a file of its own, readable by root alone.
//
// That protects what leaves the node without the key: a backup or a support archive
// of the one folder, a copy of the file. It does not protect from root on the node,
// nor from whoever holds the whole disk: both files are on it, for a node has to pull
// after a boot without anybody there. Flash may keep the old content of either for long.
//
// Its methods may be called from any goroutine.
type Store struct {
	path, key string
	mu        sync.Mutex // held while a file is read or written
}

// Open makes a store of the settings at path, which need not exist, under
// the key at key, which is made when first needed.
func Open(path, key string) *Store {
	return &Store{path: path, key: key}
}

// Read returns the settings. None is no error.
func (s *Store) Read() (Registries, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read()
}

// Change lets edit make other settings of those that there are, and keeps them unless
// edit returns an error. After a power cut at any point the node has the old settings
// or the new ones, and once Change has returned it has the new ones.
func (s *Store) Change(edit func(Registries) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.read()
	if err != nil {
		return err
	}
	if r == nil {
		r = Registries{}
	}
	if err := edit(r); err != nil {
		return err
	}
	return s.write(r)
}

// Forget drops all settings, also those that are [ErrLocked], and the key.
func (s *Store) Forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The key last: without it nobody could read what a power cut left.
	for _, path := range []string{s.path, s.key} {
		if err := durable.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("registries: %w", err)
		}
	}
	return nil
}

// read is Read for who holds mu.
func (s *Store) read() (Registries, error) {
	sealed, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registries: %w", err)
	}
	defer sealed.Close()
	data, err := s.open(sealed)
	if err != nil {
		return nil, fmt.Errorf("registries: %s: %w", s.path, err)
	}
	r, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("registries: %s: %w", s.path, err)
	}
	return r, nil
}

// open decrypts settings.
func (s *Store) open(sealed io.Reader) ([]byte, error) {
	identity, err := readKey(s.key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is gone", ErrLocked, s.key)
	}
	if err != nil {
		return nil, err
	}
	clear, err := age.Decrypt(sealed, identity)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("%w in %s", ErrLocked, s.key)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(clear, maxRegistries+1))
}

// write encrypts and replaces the settings, in a folder that exists.
func (s *Store) write(r Registries) error {
	clear, err := r.encode()
	if err == nil {
		// What could not be read again is refused while there is still somebody to tell.
		_, err = Parse(clear)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSettings, err)
	}
	return s.seal(clear)
}

// seal is write of what is encoded.
func (s *Store) seal(clear []byte) error {
	identity, err := s.makeKey()
	if err != nil {
		return fmt.Errorf("registries: %w", err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, identity.Recipient())
	if err == nil {
		_, err = w.Write(clear)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.path), 0o700)
	}
	if err == nil {
		err = durable.Replace(s.path, sealed.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("registries: %w", err)
	}
	return nil
}

// makeKey returns the key, which it makes if there is none. One that cannot be read
// is an error and is never replaced.
func (s *Store) makeKey() (*age.X25519Identity, error) {
	identity, err := readKey(s.key)
	if !errors.Is(err, fs.ErrNotExist) {
		return identity, err
	}
	if identity, err = age.GenerateX25519Identity(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(s.key), 0o700); err != nil {
		return nil, err
	}
	return identity, durable.Replace(s.key, []byte(identity.String()+"\n"), 0o600)
}

func readKey(path string) (*age.X25519Identity, error) {
	text, err := readPrivate(path, 1<<10)
	if err != nil {
		return nil, err
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is not a key", path) // the reason might repeat some of it
	}
	return identity, nil
}

// encode is the settings as [Parse] reads them, passwords in clear.
func (r Registries) encode() ([]byte, error) {
	type access struct {
		CA       string `json:"ca,omitempty"`
		User     string `json:"user,omitempty"`
		Password string `json:"password,omitempty"`
		Insecure bool   `json:"insecure,omitempty"`
	}
	type mirror struct {
		URL string `json:"url"`
		access
	}
	type registry struct {
		access
		Mirrors []mirror `json:"mirrors,omitempty"`
	}
	clear := func(a Access) access { return access{a.CA, a.User, string(a.Password), a.Insecure} }
	all := make(map[string]registry, len(r))
	for host, one := range r {
		to := registry{access: clear(one.Access)}
		for _, m := range one.Mirrors {
			to.Mirrors = append(to.Mirrors, mirror{m.URL, clear(m.Access)})
		}
		all[host] = to
	}
	return json.Marshal(all)
}
