// Package orders keeps on a node's STATE the orders about seats of its fleet, so that they hold
// when the node boots with nobody in reach, and says what they come to.
//
// In come envelopes that a shelf has taken, and the ledger's state; out go files, one for each
// order that is the newest of its kind about a seat, the orders that are here, for those who lack
// them, and what holds now. Whether an order may be given is package order's to say. The
// package carries nothing and ends no session: who does asks it.
package orders

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// Book is the orders that a node has. Its methods may be called from any goroutine.
type Book struct {
	files files

	standing atomic.Pointer[order.Standing] // at the last look

	mu     sync.Mutex                 // guards what follows
	held   map[string]signed.Envelope // by file name
	unread map[string]error           // files that were not understood when the book was opened
	unkept map[string]error           // orders that the disk does not hold
	tried  time.Time                  // when they were written again
	folder error                      // why there may be more than is known
	looked document.Hash              // by which record; zero: something has changed
	listed int                        // how many operators that state had: one whose key is revoked is left out
	at     time.Time                  // when
	again  time.Time                  // when it is over; zero: never
}

// ErrUnkept is of an order that counts on this node, and that its disk does not hold: the agent's end
// would be that of the order here.
var ErrUnkept = errors.New("the disk does not keep an order about a seat: it counts until this node's agent starts anew")

// mendEvery is between two tries to write what the disk did not take.
const mendEvery = 30 * time.Second

// files is the book's folder. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
	Aside(name string) error                // beside its place, where it is under another name
	List() ([]string, error)                // names; none where there is no folder
}

// ErrForeign is of a file that is whole, and that this release does not understand: another one may
// have written it, which finds it where it is.
var ErrForeign = errors.New("this release does not understand it: another one has written it")

// Open reads the orders from their folder, which the first order makes. What is not what was written is
// laid aside, and comes again from others, unless it counts no more; [Book.Problem] says so until
// the next start. What the disk does not give stays where it is, and so does what is [ErrForeign].
func Open(dir string) *Book { return open(folder(dir)) }

func open(files files) *Book {
	b := &Book{files: files, held: make(map[string]signed.Envelope), unread: make(map[string]error), unkept: make(map[string]error)}
	b.standing.Store(&order.Standing{})
	names, err := files.List()
	if err != nil {
		b.folder = fmt.Errorf("orders about seats: %w", err)
	}
	for _, name := range names {
		if _, err := hex.DecodeString(name); err != nil {
			continue // one that was being written
		}
		raw, err := files.Read(name)
		if err != nil && !errors.Is(err, durable.ErrTooLarge) {
			b.unread[name] = err
			continue
		}
		var e signed.Envelope
		if err == nil {
			e, err = read(name, raw)
		}
		if err != nil {
			b.unread[name] = err
			if !errors.Is(err, ErrForeign) {
				_ = files.Aside(name) // where that fails it is damaged at the next start, too
			}
			continue
		}
		b.held[name] = e
	}
	return b
}

// read reads a file: a SHA-256, because disks decay, and the envelope.
func read(name string, raw []byte) (signed.Envelope, error) {
	sum, content, _ := bytes.Cut(raw, []byte("\n"))
	if len(raw) > maxFile || string(sum) != document.HashOf(content).String() {
		return signed.Envelope{}, errors.New("its bytes are not those that were written")
	}
	e, err := signed.Parse(content)
	if err == nil && nameOf(e) != name {
		err = errors.New("it is no order of that name")
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrForeign, err)
	}
	return e, err
}

const maxFile = signed.MaxEnvelope + 65

// nameOf is the file of an order: its place on a shelf; "" of what is no order.
func nameOf(e signed.Envelope) string {
	for _, k := range order.Kinds() {
		if k.Name == e.Kind {
			if seat, err := k.About(e.Body); err == nil {
				id := shelf.IDOf(e.Kind, seat)
				return hex.EncodeToString(id[:])
			}
		}
	}
	return ""
}

