package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"kogge.example/update/durable"
)

// At a boot the networks are made before the node knows its own: a lease may come later,
// and routes with it. A network that has moved out of their way begins where it has been
// last, or it would move, and its containers start anew, at every boot.

// subnets are those of networks, by name.
type subnets map[string]netip.Prefix

// has says whether any of them overlaps with s.
func (all subnets) has(s netip.Prefix) bool {
	for _, one := range all {
		if one.Overlaps(s) {
			return true
		}
	}
	return false
}

// lastVersion is of the file; maxLast bounds it in bytes.
const (
	lastVersion = 1
	maxLast     = 1 << 20
)

// lastFile is the content of [Bridges.Last].
type lastFile struct {
	Version int     `json:"version"`
	Subnets subnets `json:"subnets"`
}

// parseLast reads it. Whether a network can still be there is found out later.
func parseLast(text []byte) (subnets, error) {
	if len(text) > maxLast {
		return nil, fmt.Errorf("%d bytes are too many", len(text))
	}
	var f lastFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if f.Version != lastVersion {
		return nil, fmt.Errorf("version %d is not known", f.Version)
	}
	return f.Subnets, nil
}

// recall reads which subnets networks had, once. Without it they begin at the first that
// is free: what cannot be read stops nothing. Whoever calls it has the lock.
func (b *Bridges) recall() {
	if b.recalled || b.Last == "" {
		return
	}
	b.recalled = true
	text, err := os.ReadFile(b.Last)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		b.last, err = parseLast(text)
	}
	if err != nil {
		log.Printf("networks: subnets may be others than at the last boot: %s: %v", b.Last, err)
	}
}

// remember writes down which subnets the networks have, if that is not what is remembered.
// After a cut the file is the old one or the new one; see [durable.Replace]. Without it
// containers run as well as with it, so what keeps it from being written is logged, once,
// and no trouble of theirs.
func (b *Bridges) remember() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := make(subnets)
	for name, m := range b.made {
		now[name] = m.Prefix
	}
	if b.Last == "" || maps.Equal(now, b.last) {
		return
	}
	text, err := json.MarshalIndent(lastFile{lastVersion, now}, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(b.Last), 0o700)
	}
	if err == nil {
		err = durable.Replace(b.Last, append(text, '\n'), 0o600)
	}
	if err == nil {
		b.last, b.told = now, ""
	} else if b.told != err.Error() {
		b.told = err.Error()
		log.Printf("networks: remember their subnets for the next boot: %v", err)
	}
}
