// Package papers keeps on STATE what operators and nodes have signed outside of the ledger: uses
// of tokens, their ends, and who was accepted. Each lies in a file of its own, outside of the
// slots.
//
// In come papers from anybody; out go files, and a [token.Set] of what counts. A paper is
// verified by the ledger before it is written. Who sends it on, and what follows from it, is for
// whoever asks.
package papers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Store is the papers of a node. Its methods may be called from any goroutine.
type Store struct {
	files files
	state func() ledger.State

	writing sync.Mutex // held by who changes something, also while the disk takes it
	mu      sync.Mutex // guards what follows, and is never held while the disk is waited for
	set     *token.Set
	changed func()
	damaged map[string]bool   // files that could not be read when the store was opened
	unknown map[string]int    // those that could be read and not be understood, by the kind of paper
	past    past              // what was refused that others go on to have
	counts  map[string]uint64 // refusals, by reason
}

// files is the folder of the papers. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
	Remove(name string) error
	Aside(name string) error // beside its place, where List has it under another name
	List() ([]string, error) // names; none where there is no folder
}

// Open reads the papers in a folder, which the first one makes. state is the ledger's, by which
// papers are verified that come later; it also says whose keys are revoked. A file that is not what was
// written is laid aside, and counted until the next start: others have what was in it, unless that is over.
// One that the disk does not give stays where it is, and so does a whole one that this release does not
// understand ([Store.Unknown]), or has no room for. So it is with the folder: with the error there is a store, without
// papers.
func Open(dir string, state func() ledger.State) (*Store, error) {
	s, err := open(folder(dir), state)
	if err != nil {
		err = fmt.Errorf("papers of the fleet: %s: %w", dir, err)
	}
	return s, err
}

func open(files files, state func() ledger.State) (*Store, error) {
	s := &Store{files: files, state: state, set: token.NewSet(), changed: func() {}, counts: make(map[string]uint64), damaged: make(map[string]bool), unknown: make(map[string]int)}
	names, err := files.List()
	if err != nil {
		return s, err
	}
	s.set.Withdraw(state()) // before any is read: else a revoked key's higher number wins
	var again [][]byte
	for _, name := range names {
		if _, err := document.ParseHash(name); err != nil {
			continue // one that was being written
		}
		raw, err := files.Read(name)
		if err != nil && !errors.Is(err, durable.ErrTooLarge) {
			s.damaged[name] = true
			continue
		}
		if err == nil {
			raw, err = unsummed(raw)
		}
		if err != nil {
			s.aside(name)
			continue
		}
		switch c, err := s.set.Recall(raw); {
		case err == nil && c.ID.String() != name:
			s.aside(name)
		case errors.Is(err, token.ErrFull), errors.Is(err, token.ErrUsed):
			again = append(again, raw)
		case err != nil:
			s.unknown[kindOf(raw)]++
		}
	}
	// What a cut has left lies beside what took its place, and may have had the last room.
	for _, raw := range again {
		_, _ = s.set.Recall(raw)
	}
	return s, nil
}

// kindOf is what a paper says that it is, if it can be read; it may be anything.
func kindOf(paper []byte) string {
	fields, _, ok := document.Fields(paper, 1)
	if !ok {
		return ""
	}
	return string(fields[0][:min(len(fields[0]), maxKind)])
}

// maxKind is the bytes that are told of a kind.
const maxKind = 64

// aside lays a file aside that is not what was written.
func (s *Store) aside(name string) {
	s.damaged[name] = true
	_ = s.files.Aside(name) // where that fails it is damaged at the next start, too
}

// Listen has f hear of each paper that is news, from any goroutine. It returns at once.
func (s *Store) Listen(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
}

// Take verifies a paper or a use and keeps it, durably once it returns nil. news says that it was
// not there. The error is that of [token.Set.Put], or the disk's. After a cut it is there or not;
// what it takes the place of may lie beside it, and counts no more.
func (s *Store) Take(raw []byte) (news bool, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.take(raw)
}

