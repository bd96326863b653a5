// Package docket keeps on STATE what people have said before the fleet decides: each object in a file of
// its own, outside of the slots, and beside them for how long each proposal has waited here and which
// have left the queue.
//
// In come objects from anybody; out go files, and a [docket.Set] of what counts, which follows the
// ledger. An object is verified before it is written. What follows from it is for whoever asks.
package docket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"math/rand/v2"
	"slices"
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
	files   files
	state   func() ledger.State
	running func() time.Duration // since the agent has begun

	writing sync.Mutex // held by who changes something, also while the disk takes it
	mu      sync.Mutex // guards what follows, and is never held while the disk is waited for
	set     *docket.Set
	at      place
	seen    map[document.Hash]seen // by proposal
	gone    []document.Hash        // whose files are to be removed
	unkept  bool                   // what has left the queue is to be written
	kept    time.Duration          // of running, when the disk took the times
	past    map[token.Short]bool   // what was refused for good, in this place
	changed func()
	damaged map[string]bool // files that could not be read when the store was opened
}

// place is a state of the ledger, as far as it makes a difference here.
type place struct {
	record document.Hash
	listed int // how many operators: one whose key is revoked is left out
}

// seen is for how long a proposal had waited at some time of this boot.
type seen struct{ waited, at time.Duration }

// Waiting is a proposal that waits.
type Waiting struct {
	docket.Open
	// Waited is this node's running time since it has seen it. A power cut forgets some of it, [Grain] at
	// most.
	Waited document.Duration
}

// Grain is how often the disk is told for how long proposals have waited, if some do.
const Grain = 10 * time.Minute

// maxPast is how many refused objects are noted; more begin anew.
const maxPast = 1024

// Open reads the docket in a folder, which the first object makes. state is the ledger's without revoked
// keys, by which all is verified. A file that is not what was written is laid aside, and counted until the
// next start: others have what was in it. One that the disk does not give stays where it is, and so does a
// whole one that this release does not understand, and a proposal of a height to which the ledger here has
// not come. What does not count any more is removed. Where the folder cannot be read the docket begins
// empty, and the log says so.
func Open(dir string, state func() ledger.State) *Store {
	began := time.Now()
	s, err := open(folder(dir), state, func() time.Duration { return time.Since(began) })
	if err != nil {
		log.Printf("agent: what the fleet is to decide: %s: %v", dir, err)
	}
	if wrong := s.Problem(); wrong != nil {
		log.Printf("agent: %v", wrong)
	}
	return s
}

func open(files files, state func() ledger.State, running func() time.Duration) (*Store, error) {
	s := empty(files, state, running)
	return s, s.load(state())
}

func empty(files files, state func() ledger.State, running func() time.Duration) *Store {
	return &Store{
		files: files, state: state, running: running, set: docket.New(), seen: make(map[document.Hash]seen), kept: running(),
		past: make(map[token.Short]bool), changed: func() {}, damaged: make(map[string]bool),
	}
}

// load reads what lies on the disk.
func (s *Store) load(state ledger.State) error {
	s.at = placeOf(state)
	names, err := s.files.List()
	if err != nil {
		return err
	}
	s.loadTimes(names)
	var objects [][]byte
	for _, name := range names {
		id, err := document.ParseHash(name)
		if err != nil {
			continue // the times, or one that was being written
		}
		raw, ok := s.whole(name)
		if !ok {
			continue
		}
		if document.HashOf(raw) != id {
			s.aside(name)
			continue
		}
		objects = append(objects, raw)
	}
	later := make(map[document.Hash]bool)
	for range 2 { // the second time for those that rest on others
		for _, raw := range objects {
			_, err := s.set.Put(raw, state)
			later[document.HashOf(raw)] = errors.Is(err, docket.ErrObject) || errors.Is(err, document.ErrNewer) || errors.Is(err, ledger.ErrEarly)
		}
	}
	for _, raw := range objects { // also what counted until another one was read
		if id := document.HashOf(raw); !later[id] && !s.set.Has(id) {
			s.gone = append(s.gone, id)
		}
	}
	s.begin()
	return nil
}