// Keep keeps an order that a shelf holds, durably once it returns nil; news says that it is
// another one than before. One that is older than what is here is let go, unless that does not
// count any more, by the ledger's state. A cut leaves the order before it, or this one. One that
// the disk does not take counts all the same: the error wraps [ErrUnkept], each time that it comes,
// until [Book.Mend] has written it.
func (b *Book) Keep(s ledger.State, e signed.Envelope) (news bool, err error) {
	name := nameOf(e)
	if name == "" {
		return false, fmt.Errorf("orders about seats: %w", order.ErrOrder)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if before, there := b.held[name]; there {
		if order.Same(before, e) {
			return false, b.unkept[name]
		}
		if before.Sequence > e.Sequence && order.Counts(s, before) {
			return false, nil
		}
	}
	b.looked = document.Hash{}
	b.held[name] = e
	return true, b.write(name)
}

// write writes an order that is held. What another release has written in its place lies aside then. The
// caller holds mu.
func (b *Book) write(name string) error {
	content := b.held[name].Bytes()
	var err error
	if errors.Is(b.unread[name], ErrForeign) {
		if err = b.files.Aside(name); errors.Is(err, fs.ErrNotExist) { // at the last try, which failed then
			err = nil
		}
	}
	if err == nil {
		err = b.files.Replace(name, append([]byte(document.HashOf(content).String()+"\n"), content...))
	}
	if err != nil {
		b.unkept[name] = fmt.Errorf("%w: %w", ErrUnkept, err)
		return b.unkept[name]
	}
	delete(b.unkept, name)
	delete(b.unread, name)
	return nil
}

// Mend writes what the disk did not take, if the last try is a while ago. mended says that the disk
// holds all of it now. now is of a clock that nobody sets.
func (b *Book) Mend(now time.Time) (mended bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.unkept) == 0 || !b.tried.IsZero() && now.Sub(b.tried) < mendEvery {
		return false, nil
	}
	b.tried = now
	for name := range b.unkept { // in any order, so that none is in the way of all others
		if err := b.write(name); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Look says what the orders come to now. Those of a seat or an operator that the ledger does not
// list do not count; they stay here, because a ledger that was damaged lists fewer than it did.
// What was over by a clock that has been set back since is not.
func (b *Book) Look(s ledger.State, now time.Time) order.Standing {
	b.mu.Lock()
	defer b.mu.Unlock()
	now = now.Round(0) // of the day, which a set clock changes
	if b.looked.IsZero() || b.looked != s.Record || b.listed != len(s.Operators) || now.Before(b.at) || !b.again.IsZero() && !now.Before(b.again) {
		standing := order.Decide(s, slices.Collect(maps.Values(b.held)), now)
		b.standing.Store(&standing)
		b.looked, b.again = s.Record, standing.Changes()
		b.listed, b.at = len(s.Operators), now
	}
	return *b.standing.Load()
}

// Standing is what the orders came to at the last look. It waits for no disk.
func (b *Book) Standing() order.Standing { return *b.standing.Load() }

// All are the orders that are here, those about one seat together.
func (b *Book) All() (all []signed.Envelope) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.held {
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y signed.Envelope) int { return strings.Compare(nameOf(x), nameOf(y)) })
	return all
}

// Problem says why the disk does not hold what it should; nil: it does.
func (b *Book) Problem() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if all := slices.Sorted(maps.Keys(b.unkept)); len(all) > 0 { // one says what there is to say: look at the disk
		return b.unkept[all[0]]
	}
	if all := slices.Sorted(maps.Keys(b.unread)); len(all) > 0 {
		advice := "other nodes may have it, or operators give it again"
		if errors.Is(b.unread[all[0]], ErrForeign) {
			advice = "it counts again once this node starts that release"
		}
		return fmt.Errorf("orders about seats: %s: %w: %s", all[0], b.unread[all[0]], advice)
	}
	return b.folder
}

// folder is a folder of the machine's file system.
type folder string

func (f folder) Read(name string) ([]byte, error) {
	return durable.Read(filepath.Join(string(f), name), maxFile)
}

func (f folder) Replace(name string, data []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	if err := durable.SyncFolder(filepath.Dir(string(f))); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(string(f), name), data, 0o600)
}

func (f folder) Aside(name string) error { return durable.Aside(filepath.Join(string(f), name)) }

func (f folder) List() (names []string, err error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if name := e.Name(); len(name) == 2*len(shelf.ID{}) { // not what a cut has left beside one
			names = append(names, name)
		}
	}
	return names, err
}