// take is Take; the caller holds writing.
func (s *Store) take(raw []byte) (bool, error) {
	state := s.state()
	s.mu.Lock()
	s.set.Withdraw(state)
	c, err := s.set.Put(raw, state)
	s.past.note(c.ID, state, err)
	err = s.count(err)
	changed := s.changed
	s.mu.Unlock()
	if err != nil || !c.News {
		return false, err
	}
	if err := s.files.Replace(c.ID.String(), summed(raw)); err != nil {
		return false, errors.Join(fmt.Errorf("keep a paper of the fleet: %w", err), s.recall())
	}
	s.mu.Lock()
	delete(s.damaged, c.ID.String())
	s.mu.Unlock()
	if !c.Dropped.IsZero() {
		_ = s.files.Remove(c.Dropped.String()) // then it is passed over at the next start
	}
	changed()
	return true, nil
}

// recall goes back to what lies on the disk, which did not take what memory has.
func (s *Store) recall() error {
	before, err := open(s.files, s.state)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before.set.Age(s.set.Now())
	s.set = before.set
	maps.Copy(s.damaged, before.damaged)
	s.unknown = before.unknown
	return nil
}

// past is what was refused because it is over, or because its issuer's key was revoked. Nodes that do
// not know that go on to have it: they are told that it is here, or they would send it without an end.
type past struct {
	ids    map[token.Short]bool
	record document.Hash // of the ledger, when it was refused
	listed int           // how many operators that state had: one whose key is revoked is left out
}

// maxPast is how many are noted; more begin anew.
const maxPast = 2048

// note notes a paper that was refused for that. Another state of the ledger may take it.
func (p *past) note(id document.Hash, s ledger.State, refused error) {
	if p.ids == nil || p.record != s.Record || p.listed != len(s.Operators) || len(p.ids) >= maxPast {
		*p = past{make(map[token.Short]bool), s.Record, len(s.Operators)}
	}
	if errors.Is(refused, token.ErrExpired) || errors.Is(refused, ledger.ErrWithdrawn) {
		p.ids[token.Short(id[:])] = true
	}
}

// Admit lets a node in by its use of a token, if that is good now: it is noted, durably, before
// Admit returns nil. The error is that of [token.Set.Admits], and is counted.
func (s *Store) Admit(u token.Use, now time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	state := s.state()
	s.mu.Lock()
	s.set.Withdraw(state)
	err := s.count(s.set.Admits(u, state, now))
	s.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = s.take(u.Bytes())
	return err
}

// Opens says whether a token lets in anybody more, by [token.Set.Opens]. The error is counted.
func (s *Store) Opens(r token.Record, tlsKey document.Hash, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count(s.set.Opens(r, tlsKey, now))
}

const later = "of a later release"

// reasons are refusals, as people are told how many there were.
var reasons = []struct {
	is   error
	word string
}{
	{token.ErrLater, later}, {document.ErrNewer, later}, // before what else they are
	{token.ErrRevoked, "token revoked"}, {token.ErrUsed, "token used up"}, {token.ErrExpired, "token expired"},
	{token.ErrOther, "token for another node"}, {token.ErrName, "name of another node"}, {token.ErrPaper, "not signed by an operator"},
	{token.ErrUse, "not a use of a token"}, {token.ErrFull, "too many papers"},
}

// count notes a refusal, if it is one, and returns it. The caller holds mu.
func (s *Store) count(err error) error {
	for _, r := range reasons {
		if errors.Is(err, r.is) {
			s.counts[r.word]++
			return err
		}
	}
	return err
}

// Refused is how often what was refused, in words.
func (s *Store) Refused() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]uint64, len(s.counts))
	for word, n := range s.counts {
		all[word] = n
	}
	return all
}

// Damaged is how many files could not be read when the store was opened, and have not come again.
func (s *Store) Damaged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.damaged)
}

// Unknown is how many files this release does not understand, by the kind of paper that is in them ("": it
// cannot be read): a later one has written them. They do not count, and stay.
func (s *Store) Unknown() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.unknown)
}