// whole reads a file; false: it cannot be read, or was damaged and is aside now.
func (s *Store) whole(name string) ([]byte, bool) {
	raw, err := s.files.Read(name)
	if err != nil && !errors.Is(err, durable.ErrTooLarge) {
		s.damaged[name] = true
		return nil, false
	}
	if err == nil {
		raw, err = unsummed(raw)
	}
	if err != nil {
		s.aside(name)
		return nil, false
	}
	return raw, true
}

// aside lays a file aside that is not what was written.
func (s *Store) aside(name string) {
	s.damaged[name] = true
	_ = s.files.Aside(name) // where that fails it is damaged at the next start, too
}

// begin begins to count for how long new proposals wait, and ends it of those that are gone.
func (s *Store) begin() {
	now, was := s.running(), s.seen
	if s.seen = make(map[document.Hash]seen); len(was) == 0 {
		s.kept = now
	}
	for _, p := range s.set.Proposals() {
		one, ok := was[p.ID]
		if !ok {
			one = seen{at: now}
		}
		s.seen[p.ID] = one
	}
}

func placeOf(state ledger.State) place { return place{state.Record, len(state.Operators)} }

// follow has the set follow the ledger. The caller holds mu.
func (s *Store) follow(state ledger.State) {
	if now := placeOf(state); now != s.at {
		s.at, s.past = now, make(map[token.Short]bool)
		s.gone = append(s.gone, s.set.Follow(state)...)
		s.begin()
	}
}

// look has the set follow the ledger, and whoever looks at it do so.
func (s *Store) look(at func()) { s.by(func(ledger.State) { at() }) }

// by is look for who has to know the ledger's state, too.
func (s *Store) by(look func(ledger.State)) {
	state := s.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(state)
	look(state)
}

// Listen has f hear whenever something is news, or has left, from any goroutine. It returns at once.
func (s *Store) Listen(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
}

// Take verifies an object and keeps it, durably once it returns nil. news says that it was not there. The
// error is that of [docket.Set.Put], or the disk's. After a cut it is there or not; what it takes the
// place of may lie beside it, and counts no more.
func (s *Store) Take(raw []byte) (news bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	var c docket.Change
	s.by(func(state ledger.State) {
		if c, err = s.set.Put(raw, state); err != nil {
			s.refuse(c.ID, err)
			return
		}
		s.gone = append(s.gone, c.Dropped...)
		s.begin()
	})
	if err != nil || !c.News {
		return false, err
	}
	if err := s.files.Replace(c.ID.String(), summed(raw)); err != nil {
		return false, errors.Join(fmt.Errorf("keep what the fleet is to decide: %w", err), s.recall())
	}
	s.mu.Lock()
	delete(s.damaged, c.ID.String())
	changed := s.changed
	s.mu.Unlock()
	_ = s.sweep() // what stays is removed at the next time
	changed()
	return true, nil
}

// refuse notes what others go on to have, and this node refuses for as long as it is in this place: they are
// told that it is here, or they would send it without an end.
func (s *Store) refuse(id document.Hash, err error) {
	if !errors.Is(err, docket.ErrOver) && !errors.Is(err, docket.ErrFull) {
		return
	}
	if len(s.past) >= maxPast {
		clear(s.past)
	}
	s.past[token.Short(id[:])] = true
}

