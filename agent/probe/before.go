package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/update/durable"
)

// MemoryFile is where a node remembers its last good boot, below STATE.
const MemoryFile = "kogge/update/before.json"

// memoryVersion is of that file; maxMemory bounds it in bytes.
const (
	memoryVersion = 1
	maxMemory     = 256 << 10
)

// Before is what was well at the last good boot, or when a release was armed.
type Before struct {
	Version    int      `json:"version"`
	Release    string   `json:"release"`
	Containers []string `json:"containers"` // that were well, by name
	Link       bool     `json:"link"`       // one had a carrier
	Peers      bool     `json:"peers"`      // one was in reach
	// SentBack counts, by release, the boots on trial that failed for want of a peer.
	SentBack map[string]int `json:"sent_back,omitempty"`
}

// ParseBefore reads the file; nil text is a node that had no good boot yet.
func ParseBefore(text []byte) (Before, error) {
	if text == nil {
		return Before{Version: memoryVersion}, nil
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return Before{}, err
	}
	if version.Version != memoryVersion {
		return Before{}, fmt.Errorf("version %d: this release reads version %d", version.Version, memoryVersion)
	}
	var b Before
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&b)
	return b, err
}

// LoadBefore reads the file at path.
func LoadBefore(path string) (Before, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return ParseBefore(nil)
	}
	if err != nil {
		return Before{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMemory+1))
	if err == nil && len(text) > maxMemory {
		err = fmt.Errorf("has more than %d bytes", maxMemory)
	}
	b := Before{}
	if err == nil {
		b, err = ParseBefore(append([]byte{}, text...))
	}
	if err != nil {
		return Before{}, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// save writes the file, whole or not at all.
func (b Before) save(path string) error {
	b.Version = memoryVersion
	text, err := json.MarshalIndent(b, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Replace(path, append(text, '\n'), 0o600)
}

// Remember notes which containers are well now, beside what is remembered: whoever arms
// a release calls it, so that the trial is judged by how the node was before.
func Remember(path string, status workload.Status) error {
	b, err := LoadBefore(path)
	if err != nil {
		b = Before{}
	}
	b.Containers = names(status)
	return b.save(path)
}

// names are the containers that are well.
func names(status workload.Status) []string {
	all := []string{}
	for _, u := range status.Units {
		if well(u) {
			all = append(all, u.ID)
		}
	}
	slices.Sort(all)
	return all
}

// recall reads the last good boot. What cannot be read asks for nothing: a damaged file
// must not cost a slot.
func (n *Node) recall() {
	var err error
	if n.before, err = LoadBefore(n.Memory); err != nil {
		log.Printf("agent: state of the last good boot: %v", err)
	}
	// An agent before this one, in the same boot, has counted it already.
	if text, err := os.ReadFile(n.counted()); err == nil {
		n.blamed = true
		if count, err := strconv.Atoi(string(text)); err == nil && n.before.SentBack[n.Release] > count {
			n.before.SentBack[n.Release] = count
		}
	}
}

// counted is a file of this boot: it was counted as one to be sent back, and has what the
// count was before it.
func (n *Node) counted() string { return filepath.Join(n.Run, "sent-back") }

// remember notes that this boot is good.
func (n *Node) remember() error {
	b := Before{Release: n.Release, Link: linkUp(n.Run), Peers: n.reached}
	status, err := n.Containers()
	if err != nil {
		return err
	}
	b.Containers = names(status)
	b.SentBack = maps.Clone(n.before.SentBack)
	delete(b.SentBack, n.Release)
	b.Version = n.before.Version
	if !n.blamed && reflect.DeepEqual(b, n.before) {
		return nil // a boot like the one before it writes nothing
	}
	if err := b.save(n.Memory); err != nil {
		return fmt.Errorf("record what is well: %w", err)
	}
	return nil
}

const (
	// sendBack is how many boots of one release are given up for want of a peer: as many
	// as a trial has tries.
	sendBack = 3
	// maxSentBack releases are remembered.
	maxSentBack = 32
	// peerLimit is what a peer may take to answer.
	peerLimit = 5 * time.Second
)

// peers adds what the peers say, once all else is well: a release on trial from which
// none can be reached, though one could before, is sent back. That happens to a release
// once; if the peers are gone for another reason, it stays the next time.
func (n *Node) peers(ctx context.Context, results []Result) []Result {
	if len(n.Config.Peers) == 0 || slices.ContainsFunc(results, func(r Result) bool { return r.Why != "" }) {
		return results
	}
	n.reached = anyOf(ctx, n.Config.Peers)
	before := n.before
	if n.reached || !n.Trial || !before.Peers || before.SentBack[n.Release] >= sendBack {
		return results
	}
	if !n.blamed {
		n.blamed = true
		if err := n.blame(); err != nil {
			log.Printf("agent: %v", err)
			return results // without a memory it would come back for ever
		}
	}
	return append(results, Result{Check: "peers", Why: "none can be reached, and one could before"})
}

// blame counts this boot. The rounds of this boot go by what was counted before it.
func (n *Node) blame() error {
	b := n.before
	counts := map[string]int{}
	for release, count := range b.SentBack {
		if len(counts) < maxSentBack {
			counts[release] = count
		}
	}
	if err := os.WriteFile(n.counted(), []byte(strconv.Itoa(counts[n.Release])), 0o600); err != nil {
		return fmt.Errorf("record unreachable peers: %w", err)
	}
	counts[n.Release]++
	b.SentBack = counts
	if err := b.save(n.Memory); err != nil {
		return fmt.Errorf("record unreachable peers: %w", err)
	}
	return nil
}

// anyOf says whether one of the addresses takes a connection.
func anyOf(ctx context.Context, addresses []string) bool {
	ctx, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	there := make(chan bool)
	for _, a := range addresses {
		go func() { there <- dial(ctx, a) == nil }()
	}
	found := false
	for range addresses {
		if <-there {
			found = true
			cancel() // the others need not go on
		}
	}
	return found
}
