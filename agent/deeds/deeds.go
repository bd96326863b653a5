// Package deeds keeps a node's log of what it did to its own system on STATE, a file for each
// deed. What is noted is never changed, and removed only with STATE.
//
// In come deeds, from who does them; out go files, the head of the log, and the deeds again for
// whoever asks. What a deed is, and what became of an arming, is update/fleet/deed's.
package deeds

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
	"kogge.example/update/fleet/deed"
	"kogge.example/update/fleet/document"
)

// Most is how many deeds a node keeps: an update a day for eleven years. Each takes a block.
const Most = 4096

// Log is the log of this node. Its methods may be called from any goroutine.
type Log struct {
	files files

	mu      sync.Mutex // guards what follows
	log     deed.Log
	problem error // why the log ends before it did; nil: it does not
}

// files is the log's folder. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)       // fs.ErrNotExist: there is none
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
}

// ErrDamaged is of a log whose files cannot be read from some deed on. Nothing is noted any
// more: what follows on a gap would be another past.
var ErrDamaged = errors.New("this node's log of deeds is damaged")

// Open reads the log from its folder, which the first deed makes.
func Open(dir string) *Log { return open(folder(dir)) }

func open(files files) *Log {
	l := &Log{files: files}
	for l.log.Size() < Most {
		number := l.log.Size() + 1
		raw, err := l.read(number)
		if errors.Is(err, fs.ErrNotExist) {
			if _, err := l.read(number + 1); !errors.Is(err, fs.ErrNotExist) {
				l.problem = fmt.Errorf("%w: deed %d is gone", ErrDamaged, number)
			}
			return l
		}
		if err == nil {
			err = l.log.Append(raw)
		}
		if err != nil {
			l.problem = fmt.Errorf("%w from deed %d on: %w", ErrDamaged, number, err)
			return l
		}
	}
	return l
}

// read is a deed as it was noted: behind its SHA-256, because disks decay.
func (l *Log) read(number int64) ([]byte, error) {
	raw, err := l.files.Read(name(number))
	if err != nil {
		return nil, err
	}
	sum, content, _ := bytes.Cut(raw, []byte("\n"))
	if string(sum) != document.HashOf(content).String() {
		return nil, errors.New("its bytes are not those that were written")
	}
	return content, nil
}

func name(number int64) string { return strconv.FormatInt(number, 10) }

// Note adds a deed, whose version and number it sets, durably once it returns nil. At a cut it
// is noted or not.
func (l *Log) Note(d deed.Deed) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.problem != nil {
		return l.problem
	}
	if l.log.Size() == Most {
		return fmt.Errorf("this node's log of deeds is full: it has %d: a reset of STATE begins a new one", Most)
	}
	d.Version, d.Number = 1, l.log.Size()+1
	raw := d.Encode()
	next := l.log
	if err := next.Append(raw); err != nil {
		return err
	}
	if err := l.files.Replace(name(d.Number), append([]byte(document.HashOf(raw).String()+"\n"), raw...)); err != nil {
		return fmt.Errorf("note deed %d: %w", d.Number, err)
	}
	l.log = next
	return nil
}

// Settle notes what became of what was armed, by what runs now, once that can be told.
func (l *Log) Settle(now deed.Now, when, height int64) error {
	l.mu.Lock()
	last := l.log.Last()
	l.mu.Unlock()
	kind, ok := deed.Outcome(last, now)
	if !ok {
		return nil
	}
	d := deed.Deed{Time: when, Boot: now.Boot, Kind: kind, Slot: now.Slot, Root: now.Root, Height: height}
	if now.Root == last.Root {
		d.Release = last.Release
	}
	return l.Note(d)
}

// Head is how many deeds there are, and the root of the tree over them.
func (l *Log) Head() (size int64, root document.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	root, err := l.log.Root(l.log.Size())
	if err != nil {
		panic(err) // the log has all hashes of its own tree
	}
	return l.log.Size(), root
}

// Read is the bytes of a deed. The error wraps [fs.ErrNotExist] if there is none.
func (l *Log) Read(number int64) ([]byte, error) {
	if size, _ := l.Head(); number < 1 || number > size {
		return nil, fmt.Errorf("deed %d of %d: %w", number, size, fs.ErrNotExist)
	}
	return l.read(number)
}

// Problem says why nothing is noted: the error wraps [ErrDamaged]. nil: all is well.
func (l *Log) Problem() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem
}

// folder is a folder of the machine's file system.
type folder string

// maxFile is above what a deed takes as a file, in bytes.
const maxFile = 4 << 10

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
