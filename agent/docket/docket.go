// Package docket keeps on STATE what waits to be decided by the fleet: proposals, owners' answers,
// and nodes' requests for seats. Each lies in a file of its own, outside of the slots.
//
// In come objects from anybody; out go files, what a voter asks about, and what gossip tells others.
// Each is verified by the ledger's state before it is written.
package docket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Store is the docket of a node. Its methods may be called from any goroutine.
type Store struct {
	dir   string
	state func() ledger.State

	mu      sync.Mutex // guards what follows, also while the disk is written: all is small and seldom
	set     *docket.Set
	waited  map[document.Hash]document.Duration // by proposal, of the runs before
	since   map[document.Hash]time.Time         // in this run
	saved   time.Time
	follows document.Hash // the record up to which decided proposals are gone
	listed  int           // how many operators that state had: one whose key is revoked is left out
	changed func()
}

const (
	// maxFile is the bytes of a file, at most.
	maxFile = signed.MaxEnvelope + 128
	// clockName is the file with how long proposals have waited, which is written so often: a boot
	// makes each of them wait as much longer, at most.
	clockName  = "waited.json"
	clockEvery = 15 * time.Minute
	clockTop   = 16 << 10
)

// clock is for how long of the node's running time proposals have waited.
type clock struct {
	Version int                                 `json:"version"` // of this document: 1
	Waited  map[document.Hash]document.Duration `json:"waited"`
}

// Open reads the docket in a folder, which the first object makes. state is the ledger's, by which
// objects are verified; it also says whose keys are revoked. A file that is not what was written, or that
// does not count any more, goes: others have it if it counts.
func Open(dir string, state func() ledger.State) *Store {
	s := &Store{
		dir: dir, state: state, set: docket.New(), changed: func() {}, saved: time.Now(),
		waited: make(map[document.Hash]document.Duration), since: make(map[document.Hash]time.Time),
	}
	raws := s.files()
	s.follows = state().Record
	for range 2 { // what others are about comes first
		for name, raw := range raws {
			if c, err := s.set.Put(raw, state()); err == nil && c.ID.String() == name {
				delete(raws, name)
			}
		}
	}
	for name := range raws {
		_ = durable.Remove(s.path(name)) // where that fails it is looked at again at the next start
	}
	if raw, err := durable.Read(s.path(clockName), clockTop); err == nil {
		if c, err := document.DecodeExact[clock](raw, 1); err == nil {
			s.waited = c.Waited
		}
	}
	s.note()
	return s
}

// files are the objects in the folder, by their names.
func (s *Store) files() map[string][]byte {
	raws := make(map[string][]byte)
	all, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Printf("agent: what waits to be decided: %v", err)
	}
	for _, one := range all {
		if _, err := document.ParseHash(one.Name()); err != nil {
			continue
		}
		raw, err := durable.Read(s.path(one.Name()), maxFile)
		if err != nil {
			log.Printf("agent: what waits to be decided: %v", err)
			continue
		}
		raws[one.Name()] = raw
	}
	return raws
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Listen has f hear of each change, from any goroutine. It returns at once.
func (s *Store) Listen(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
}

// Take verifies an object and keeps it, durably once it returns nil. news says that it was not there.
// The error wraps one of update/fleet/docket's, or is the disk's.
func (s *Store) Take(raw []byte) (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.follow()
	c, err := s.set.Put(raw, state)
	if err == nil && c.News {
		err = s.write(c.ID.String(), raw)
	}
	s.forget(c.Dropped)
	if err != nil || !c.News {
		return false, err
	}
	s.note()
	s.changed()
	return true, nil
}

func (s *Store) write(name string, raw []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := durable.SyncFolder(filepath.Dir(s.dir)); err != nil {
		return err
	}
	if err := durable.Replace(s.path(name), raw, 0o600); err != nil {
		return fmt.Errorf("keep what waits to be decided: %w", err)
	}
	return nil
}

// forget removes the files of what went.
func (s *Store) forget(gone []document.Hash) {
	for _, id := range gone {
		if err := durable.Remove(s.path(id.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Printf("agent: what waits to be decided: %v", err)
		}
	}
}

// note notes since when proposals are here.
func (s *Store) note() {
	now := time.Now()
	here := make(map[document.Hash]bool)
	for _, p := range s.set.Proposals() {
		here[p.ID] = true
		if s.since[p.ID].IsZero() {
			s.since[p.ID] = now
		}
	}
	for id := range s.since {
		if !here[id] {
			delete(s.since, id)
		}
	}
	for id := range s.waited {
		if !here[id] {
			delete(s.waited, id)
		}
	}
}

// follow has what the ledger has decided go.
func (s *Store) follow() ledger.State {
	state := s.state()
	if state.Record != s.follows || len(state.Operators) != s.listed {
		s.follows, s.listed = state.Record, len(state.Operators)
		s.forget(s.set.Follow(state))
		s.note()
	}
	return state
}

// Waiting is a proposal, and the running time of this node since it saw it.
type Waiting struct {
	docket.Open
	Waited document.Duration
}

// Open are the proposals that wait, by their ids. What the ledger has decided is gone.
func (s *Store) Open() (all []Waiting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow()
	for _, p := range s.set.Proposals() {
		all = append(all, Waiting{p, s.ran(p.ID)})
	}
	if len(all) > 0 && time.Since(s.saved) >= clockEvery {
		s.save()
	}
	return all
}

func (s *Store) ran(id document.Hash) document.Duration {
	return s.waited[id] + document.Duration(time.Since(s.since[id]))
}

// save writes for how long proposals have waited.
func (s *Store) save() {
	s.saved = time.Now()
	c := clock{Version: 1, Waited: make(map[document.Hash]document.Duration)}
	for id := range s.since {
		c.Waited[id] = s.ran(id)
	}
	raw, err := document.Encode(c)
	if err == nil {
		err = s.write(clockName, raw)
	}
	if err != nil {
		log.Printf("agent: %v", err)
	}
}

// Drop lets a proposal go that left the queue. It is remembered until the next start that it did.
func (s *Store) Drop(id document.Hash, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(s.set.Drop(id, why, s.state()))
	s.note()
	s.changed()
}

// Known are the answers and requests that are here.
func (s *Store) Known() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Known()
}

// All are all objects.
func (s *Store) All() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.All()
}

// Votes is how the node of a key votes, as its owner has set it; false: he has not.
func (s *Store) Votes(node signed.Key) (proposal.Votes, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Votes(node)
}

// Sum stands for all that is here.
func (s *Store) Sum() document.Hash {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Sum()
}

// IDs are the ids of all that is here.
func (s *Store) IDs() []token.Short {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.IDs()
}

// Lacking are objects that somebody lacks who has others, as many as have so many bytes, and
// others each time.
func (s *Store) Lacking(has []token.Short, most int) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var from token.Short
	binary.BigEndian.PutUint64(from[:], rand.Uint64())
	return s.set.Lacking(has, most, from)
}
