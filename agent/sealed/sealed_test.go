package sealed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKey seals texts, opens them again, and has keys that are not there, another one's,
// broken or open to all. No error tells a secret.
func TestKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	k := Key(filepath.Join(dir, "x.key"))
	if _, err := k.Open(strings.NewReader("x"), 10); !errors.Is(err, ErrLocked) {
		t.Errorf("before there is one: %v", err)
	}
	clear := []byte("hunter2 hunter2 hunter2")
	text, err := k.Seal(clear)
	if err != nil {
		t.Fatal(err)
	}
	if !Is(text) || Is(clear) || Is(nil) || bytes.Contains(text, []byte("hunter")) {
		t.Errorf("sealed as %q", text)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, string(k): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	if got, err := k.Open(bytes.NewReader(text), int64(len(clear))); err != nil || !bytes.Equal(got, clear) {
		t.Errorf("opened as %q, %v", got, err)
	}
	if _, err := k.Open(bytes.NewReader(text), int64(len(clear))-1); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("too long: %v", err)
	}
	again, err := k.Seal(clear)
	if err != nil || bytes.Equal(again, text) {
		t.Errorf("the same text twice: %v", err)
	}
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 4
		if got, err := k.Open(bytes.NewReader(bad), 100); err == nil && !bytes.Equal(got, clear) || err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("byte %d changed: %q, %v", i, got, err)
		}
	}
	other := Key(filepath.Join(t.TempDir(), "y.key"))
	if _, err := other.Seal(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(bytes.NewReader(text), 100); !errors.Is(err, ErrLocked) {
		t.Errorf("with another key: %v", err)
	}
	for what, spoil := range map[string]func() error{
		"must be 0600": func() error { return os.Chmod(string(other), 0o640) },
		"is not a key": func() error {
			return errors.Join(os.Chmod(string(other), 0o600), os.WriteFile(string(other), []byte("AGE-SECRET-KEY-1HUNTER2"), 0o600))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		_, open := other.Open(bytes.NewReader(text), 100)
		_, seal := other.Seal(clear)
		for _, err := range []error{open, seal} {
			if err == nil || errors.Is(err, ErrLocked) || strings.Contains(err.Error(), "HUNTER") || !strings.Contains(err.Error(), "must be 0600") && !strings.Contains(err.Error(), "is not a key") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if err := errors.Join(k.Forget(), k.Forget()); err != nil {
		t.Error(err)
	}
	if _, err := k.Open(bytes.NewReader(text), 100); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "x.key is gone") {
		t.Errorf("forgotten: %v", err)
	}
}

// FuzzOpen opens what somebody else has written.
func FuzzOpen(f *testing.F) {
	k := Key(filepath.Join(f.TempDir(), "x.key"))
	text, err := k.Seal([]byte("a secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:40])
	f.Add([]byte(magic + "-> X25519 "))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := k.Open(bytes.NewReader(text), 1<<10)
		if err == nil && string(got) != "a secret" {
			t.Errorf("%q was opened as %q", text, got)
		}
	})
}
