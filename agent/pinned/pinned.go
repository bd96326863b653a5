// Package pinned is the ledger of a node's fleet as the node has taken it: on STATE, outside
// of the slots, a file for each height, and one that says how far they go. What is taken is
// never forgotten, replaced or taken back.
//
// In come entries from anybody; out go the ledger's state, and files. An entry is verified
// before it is written. At another entry for a height that is taken the node keeps both, and
// stops for good: somebody has signed two histories. Who is asked for entries is the caller's
// matter.
package pinned

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// Ledger is a fleet's ledger on this node's STATE. Its methods may be called from any
// goroutine.
type Ledger struct {
	files files

	mu      sync.Mutex // guards what follows, while the disk is read and written
	log     *ledger.Log
	head    head  // of the files, as far as it is known
	problem error // why nothing is believed, or taken but what is missing; nil: all is well
	second  second
	before  func(ledger.State) error

	now atomic.Pointer[view] // of log, problem and second: nobody who asks waits for the disk
}

// second is the entry with which a second history begins. Its height is zero where there is none.
type second struct {
	height int64
	entry  ledger.Entry
}

// view is what a ledger says at a moment.
type view struct {
	state   ledger.State
	log     *ledger.Log // that does not grow
	problem error
	second  second
}

// show makes what is known now what others see. The caller holds mu.
func (l *Ledger) show() { l.now.Store(&view{l.log.State(), l.log.Clone(), l.problem, l.second}) }

// files is the ledger's folder. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)       // fs.ErrNotExist: there is none
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
	List() ([]string, error)                // names; none where there is no folder
}

// ErrFork is of a second entry for a height: both are proved, and only one can be the fleet's.
// The node keeps both, and takes no more: which of them it is to follow is for people to say.
var ErrFork = errors.New("the fleet's ledger has two records for one height")

// ErrDamaged is of a ledger whose files on STATE cannot be read from some height on. Nothing
// is taken until that height comes again, as it was.
var ErrDamaged = errors.New("the ledger on STATE is damaged")

// Open reads the ledger of a fleet from its folder, which the first record makes. A file that
// is missing, cannot be read, or does not follow on the one before, ends what is known:
// [Ledger.Problem] says so, and nothing is removed.
func Open(dir string, g *fleet.Genesis) *Ledger { return open(folder(dir), g) }

func open(files files, g *fleet.Genesis) *Ledger {
	l := &Ledger{files: files, log: ledger.New(g)}
	l.recall()
	l.show()
	return l
}

// Mend writes the head that a power cut or decay has taken, where all records are here: without
// it the node could not tell that one of them is gone. Of several programs that have the ledger
// open, the one that takes records calls it. That the disk takes no head is no reason to believe
// less: then the next record brings it.
func (l *Ledger) Mend() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.problem != nil || l.head.Height == l.log.State().Height {
		return nil
	}
	return l.writeHead(l.log)
}

// recall reads what lies on STATE behind what is known. Of two histories it is the one that was
// taken first, and nothing follows on it.
func (l *Ledger) recall() {
	l.remember()
	if err := l.forked(); err != nil {
		l.problem = err
	}
}

// remember reads the records, up to the first one that cannot be read.
func (l *Ledger) remember() {
	l.problem = nil
	var headless error
	l.head, headless = l.readHead()
	for {
		height := l.log.State().Height + 1
		e, err := l.read(height)
		if errors.Is(err, fs.ErrNotExist) && height > max(l.head.Height, l.highest()) {
			if height == 1 && headless != nil { // it is not known which record 1 it was
				l.problem = fmt.Errorf("%w: %s: %w", ErrDamaged, headName, headless)
			}
			return // the next record brings a new head
		}
		if err == nil {
			err = l.log.Recall(e)
		}
		switch {
		case errors.Is(err, document.ErrNewer): // after going back to this release
			l.problem = err
			return
		case err != nil:
			l.problem = fmt.Errorf("%w from height %d on: %w", ErrDamaged, height, err)
			return
		}
		if err := l.head.leads(l.log.State()); err != nil {
			l.problem = err
			return
		}
	}
}

// Reread takes note of what another program has put into the folder since it was read. Only
// that is read, and what could not be read before. Nothing is written.
func (l *Ledger) Reread() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recall()
	l.show()
}

const forkSuffix = ".fork"

// forked says at which height there is a second history, if a file of one is there.
func (l *Ledger) forked() error {
	names, err := l.files.List()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for _, name := range names {
		if height, ok := strings.CutSuffix(name, forkSuffix); ok {
			l.second = l.readSecond(height)
			return fmt.Errorf("%w: %s: files %s and %s of the ledger's folder have both", ErrFork, height, height, name)
		}
	}
	return nil
}

