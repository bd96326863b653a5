package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kogge.example/agent/workload"
)

// ownerOf is the user namespace that id has by now; zero if it has none. same says that it
// has these ids.
func (b *Bridges) ownerOf(id string, more workload.Extents) (o workload.Owner, same bool, err error) {
	entries, err := os.ReadDir(b.users)
	if err != nil {
		return workload.Owner{}, false, fmt.Errorf("list user namespaces: %w", err)
	}
	for _, e := range entries {
		if name, slot, ok := ownerName(e.Name()); ok && name == id {
			o := b.owner(name, slot, more)
			return o, filepath.Base(o.File) == e.Name(), nil
		}
	}
	return workload.Owner{}, false, nil
}

// newOwner reserves ids of the node that nobody has, for id: its file is there then, and
// newNamespace mounts the namespace on it.
func (b *Bridges) newOwner(id string, more workload.Extents) (workload.Owner, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries, err := os.ReadDir(b.users)
	if err != nil {
		return workload.Owner{}, fmt.Errorf("list user namespaces: %w", err)
	}
	taken := make(map[uint32]bool)
	for _, e := range entries {
		if _, slot, ok := ownerName(e.Name()); ok {
			taken[slot] = true
		}
	}
	for slot := uint32(1); slot < workload.Slots; slot++ {
		if !taken[slot] {
			o := b.owner(id, slot, more)
			return o, touch(o.File)
		}
	}
	return workload.Owner{}, errors.New("no user IDs are left")
}

// The file of a user namespace is called by its container and its slot, and by its further
// ids if it has any.

func (b *Bridges) owner(id string, slot uint32, more workload.Extents) workload.Owner {
	name := fmt.Sprintf("%s.%d", id, slot)
	if more != "" {
		sum := sha256.Sum256([]byte(more))
		name += "-" + hex.EncodeToString(sum[:8])
	}
	return workload.Owner{File: filepath.Join(b.users, name), First: slot * workload.IDs, More: more}
}

func ownerName(file string) (id string, slot uint32, ok bool) {
	i := strings.LastIndexByte(file, '.')
	if i < 0 {
		return "", 0, false
	}
	number, _, _ := strings.Cut(file[i+1:], "-")
	n, err := strconv.ParseUint(number, 10, 16)
	return file[:i], uint32(n), err == nil && n > 0
}

// disown takes the user namespace of id away; none is no error.
func (b *Bridges) disown(id string) error {
	entries, err := os.ReadDir(b.users)
	if err != nil {
		return fmt.Errorf("list user namespaces: %w", err)
	}
	for _, e := range entries {
		if name, _, ok := ownerName(e.Name()); ok && name == id {
			err = errors.Join(err, removeNamespace(filepath.Join(b.users, e.Name())))
		}
	}
	return err
}
