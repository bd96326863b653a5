// Package pinned is the ledger of a node's fleet as the node has taken it: on STATE, outside
// of the slots, a file for each height. What is taken is never forgotten, replaced or taken
// back.
//
// In come entries from anybody; out go the ledger's state, and files. An entry is verified
// before it is written. At another entry for a height that is taken the node keeps both in
// hand and stops taking: somebody has signed two histories. Who is asked for entries is the
// caller's matter.
package pinned

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// Ledger is a fleet's ledger on this node's STATE. Its methods may be called from any
// goroutine.
type Ledger struct {
	files files

	mu      sync.Mutex // guards what follows
	log     *ledger.Log
	damaged error // why the files end before the ledger did; nil: they do not
}

// files is the ledger's folder. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)       // fs.ErrNotExist: there is none
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
}

// ErrFork is of a second entry for a height: both are proved, and only one can be the fleet's.
var ErrFork = errors.New("the fleet's ledger has two records for one height")

// ErrDamaged is of a ledger whose files on STATE cannot be read from some height on. Nothing
// is taken until that height comes again, as it was.
var ErrDamaged = errors.New("the ledger on STATE is damaged")

// Open reads the ledger of a fleet from its folder, which the first record makes: older
// releases of Kogge see by it that the fleet decides about updates. A file that cannot be
// read, or does not follow on the one before, ends what is known: [Ledger.Damaged] says so,
// and nothing is removed.
func Open(dir string, g *fleet.Genesis) *Ledger { return open(folder(dir), g) }

func open(files files, g *fleet.Genesis) *Ledger {
	l := &Ledger{files: files, log: ledger.New(g)}
	l.recall()
	return l
}

// recall reads what lies on STATE behind what is known.
func (l *Ledger) recall() {
	for l.damaged = nil; ; {
		height := l.log.State().Height + 1
		e, err := l.read(height)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err == nil {
			err = l.log.Recall(e)
		}
		if err != nil {
			l.damaged = fmt.Errorf("%w from height %d on: %w", ErrDamaged, height, err)
			return
		}
	}
}

func fileName(height int64) string { return strconv.FormatInt(height, 10) }

func (l *Ledger) read(height int64) (ledger.Entry, error) {
	raw, err := l.files.Read(fileName(height))
	if err != nil {
		return ledger.Entry{}, err
	}
	sum, entry, _ := bytes.Cut(raw, []byte("\n"))
	if string(sum) != document.HashOf(entry).String() {
		return ledger.Entry{}, errors.New("its bytes are not those that were written")
	}
	return ledger.ParseEntry(entry, height)
}

// State is what the ledger has decided so far.
func (l *Ledger) State() ledger.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.State()
}

// Damaged says why the ledger ends before it did; nil if it does not. The error wraps
// [ErrDamaged].
func (l *Ledger) Damaged() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.damaged
}

// Entry is the entry of a height as this node has taken it. The error wraps
// [ledger.ErrHeight] if there is none.
func (l *Ledger) Entry(height int64) (ledger.Entry, error) {
	if newest := l.State().Height; height < 1 || height > newest {
		return ledger.Entry{}, fmt.Errorf("%w: %d of %d", ledger.ErrHeight, height, newest)
	}
	return l.read(height)
}

// Take verifies the entry of a height and keeps it, durably once it returns nil. An entry that
// is here already is taken again; its certificate may be another one. The error wraps
// [ErrFork], or is that of [ledger.Log.Append].
func (l *Ledger) Take(height int64, e ledger.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	newest := l.log.State().Height
	if height <= newest {
		return l.compare(height, e)
	}
	if height > newest+1 {
		return fmt.Errorf("record %d: %w: this node has %d records", height, ledger.ErrHeight, newest)
	}
	next := l.log.Clone()
	if err := next.Append(e); err != nil {
		return err
	}
	if err := l.leads(height, next.State().Record); err != nil {
		return err
	}
	if err := l.files.Replace(fileName(height), format(height, e)); err != nil {
		return fmt.Errorf("record %d: %w", height, err)
	}
	l.log = next
	l.recall()
	return nil
}

// leads wants, where the file of a height was damaged, that the record which takes its place
// is the one that the next file names.
func (l *Ledger) leads(height int64, record document.Hash) error {
	next, err := l.read(height + 1)
	if err != nil {
		return nil // there is none, or it is damaged too
	}
	r, err := ledger.ParseRecord(next.Record)
	if err == nil && r.Previous != record {
		return fmt.Errorf("%w: %d", ErrFork, height)
	}
	return nil
}

// format is the file of an entry: a SHA-256, because disks decay, and the entry.
func format(height int64, e ledger.Entry) []byte {
	entry := ledger.FormatEntry(height, e)
	return append([]byte(document.HashOf(entry).String()+"\n"), entry...)
}

// compare wants that an entry is the one that is here.
func (l *Ledger) compare(height int64, e ledger.Entry) error {
	mine, err := l.read(height)
	if err != nil {
		return fmt.Errorf("record %d: %w", height, err)
	}
	if bytes.Equal(mine.Record, e.Record) {
		return nil
	}
	// Only what is proved is a second history; all else is a stranger's word.
	before := ledger.New(l.log.State().Genesis)
	for h := int64(1); h < height; h++ {
		known, err := l.read(h)
		if err == nil {
			err = before.Recall(known)
		}
		if err != nil {
			return err
		}
	}
	if err := before.Append(e); err != nil {
		return err
	}
	return fmt.Errorf("%w: %d", ErrFork, height)
}

// folder is a folder of the machine's file system.
type folder string

func (f folder) Read(name string) ([]byte, error) { return os.ReadFile(filepath.Join(string(f), name)) }

func (f folder) Replace(name string, data []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	if err := durable.SyncFolder(filepath.Dir(string(f))); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(string(f), name), data, 0o600)
}