// readSecond is the entry of a second history at a height. One that cannot be read stops the node
// all the same: that it is there says so.
func (l *Ledger) readSecond(name string) second {
	height, err := strconv.ParseInt(name, 10, 64)
	if err != nil {
		return second{}
	}
	e, err := l.readFile(name+forkSuffix, height)
	if err != nil {
		return second{}
	}
	return second{height, e}
}

// highest is the highest height of which there is a file.
func (l *Ledger) highest() (highest int64) {
	names, _ := l.files.List() // forked has had them
	for _, name := range names {
		if height, err := strconv.ParseInt(name, 10, 64); err == nil && fileName(height) == name {
			highest = max(highest, height)
		}
	}
	return highest
}

func fileName(height int64) string { return strconv.FormatInt(height, 10) }

func (l *Ledger) read(height int64) (ledger.Entry, error) {
	return l.readFile(fileName(height), height)
}

func (l *Ledger) readFile(name string, height int64) (ledger.Entry, error) {
	raw, err := l.files.Read(name)
	if err != nil {
		return ledger.Entry{}, err
	}
	entry, err := unsummed(raw)
	if err != nil {
		return ledger.Entry{}, err
	}
	return ledger.ParseEntry(entry, height)
}

// summed is what a file of the folder holds: a SHA-256, because disks decay, and the content.
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

// State is what the ledger has decided so far.
func (l *Ledger) State() ledger.State { return l.now.Load().state }

// Problem says why the ledger is not to be relied on: the error wraps [ErrDamaged] where it
// ends before it did, [ErrFork], or [document.ErrNewer] where a later release has taken what
// this one does not understand. nil: all is well.
func (l *Ledger) Problem() error { return l.now.Load().problem }

// Second is the entry with which a second history begins, and its height, where the problem is
// [ErrFork]: others who know one history alone can be shown it. The height is 0 where there is none.
func (l *Ledger) Second() (height int64, e ledger.Entry) {
	s := l.now.Load().second
	return s.height, s.entry
}

// Known is what the fleet makes of a caller whose certificate is in order, by
// [ledger.State.Known]. Where the ledger has begun and nothing of it can be read, of all
// operators the first one alone is known, whom the genesis names: he can repair it. The error
// wraps [ledger.ErrUnlisted].
func (l *Ledger) Known(p fleet.Peer) (fleet.Peer, error) {
	now := l.now.Load()
	s := now.state
	if s.Height == 0 && now.problem != nil && p.Kind == fleet.KindOperator && p.Key != s.Genesis.FirstOperatorID() {
		return fleet.Peer{}, fmt.Errorf("%s: %w: nothing of it can be read here, and until that is repaired only the first operator is known", p, ledger.ErrUnlisted)
	}
	return s.Known(p)
}

// Log is the ledger as it is now. It does not grow, and is not to be changed.
func (l *Ledger) Log() *ledger.Log { return l.now.Load().log }

// Record is the hash of the record of a height, by [ledger.Log.Record].
func (l *Ledger) Record(height int64) (document.Hash, error) {
	return l.now.Load().log.Record(height)
}

// Entry is the entry of a height as this node has taken it. The error wraps
// [ledger.ErrHeight] if there is none.
func (l *Ledger) Entry(height int64) (ledger.Entry, error) {
	if newest := l.State().Height; height < 1 || height > newest {
		return ledger.Entry{}, fmt.Errorf("%w: %d of %d", ledger.ErrHeight, height, newest)
	}
	return l.read(height)
}

// Before has f called before each record that is taken from now on, with the state that there
// will be: for what has to be so on the disk before the record is. Its error keeps the record from
// being taken; f must not ask the ledger.
func (l *Ledger) Before(f func(ledger.State) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.before = f
}

