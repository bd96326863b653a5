// Package journal is the one door to a seat's vote journal: a file on STATE, outside of the slots,
// that is never copied, migrated or taken back with a slot. It lies beside the ledger, and its
// name is the id that was made with the seat's key.
//
// In come records, each of which is on the disk before anybody acts on it; out goes what the
// journal says, to a seat that begins to vote. A journal of which it is not known whether it is
// whole is an error, and stays as it is. What a record means is update/fleet/journal's, and what
// follows from it for the vote is update/fleet/vote's.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"kogge.example/agent/identity"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
)

// Journal is the vote journal of this node's seat, open for one voter. Its methods may be called
// from any goroutine.
type Journal struct {
	files   files
	name    string
	release func() error

	mu     sync.Mutex     // guards what follows, while the disk is written
	memory journal.Memory // what is on the disk
	size   int64          // of the file, in bytes
	short  int64          // what it had when it was last written anew
	// shortest is how long it gets at least before that, in bytes.
	shortest int64
	problem  error // why nothing is appended any more; nil: all is well
}

// files are those of STATE. The tests have some that lose power.
type files interface {
	Read(name string) ([]byte, error)       // fs.ErrNotExist: there is none
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns nil
	// Append writes behind the end of a file of so many bytes. After a power cut any part of that
	// is there, all of it once it returns nil. What was there is, whatever happens.
	Append(name string, size int64, data []byte) error
	Keep(name string) error // aside, too, as durable.AsideName
}

// ErrLost is of a journal that does not say any more what was signed: its file is gone, is no
// journal, or another seat's. The key never votes again, and the node needs a new seat.
var ErrLost = errors.New("it is not known what this seat has signed, and its key must not vote again: the node needs a new seat")

// ErrBusy is of a journal that another process has open: a seat has one voter.
var ErrBusy = errors.New("another process votes with this seat's key")

const (
	folderName = "kogge/vote"
	// markPrefix begins the name of an empty file beside the key, which says that there is a
	// journal: without it nobody could tell one that is gone from one that was never begun.
	markPrefix = "identity/voting-"
)

// block is what a disk writes at once, in bytes. A record has blocks of its own: a power cut while
// it is written, on a disk that loses the whole block then, harms no record before it.
const block = 4096

// The file gets longer than this, in bytes, and than twice what it was, before it is written anew
// without what nobody needs any more.
const shortest = 256 << 10

// Open reads the journal of a seat from STATE, and begins it where the seat has never voted. Once it
// returns, what it read is on the disk for good, without what is decided. The error wraps
// [ErrLost], [ErrBusy], or [document.ErrNewer] where a later release has written what this one
// cannot judge; any other is of the disk, which may give the journal another time. Nothing is
// changed then, and the seat takes no step. A journal that is damaged in the middle is kept aside,
// and what it says has Damage and is Behind. At a cut the journal says the same:
//
//  1. the file aside, if it is damaged
//  2. the file, written anew: what an earlier sync did not bring to the disk is not on it, though
//     it can be read
//  3. the mark that there is one
func Open(state string, fleet document.Hash, seat *identity.Seat) (*Journal, journal.Memory, error) {
	release, err := folder(state).lock()
	if err != nil {
		return nil, journal.Memory{}, fmt.Errorf("vote journal: %s: %w", folderName, err)
	}
	j, m, err := open(folder(state), journal.Title{ID: seat.Journal, Fleet: fleet, Key: seat.Key})
	if err != nil {
		return nil, m, errors.Join(err, release())
	}
	j.release = release
	return j, m, nil
}

func open(files files, t journal.Title) (*Journal, journal.Memory, error) {
	j := &Journal{files: files, name: path.Join(folderName, t.ID.String()), shortest: shortest}
	m, err := j.begin(t)
	if err != nil {
		return nil, journal.Memory{}, fmt.Errorf("vote journal: %s: %w", j.name, err)
	}
	return j, m, nil
}

func (j *Journal) begin(t journal.Title) (journal.Memory, error) {
	mark := markPrefix + t.ID.String()
	_, unmarked := j.files.Read(mark)
	if unmarked != nil && !errors.Is(unmarked, fs.ErrNotExist) {
		return journal.Memory{}, unmarked
	}
	m, err := j.recall(t, unmarked == nil)
	if err != nil {
		return m, err
	}
	if m.Damage != "" {
		if err := j.files.Keep(j.name); err != nil {
			return m, err
		}
	}
	if err := j.rewrite(m); err != nil {
		return m, err
	}
	if unmarked != nil {
		if err := j.files.Replace(mark, nil); err != nil {
			return m, err
		}
	}
	m.Next, m.Size = j.memory.Next, j.memory.Size
	return m, nil
}

// recall reads the file.
func (j *Journal) recall(t journal.Title, begun bool) (journal.Memory, error) {
	raw, err := j.files.Read(j.name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && begun:
		return journal.Memory{}, fmt.Errorf("the file is gone: %w", ErrLost)
	case errors.Is(err, fs.ErrNotExist):
		return journal.Memory{Title: t}, nil
	case err != nil:
		return journal.Memory{}, err
	}
	m, err := journal.Replay(raw)
	switch {
	case errors.Is(err, journal.ErrJournal):
		return m, fmt.Errorf("%w: %w", err, ErrLost)
	case err != nil:
		return m, err
	case m.Title != t:
		return m, fmt.Errorf("it is that of seat key %s in fleet %s, and this node has %s in %s: %w", m.Title.Key.ID().Short(), m.Title.Fleet.Short(), t.Key.ID().Short(), t.Fleet.Short(), ErrLost)
	}
	return m, nil
}

// rewrite puts a journal that says the same, and no more, in the place of the file.
func (j *Journal) rewrite(m journal.Memory) error {
	raw := m.Compact()
	again, err := journal.Replay(raw)
	if err != nil {
		return err
	}
	raw = apart(raw)
	if err := j.files.Replace(j.name, raw); err != nil {
		return err
	}
	j.memory, j.size, j.short = again, int64(len(raw)), int64(len(raw))
	return nil
}

// apart fills the last block with empty lines.
func apart(raw []byte) []byte {
	return append(raw, bytes.Repeat([]byte("\n"), (block-len(raw)%block)%block)...)
}

// Append puts a record into the journal. Once it returns nil, the record is on the disk for good,
// and may be acted on; after a cut before that, it is there or not. After an error nothing is
// appended any more: what the disk has then is known only to who opens the journal again, and what
// the voter did about the record it has to forget. A record that does not fit, as
// [journal.ErrRecord] says, changes nothing.
func (j *Journal) Append(r journal.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.problem != nil {
		return j.problem
	}
	next, raw, err := j.memory.Appended(r)
	if err != nil {
		return fmt.Errorf("vote journal: %w", err)
	}
	raw = apart(raw)
	if size := j.size + int64(len(raw)); size > max(j.shortest, 2*j.short) {
		err = j.rewrite(next)
	} else if err = j.files.Append(j.name, j.size, raw); err == nil {
		j.memory, j.size = next, size
	}
	if err != nil {
		j.problem = fmt.Errorf("vote journal: %s: record %d: %w: nothing is signed until the journal was read again", j.name, j.memory.Next, err)
	}
	return j.problem
}

// errClosed is of a journal that its voter has left.
var errClosed = errors.New("vote journal: it is closed")

// Problem says why nothing is appended any more; nil: all is well.
func (j *Journal) Problem() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.problem
}

// Close leaves the journal to another voter. It waits until a record that is being appended is
// there.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(j.problem, errClosed) || j.release == nil {
		return nil
	}
	j.problem = errClosed
	return j.release()
}
