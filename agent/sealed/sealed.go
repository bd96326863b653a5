// Package sealed keeps texts of a node under a key of its own: text in, and out comes one
// that only the key opens again (age, X25519). The key lies in a file of its own, readable
// by root alone.
//
// That protects what leaves the node without the key: a backup or a support archive of the
// one folder, a copy of the file. It does not protect from root on the node, nor from
// whoever holds the whole disk: key and text are both on it, for a node has to start its
// work after a boot without anybody there. Flash may keep the old content of either for
// long.
package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"kogge.example/update/durable"
)

// ErrLocked means that a text cannot be opened with the key that the node has, and never
// will be: it can only be forgotten.
var ErrLocked = errors.New("not encrypted to the key of this node")

// ErrDamaged means that what lies where the key should be is none. It opens nothing.
var ErrDamaged = errors.New("is not a key")

// Key is the path of a key. Who uses it does one thing at a time.
type Key string

// magic is how a text of Seal begins.
//
// Source: the format of age, github.com/C2SP/C2SP/blob/main/age.md
const magic = "age-encryption.org/v1\n"

// Is says whether text is one that Seal made.
func Is(text []byte) bool { return bytes.HasPrefix(text, []byte(magic)) }

// Seal encrypts a text. The key is made when it is first needed, and is on the disk for
// good before Seal returns; one that cannot be read is an error and is never replaced.
func (k Key) Seal(clear []byte) ([]byte, error) {
	identity, err := k.Make()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	w, err := age.Encrypt(&text, identity.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(clear); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// Open decrypts what Seal made of a text of at most so many bytes.
func (k Key) Open(text io.Reader, most int64) ([]byte, error) {
	identity, err := k.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is gone", ErrLocked, k)
	}
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(text, identity)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("%w in %s", ErrLocked, k)
	}
	if err != nil {
		return nil, err
	}
	clear, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(clear)) > most {
		err = fmt.Errorf("longer than %d bytes", most)
	}
	if err != nil {
		return nil, err
	}
	return clear, nil
}

// Forget drops the key; that there is none is no error.
func (k Key) Forget() error {
	if err := durable.Remove(string(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SetAside makes room for a new key where there is a damaged one, which lies beside it for whoever
// can repair it, as [durable.AsideName], and beside those from before. After a cut it is there under one
// of the names.
func (k Key) SetAside() error { return durable.Aside(string(k)) }

// Make returns the key, which it makes if there is none.
func (k Key) Make() (*age.X25519Identity, error) {
	identity, err := k.read()
	if !errors.Is(err, fs.ErrNotExist) {
		return identity, err
	}
	if identity, err = age.GenerateX25519Identity(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(string(k)), 0o700); err != nil {
		return nil, err
	}
	return identity, durable.Replace(string(k), []byte(identity.String()+"\n"), 0o600)
}

// maxKey is more than a key has, in bytes.
const maxKey = 1 << 10

func (k Key) read() (*age.X25519Identity, error) {
	f, err := os.Open(string(k))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %w", k, ErrDamaged)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %#o: it may hold secrets, so its mode must be 0600", k, st.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, err
	}
	identity, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s %w", k, ErrDamaged) // the reason might repeat some of it
	}
	return identity, nil
}
