package registry

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kogge.example/update/golden"
)

const settingsInClear = `{"r.example": {"user": "u", "password": "hunter2", "mirrors": [{"url": "https://m.example", "user": "m", "password": "hunter3"}]}, "s.example": {"insecure": true}}`

func settings(t *testing.T) Registries {
	t.Helper()
	r, err := Parse([]byte(settingsInClear))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newRegistryStore is a store whose folders are not there yet.
func newRegistryStore(t *testing.T) *Store {
	dir := t.TempDir()
	return Open(filepath.Join(dir, "kogge", "registries.age"), filepath.Join(dir, "identity", "registries.key"))
}

// knows fails unless s has what is wanted, also after a restart.
func knows(t *testing.T, s *Store, want Registries) {
	t.Helper()
	for _, one := range []*Store{s, Open(s.path, string(s.key))} {
		if got, err := one.Read(); err != nil || !cmp.Equal(got, want) {
			t.Errorf("the store has %#v, %v, want %#v", got, err, want)
		}
	}
}

// secretive fails if a file of the store tells a password, or may be read by others.
func secretive(t *testing.T, s *Store) {
	t.Helper()
	for _, path := range []string{s.path, string(s.key), s.path + ".new", string(s.key) + ".new"} {
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		text, readErr := os.ReadFile(path)
		if err != nil || readErr != nil {
			t.Fatal(err, readErr)
		}
		if info.Mode() != 0o600 || strings.Contains(string(text), "hunter") {
			t.Errorf("%s has mode %v and says %q", path, info.Mode(), text)
		}
	}
}

// TestRegistryStore keeps settings over restarts, and lets go of them.
func TestRegistryStore(t *testing.T) {
	s := newRegistryStore(t)
	knows(t, s, nil)
	if err := s.Change(func(r Registries) error {
		for host, one := range settings(t) {
			r[host] = one
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	knows(t, s, settings(t))
	secretive(t, s)
	refused := errors.New("no")
	if err := s.Change(func(r Registries) error { clear(r); return refused }); !errors.Is(err, refused) {
		t.Errorf("a change that was refused: %v", err)
	}
	for name, bad := range map[string]Registry{
		"b.example": {Access: Access{User: "u"}}, "https://b.example": {}, "b2.example": {Access: Access{User: "u", Password: Secret(strings.Repeat("x", maxRegistries))}},
	} {
		err := s.Change(func(r Registries) error { r[name] = bad; return nil })
		if err == nil || strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s: %v", name, err)
		}
	}
	knows(t, s, settings(t))
	if err := s.Change(func(r Registries) error { delete(r, "r.example"); return nil }); err != nil {
		t.Fatal(err)
	}
	knows(t, s, Registries{"s.example": settings(t)["s.example"]})
	if err := s.Forget(); err != nil {
		t.Fatal(err)
	}
	knows(t, s, nil)
	if err := s.Forget(); err != nil {
		t.Errorf("nothing to forget: %v", err)
	}
}

// TestRegistryStoreLocked: what cannot be opened is an error that says what, is left
// alone, and can be forgotten.
func TestRegistryStoreLocked(t *testing.T) {
	var other string
	for _, c := range []struct {
		name, words string
		locked      bool
		spoil       func(s *Store) error
	}{
		{"no key", "registries.key is gone", true, func(s *Store) error { return os.Remove(string(s.key)) }},
		{"another key", "not encrypted to the key", true, func(s *Store) error {
			elsewhere := newRegistryStore(t)
			identity, err := elsewhere.key.Make()
			if err != nil {
				return err
			}
			other = identity.String()
			return os.WriteFile(string(s.key), []byte(other), 0o600)
		}},
		{"a broken key", "is not a key", false, func(s *Store) error { return os.WriteFile(string(s.key), []byte("AGE-SECRET-KEY-1HUNTER2"), 0o600) }},
		{"a key for all", "must be 0600", false, func(s *Store) error { return os.Chmod(string(s.key), 0o644) }},
		{"a changed file", "registries.age", false, func(s *Store) error {
			sealed, err := os.ReadFile(s.path)
			if err != nil {
				return err
			}
			sealed[len(sealed)-1] ^= 1
			return os.WriteFile(s.path, sealed, 0o600)
		}},
		{"an empty file", "registries.age", false, func(s *Store) error { return os.Truncate(s.path, 0) }},
		{"an endless file", "longer than", false, func(s *Store) error { return s.seal(make([]byte, maxRegistries+1)) }},
		{"nonsense", "registries.age", false, func(s *Store) error { return s.seal([]byte(`{"r.example": {"password": "hunter2"}}`)) }},
	} {
		s := newRegistryStore(t)
		if err := s.write(settings(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(s); err != nil {
			t.Fatal(err)
		}
		_, err := s.Read()
		if err == nil || errors.Is(err, ErrLocked) != c.locked || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, want %q", c.name, err, c.words)
		}
		if changed := s.Change(func(r Registries) error { clear(r); return nil }); changed == nil || changed.Error() != err.Error() {
			t.Errorf("%s: changed: %v", c.name, changed)
		}
		if err := s.Forget(); err != nil {
			t.Errorf("%s: forget: %v", c.name, err)
		}
		if err := s.Change(func(r Registries) error { r["n.example"] = Registry{}; return nil }); err != nil {
			t.Errorf("%s: afterwards: %v", c.name, err)
		}
		knows(t, s, Registries{"n.example": {}})
	}
}

// TestRegistryName prints what registries are called that people call otherwise.
func TestRegistryName(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{"docker.io", "index.docker.io", "r.example", "r.example:5000", "localhost", "localhost:5000", "[::1]:5000", "192.0.2.1:5000", "hub", "R.example",
		"https://r.example", "r.example/library", "u:hunter2@r.example", "", "r.example\n", "-r.example"} {
		got, err := Name(name)
		if err != nil {
			got = err.Error()
		}
		b.WriteString(name + "  " + got + "\n")
	}
	golden.Compare(t, "registryname.txt", b.String())
}