// Take verifies the entry of a height and keeps it, durably once it returns nil. An entry that
// is here already is taken again; its certificate may be another one. The error wraps
// [ErrFork], or is that of [ledger.Log.Append]. A cut leaves the entry taken or not; its file
// may be one ahead of the head, never behind it:
//
//  1. what [Ledger.Before] asks for
//  2. the file of the height
//  3. the head
func (l *Ledger) Take(height int64, e ledger.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.show()
	if errors.Is(l.problem, ErrFork) || errors.Is(l.problem, document.ErrNewer) {
		return l.problem
	}
	newest := l.log.State().Height
	switch {
	case height < 1:
		return fmt.Errorf("record %d: %w: they begin with 1", height, ledger.ErrHeight)
	case height <= newest:
		return l.compare(height, e)
	case height > newest+1:
		return fmt.Errorf("record %d: %w: this node has %d records", height, ledger.ErrHeight, newest)
	}
	next := l.log.Clone()
	if err := next.Append(e); err != nil {
		return err
	}
	if l.problem != nil { // it comes in the place of one that was here
		if err := l.replaces(height, next.State()); errors.Is(err, ErrFork) {
			return l.fork(height, e, err)
		} else if err != nil {
			return err
		}
	}
	if l.before != nil {
		if err := l.before(next.State()); err != nil {
			return fmt.Errorf("record %d: %w", height, err)
		}
	}
	if err := l.files.Replace(fileName(height), format(height, e)); err != nil {
		return fmt.Errorf("record %d: %w", height, err)
	}
	if height > l.head.Height {
		if err := l.writeHead(next); err != nil {
			return fmt.Errorf("record %d: %w", height, err)
		}
	}
	l.log = next
	if l.problem != nil {
		l.recall()
	}
	return nil
}

// replaces wants the record that takes the place of a damaged one to be what was there: the
// one that the head names, and on which the next file follows.
func (l *Ledger) replaces(height int64, s ledger.State) error {
	if l.head.Height == 0 {
		return l.problem // without the head, any beginning would do
	}
	if err := l.head.leads(s); err != nil {
		return err
	}
	next, err := l.read(height + 1)
	if err != nil {
		return nil // there is none, or it is damaged too: then the head judges
	}
	r, err := ledger.ParseRecord(next.Record)
	if err == nil && r.Previous != s.Record {
		return fmt.Errorf("%w: %d: the next record here names %s, and this is %s", ErrFork, height, r.Previous.Short(), s.Record.Short())
	}
	return nil
}

// fork keeps the entry of a second history, and stops. Once it has returned, the node stays
// stopped; at a cut before that the entry is forgotten.
func (l *Ledger) fork(height int64, e ledger.Entry, why error) error {
	l.problem, l.second = why, second{height, e}
	if err := l.files.Replace(fileName(height)+forkSuffix, format(height, e)); err != nil {
		return errors.Join(why, err)
	}
	return why
}

// format is the file of an entry.
func format(height int64, e ledger.Entry) []byte { return summed(ledger.FormatEntry(height, e)) }

// compare wants that an entry is the one that is here. What costs little is looked at first:
// only what is proved is a second history, and all else is a stranger's word.
func (l *Ledger) compare(height int64, e ledger.Entry) error {
	mine, err := l.read(height)
	if err != nil {
		return fmt.Errorf("record %d: %w", height, err)
	}
	if bytes.Equal(mine.Record, e.Record) {
		return nil
	}
	r, err := ledger.ParseRecord(e.Record)
	if err != nil {
		return fmt.Errorf("record %d: %w", height, err)
	}
	if before, err := l.log.Record(height - 1); err != nil || r.Previous != before {
		return fmt.Errorf("record %d: %w: it does not follow on record %d of this node", height, ledger.ErrRecord, height-1)
	}
	before, err := l.until(height)
	if err != nil {
		return err
	}
	if err := before.Append(e); err != nil {
		return err
	}
	here, err := l.log.Record(height)
	if err != nil {
		return err
	}
	return l.fork(height, e, fmt.Errorf("%w: %d: %s is here, and %s came", ErrFork, height, here.Short(), before.State().Record.Short()))
}

// until is the ledger as it was before a height.
func (l *Ledger) until(height int64) (*ledger.Log, error) {
	before := ledger.New(l.log.State().Genesis)
	for h := int64(1); h < height; h++ {
		known, err := l.read(h)
		if err == nil {
			err = before.Recall(known)
		}
		if err != nil {
			return nil, err
		}
	}
	return before, nil
}

// Proved says why an entry of a height that was taken is not one of the record that is here, or does
// not prove it. Others may have another certificate of it, which proves it as well: to look at that,
// all records before it are read.
func (l *Ledger) Proved(height int64, e ledger.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, err := l.read(height)
	switch {
	case err != nil:
		return fmt.Errorf("record %d: %w", height, err)
	case !bytes.Equal(mine.Record, e.Record):
		return fmt.Errorf("record %d: %w: another one is here", height, ledger.ErrRecord)
	case bytes.Equal(mine.Certificate, e.Certificate) && bytes.Equal(mine.Value, e.Value):
		return nil
	}
	before, err := l.until(height)
	if err != nil {
		return err
	}
	return before.Append(e)
}

// folder is a folder of the machine's file system.
type folder string

// maxFile is above what an entry takes as a file, in bytes.
const maxFile = 2 * ledger.MaxEntry

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

// List gives the names in the folder.
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
