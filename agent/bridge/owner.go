package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kogge.example/agent/workload"
)

// ownerOf is the user namespace that id has by now; zero if it has none.
func (b *Bridges) ownerOf(id string) (workload.Owner, error) {
	entries, err := os.ReadDir(b.users)
	if err != nil {
		return workload.Owner{}, fmt.Errorf("list user namespaces: %w", err)
	}
	for _, e := range entries {
		if name, slot, ok := ownerName(e.Name()); ok && name == id {
			return b.owner(name, slot), nil
		}
	}
	return workload.Owner{}, nil
}

// newOwner reserves ids of the node that nobody has, for id: its file is there then, and
// newNamespace mounts the namespace on it.
func (b *Bridges) newOwner(id string) (workload.Owner, error) {
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
	for slot := uint32(1); slot < slots; slot++ {
		if !taken[slot] {
			o := b.owner(id, slot)
			return o, touch(o.File)
		}
	}
	return workload.Owner{}, errors.New("no user IDs are left")
}

// slots is how often IDs fit into what the kernel counts ids with; the last one has -1
// in it, which is no id.
const slots = 1<<16 - 1

// The file of a user namespace is called by its container and its slot.

func (b *Bridges) owner(id string, slot uint32) workload.Owner {
	return workload.Owner{File: filepath.Join(b.users, fmt.Sprintf("%s.%d", id, slot)), First: slot * workload.IDs}
}

func ownerName(file string) (id string, slot uint32, ok bool) {
	i := strings.LastIndexByte(file, '.')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(file[i+1:], 10, 16)
	return file[:i], uint32(n), err == nil && n > 0
}

// disown takes the user namespace of id away; none is no error.
func (b *Bridges) disown(id string) error {
	o, err := b.ownerOf(id)
	if err != nil || o.File == "" {
		return err
	}
	return removeNamespace(o.File)
}
