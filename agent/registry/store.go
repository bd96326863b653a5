package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"kogge.example/agent/sealed"
	"kogge.example/update/durable"
)

// ErrLocked means that the settings of registries cannot be opened with the key that
// the node has, and never will be: they can only be forgotten.
var ErrLocked = sealed.ErrLocked

// ErrSettings means that settings contradict themselves, or are too many.
var ErrSettings = errors.New("settings refused")

// Store keeps the settings of image registries on STATE, encrypted to a key that lies in a
// file of its own. Package sealed says from whom that protects.
//
// Its methods may be called from any goroutine.
type Store struct {
	path string
	key  sealed.Key
	mu   sync.Mutex // held while a file is read or written
}

// Open makes a store of the settings at path, which need not exist, under
// the key at key, which is made when first needed.
func Open(path, key string) *Store {
	return &Store{path: path, key: sealed.Key(key)}
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
	if err := durable.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("registries: %w", err)
	}
	if err := s.key.Forget(); err != nil {
		return fmt.Errorf("registries: %w", err)
	}
	return nil
}

// read is Read for who holds mu.
func (s *Store) read() (Registries, error) {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registries: %w", err)
	}
	defer f.Close()
	data, err := s.key.Open(f, maxRegistries)
	if err != nil {
		return nil, fmt.Errorf("registries: %s: %w", s.path, err)
	}
	r, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("registries: %s: %w", s.path, err)
	}
	return r, nil
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
	text, err := s.key.Seal(clear)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.path), 0o700)
	}
	if err == nil {
		err = durable.Replace(s.path, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("registries: %w", err)
	}
	return nil
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