// recall goes back to what lies on the disk, which did not take what memory has.
func (s *Store) recall() error {
	before := empty(s.files, s.state, s.running)
	s.mu.Lock()
	ids, why := s.set.Left()
	s.mu.Unlock()
	for i, id := range ids { // also those of which the disk was not told
		before.set.Remember(id, why[i])
	}
	if err := before.load(s.state()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set, s.at, s.gone = before.set, before.at, before.gone
	maps.Copy(s.damaged, before.damaged)
	s.begin()
	return nil
}

// sweep removes the files of what is gone. The caller holds writing. Where the disk does not, they are
// judged again at the next start, and removed then.
func (s *Store) sweep() error {
	s.mu.Lock()
	gone := slices.DeleteFunc(s.gone, s.set.Has) // what has come again since
	s.gone = nil
	s.mu.Unlock()
	var failed error
	for _, id := range gone {
		if err := s.files.Remove(id.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = fmt.Errorf("forget what the fleet does not decide any more: %w", err)
		}
	}
	return failed
}

// Drop forgets a proposal that has left the queue, by its id, and does not take it again. What the disk
// does not take of that is written later, by [Store.Keep].
func (s *Store) Drop(id document.Hash, why string) {
	s.writing.Lock()
	defer s.writing.Unlock()
	changed := func() {}
	s.by(func(state ledger.State) {
		s.gone = append(s.gone, s.set.Drop(id, why, state)...)
		s.unkept, changed = true, s.changed
		s.begin()
	})
	if s.keepTimes() == nil { // first: a proposal whose file is gone could come again
		_ = s.sweep()
	}
	changed()
}

// Keep has the set follow the ledger, and tells the disk what it is to know by now: little, if nothing waits.
// It is for who looks every now and then.
func (s *Store) Keep() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	due := false
	s.look(func() { due = s.unkept || len(s.seen) > 0 && s.running()-s.kept >= Grain })
	if due {
		if err := s.keepTimes(); err != nil {
			return err
		}
	}
	return s.sweep()
}

// Flush is Keep before the node stops: it loses no time.
func (s *Store) Flush() error {
	s.mu.Lock()
	s.unkept = s.unkept || len(s.seen) > 0 && s.running() > s.kept
	s.mu.Unlock()
	return s.Keep()
}

// Open are the proposals that wait, the oldest first, and for how long they have.
func (s *Store) Open() (all []Waiting) {
	s.look(func() {
		now := s.running()
		for _, p := range s.set.Proposals() {
			of := s.seen[p.ID]
			all = append(all, Waiting{p, document.Duration(of.waited + max(0, now-of.at))})
		}
	})
	return all
}

// Known are answers and requests, for [ledger.State.Gather].
func (s *Store) Known() (all [][]byte) {
	s.look(func() { all = s.set.Known() })
	return all
}

// AnswersTo are the answers to a proposal, by [docket.Set.AnswersTo].
func (s *Store) AnswersTo(id document.Hash) (all []proposal.Answer) {
	s.look(func() { all = s.set.AnswersTo(id) })
	return all
}

// Votes is how the node of a key votes, as its owner has set it; false: he has not.
func (s *Store) Votes(node signed.Key) (v proposal.Votes, ok bool) {
	s.look(func() { v, ok = s.set.Votes(node) })
	return v, ok
}

// All are all objects, those first that others rest on.
func (s *Store) All() (all [][]byte) {
	s.look(func() { all = s.set.All() })
	return all
}

// Sum stands for all that is here; zero: there is nothing.
func (s *Store) Sum() (sum document.Hash) {
	s.look(func() { sum = s.set.Sum() })
	return sum
}

// IDs are the fronts of the ids of all that is here, and of what was refused that others may have.
func (s *Store) IDs() (all []token.Short) {
	s.look(func() {
		all = s.set.IDs()
		for id := range s.past {
			all = append(all, id)
		}
	})
	return all
}

// Lacking are objects that somebody lacks who has others, as many as have so many bytes, and others each
// time.
func (s *Store) Lacking(has []token.Short, most int) (all [][]byte) {
	var from token.Short
	binary.BigEndian.PutUint64(from[:], rand.Uint64())
	s.look(func() { all = s.set.Lacking(has, most, from) })
	return all
}

// Problem says what lies on STATE and could not be read; nil: nothing.
func (s *Store) Problem() error {
	if n := s.Damaged(); n > 0 {
		return fmt.Errorf("%d files on STATE of what the fleet is to decide could not be read when the agent started, and come again from others if they count", n)
	}
	return nil
}

// Damaged is how many files could not be read when the store was opened, and have not come again.
func (s *Store) Damaged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.damaged)
}
