package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"kogge.example/update/fleet/document"
)

// list is a list that a fleet's folder keeps in a file of its own: what was given out
// from there, and to whom.
type list[T any] struct {
	name  string // of the file
	most  int    // bytes of the file
	parse func(raw []byte) ([]T, error)
	file  func(all []T) any // what the file holds, for encodeJSON
}

// read is the list as it is on disk; a file that is not there is an empty one.
func (l list[T]) read(k *Keyring) ([]T, error) {
	raw, err := os.ReadFile(k.path(l.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(raw) > l.most {
		return nil, fmt.Errorf("%s: %d bytes: %d at most", l.name, len(raw), l.most)
	}
	all, err := l.parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.name, err)
	}
	return all, nil
}

// all is read for those outside the package.
func (l list[T]) all(k *Keyring) ([]T, error) {
	all, err := l.read(k)
	if err != nil {
		return nil, fmt.Errorf("fleet %s: %w", k.Genesis.Name, err)
	}
	return all, nil
}

// edit changes the list while no other program does. After a power cut it is as it was
// before or after; with an error it is as before.
func (l list[T]) edit(k *Keyring, change func(all []T) ([]T, error)) error {
	return k.Alone(func() error {
		all, err := l.read(k)
		if err != nil {
			return err
		}
		if all, err = change(all); err != nil {
			return err
		}
		text, err := document.Encode(l.file(all))
		if err != nil {
			return err
		}
		return replaceFile(k.path(l.name), text)
	})
}