// Problem says which papers do not count here that lie on STATE; nil: none.
func (s *Store) Problem() error {
	var damaged, unknown error
	if n := s.Damaged(); n > 0 {
		damaged = fmt.Errorf("%d papers of the fleet on STATE could not be read when the agent started, and come again from others if they count", n)
	}
	kinds, n := s.Unknown(), 0
	var named []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		n += kinds[kind]
		if len(named) < maxNamed {
			named = append(named, fmt.Sprintf("%q: %d", kind, kinds[kind]))
		}
	}
	if n > 0 {
		unknown = fmt.Errorf("%d papers of the fleet on STATE are not understood by this release, and do not count here (by kind: %s): start the release that has written them", n, strings.Join(named, ", "))
	}
	return errors.Join(damaged, unknown)
}

// maxNamed is how many kinds are named.
const maxNamed = 5

// Sum stands for all that is here.
func (s *Store) Sum() document.Hash {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Sum()
}

// IDs are the ids of all that is here, and of what was refused that others may have, if there is room.
func (s *Store) IDs() []token.Short {
	state := s.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past.note(document.Hash{}, state, nil)
	all := s.set.IDs()
	for id := range s.past.ids {
		if len(all) < token.MaxSet {
			all = append(all, id)
		}
	}
	return all
}

// Lacking are papers that somebody lacks who has others, as many as have so many bytes, and others
// each time.
func (s *Store) Lacking(has []token.Short, most int) [][]byte {
	var from token.Short
	binary.BigEndian.PutUint64(from[:], rand.Uint64())
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Lacking(has, most, from)
}

// Age forgets what is over for long, by [token.Set.Age]. What the disk does not remove is read again
// at the next start, and forgotten then.
func (s *Store) Age(now time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	if now.Before(s.set.Now()) {
		s.past = past{} // the clock was set back
	}
	gone := s.set.Age(now)
	changed := s.changed
	s.mu.Unlock()
	var failed error
	for _, id := range gone {
		if err := s.files.Remove(id.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = fmt.Errorf("forget a paper of the fleet that is over: %w", err)
		}
	}
	if len(gone) > 0 {
		changed()
	}
	return failed
}

// All are all papers and uses.
func (s *Store) All() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.All()
}

// Accepted is the newest acceptance of a node, and its paper; false: nobody has accepted it.
func (s *Store) Accepted(node signed.Key) (a token.Accept, paper []byte, ok bool) {
	state := s.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.Withdraw(state)
	a, ok = s.set.Accepted(node)
	return a, s.set.PaperOf(node), ok
}

// CameBy is the use by which a node came; false: it came otherwise, or nobody has told this node.
func (s *Store) CameBy(node signed.Key) (token.Use, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.CameBy(node)
}

// summed is what a file holds: a SHA-256, because disks decay, and the paper.
func summed(content []byte) []byte {
	return append([]byte(document.HashOf(content).String()+"\n"), content...)
}

func unsummed(raw []byte) ([]byte, error) {
	sum, content, _ := bytes.Cut(raw, []byte("\n"))
	if string(sum) != document.HashOf(content).String() {
		return nil, errors.New("its bytes are not those that were written")
	}
	return content, nil
}

// folder is a folder of the machine's file system.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// maxFile is the bytes of a file, at most.
const maxFile = token.MaxPaper + 128

func (f folder) Read(name string) ([]byte, error) { return durable.Read(f.path(name), maxFile) }

func (f folder) Replace(name string, data []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	if err := durable.SyncFolder(filepath.Dir(string(f))); err != nil {
		return err
	}
	return durable.Replace(f.path(name), data, 0o600)
}

func (f folder) Remove(name string) error { return durable.Remove(f.path(name)) }

func (f folder) Aside(name string) error { return durable.Aside(f.path(name)) }

func (f folder) List() ([]string, error) {
	all, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, one := range all {
		names = append(names, one.Name())
	}
	return names, err
}
