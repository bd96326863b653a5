package keys

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/update/locked"
	"kogge.example/update/release"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// nobody is asked for a passphrase in these tests.
func nobody() (string, error) { return "", errors.New("somebody is asked for a passphrase") }

// TestSet makes a set, replaces a key, adds one of somebody else, and finds all of it
// again when it is opened.
func TestSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "release", "default")
	if _, err := Open(dir); !errors.Is(err, ErrNoSet) {
		t.Fatalf("before there is one: %v", err)
	}
	s, err := Create(dir, Plan{Root: Quota{2, 3}, Targets: Quota{1, 1}}, now)
	must(t, err)
	if _, err := Create(dir, Plan{Root: Quota{1, 1}, Targets: Quota{1, 1}}, now); !errors.Is(err, ErrExists) {
		t.Errorf("a second one in the same place: %v", err)
	}
	root, err := s.Private(release.RoleRoot, nobody)
	must(t, err)
	if len(root) != 3 {
		t.Fatalf("%d root keys", len(root))
	}
	bob, err := Make(filepath.Join(t.TempDir(), "bob"), "", 10)
	must(t, err)
	add := Change{Role: release.RoleTargets, Add: []ed25519.PublicKey{bob.Public().(ed25519.PublicKey)}, K: 2}
	if err := s.Rotate(add, root[:1], now); !errors.Is(err, ErrTooFew) {
		t.Errorf("with one root key of two: %v", err)
	}
	must(t, s.Rotate(add, root[:2], now))
	if err := s.Rotate(add, root[:2], now); err == nil {
		t.Error("a key is added twice")
	}
	if err := s.Rotate(Change{K: 2}, root[:2], now); err == nil || s.Root.Version != 2 {
		t.Errorf("a threshold of no role: version %d, %v", s.Root.Version, err)
	}
	// A root key is lost: the two others put another in its place.
	fresh, err := Make(s.FreeName(release.RoleRoot), "", 10)
	must(t, err)
	lost := root[2].Public().(ed25519.PublicKey)
	must(t, s.Rotate(Change{Role: release.RoleRoot, Drop: []ed25519.PublicKey{lost}, Add: []ed25519.PublicKey{fresh.Public().(ed25519.PublicKey)}}, root[:2], now))

	s, err = Open(dir)
	must(t, err)
	all, err := s.Keys()
	must(t, err)
	var list []string
	for _, k := range all {
		list = append(list, fmt.Sprintf("%s %s %v", k.Role, k.Name, k.File != ""))
	}
	got := strings.Join(list, ", ")
	want := "root root-1 true, root root-2 true, root root-4 true, targets  false, targets targets-1 true"
	if got != want || s.Root.Version != 3 || s.Root.Threshold(release.RoleTargets) != 2 || !s.Root.Expires.Equal(now.Add(RootLife)) {
		t.Errorf("version %d: %s\nwant %s", s.Root.Version, got, want)
	}
	for name, mode := range map[string]os.FileMode{".": 0o700 | os.ModeDir, "root-1.key": 0o600, "1.root.json": 0o644} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "3.root.json"), s.Roots[0], 0o600))
	if _, err := Open(dir); err == nil {
		t.Error("a set with a root.json of another version opens")
	}
}

// TestCreateAgain: what a cut has left of a set that was not finished is no set, and
// is made anew.
func TestCreateAgain(t *testing.T) {
	dir := t.TempDir()
	old, err := Make(filepath.Join(dir, "root-1"), "", 10)
	must(t, err)
	s, err := Create(dir, Plan{Root: Quota{1, 1}, Targets: Quota{1, 1}}, now)
	must(t, err)
	private, err := s.Private(release.RoleRoot, nobody)
	must(t, err)
	if len(private) != 1 || private[0].Equal(old) {
		t.Errorf("%d keys, or the old one", len(private))
	}
}

// TestLocked asks for the passphrase once.
func TestLocked(t *testing.T) {
	s, err := Create(t.TempDir()+"/set", Plan{Root: Quota{1, 2}, Targets: Quota{1, 1}, Passphrase: "sesame", Work: 10}, now)
	must(t, err)
	asked := 0
	private, err := s.Private(release.RoleRoot, func() (string, error) { asked++; return "sesame", nil })
	if err != nil || len(private) != 2 || asked != 1 {
		t.Errorf("%d keys, asked %d times, %v", len(private), asked, err)
	}
	if _, err := s.Private(release.RoleTargets, func() (string, error) { return "semolina", nil }); !errors.Is(err, locked.ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	if names, err := filepath.Glob(filepath.Join(s.Dir, "*.key")); err != nil || len(names) > 0 {
		t.Errorf("open keys: %v, %v", names, err)
	}
}

// TestBadFiles reads what is no key.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := Make(filepath.Join(dir, "good"), "", 10)
	must(t, err)
	good, err := os.ReadFile(filepath.Join(dir, "good.key"))
	must(t, err)
	for name, text := range map[string]string{
		"empty": "", "text": "hello", "public": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"garbage": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "two": string(good) + string(good),
		"large": strings.Repeat("#", maxFile+1), "locked, cut": "-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n",
	} {
		file := filepath.Join(dir, "bad")
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if _, err := Read(file, func() (string, error) { return "x", nil }); err == nil {
			t.Errorf("%s: a private key", name)
		}
		if _, err := ReadPublic(file); err == nil {
			t.Errorf("%s: a public key", name)
		}
	}
	if _, err := Read(dir, nobody); err == nil {
		t.Error("a folder is a key")
	}
	for text, want := range map[string]Quota{"2/3": {2, 3}, "1/1": {1, 1}, "0/1": {}, "3/2": {}, "1/17": {}, "1": {}, "a/b": {}, "": {}} {
		if q, err := ParseQuota(text); (err == nil) != (want != Quota{}) || err == nil && q != want {
			t.Errorf("quota %q: %v, %v", text, q, err)
		}
	}
}

// TestMakeAgain makes a key where a run that was cut left half of one, under a passphrase.
func TestMakeAgain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "targets-1")
	_, err := Make(name, "a passphrase", 10)
	must(t, err)
	must(t, os.Remove(name+".pub"))
	again, err := Make(name, "", 10)
	must(t, err)
	if _, err := os.Stat(name + ".key.age"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old half is there: %v", err)
	}
	public, err := ReadPublic(name + ".pub")
	must(t, err)
	if !public.Equal(again.Public()) {
		t.Error("another public key")
	}
}
