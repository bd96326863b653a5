// Package deed is what a node did to its own system, in the order in which it did it: which
// release it armed and by whose right, and what became of that. The log only grows. Its head
// goes into the node's signed status, so that a node which rewrites its past contradicts its own
// word.
//
// In come deeds, or the bytes of them; out go a log's head, and verdicts on a log that somebody
// shows. Where the log lies, and when something is noted, is agent/deeds'.
package deed

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"kogge.example/update/fleet/document"
)

// Kind says what was done.
type Kind string

// The kinds of deeds.
const (
	Armed    Kind = "armed"     // the loader is about to be told to start a release
	Failed   Kind = "failed"    // that did not come about
	Stayed   Kind = "stayed"    // the release that was armed runs, and is what the node falls back to from now on
	WentBack Kind = "went-back" // something else runs than what was armed
)

// Deed is one line of the log.
type Deed struct {
	Version int           `json:"version"` // of this document: 1
	Number  int64         `json:"number"`  // 1, 2, 3, …
	Time    int64         `json:"time"`    // Unix time in seconds, by the node's clock, which may be wrong
	Boot    string        `json:"boot"`    // the kernel's id of the boot in which it was done
	Kind    Kind          `json:"kind"`
	Slot    string        `json:"slot"`              // A or B
	Release string        `json:"release,omitempty"` // its version
	Root    document.Hash `json:"root"`              // root hash of its file system
	By      string        `json:"by,omitempty"`      // whose right it was, for people; of armed and failed
	Height  int64         `json:"height"`            // of the ledger, as the node had it
}

const (
	version = 1
	maxDeed = 1 << 10 // bytes
	maxText = 128     // of each of its texts
)

// ErrDeed is of bytes that are no deed, or not the one that follows.
var ErrDeed = errors.New("not a deed of a node")

// Encode writes the deed as it is hashed.
func (d Deed) Encode() []byte {
	raw, err := document.Encode(d)
	if err != nil {
		panic(err) // JSON can write all that a Deed can hold
	}
	return raw
}

// Parse reads a deed. The error wraps [ErrDeed], and where a later release has written it
// [document.ErrNewer].
func Parse(raw []byte) (Deed, error) {
	if len(raw) > maxDeed {
		return Deed{}, fmt.Errorf("%w: %d bytes: %d at most", ErrDeed, len(raw), maxDeed)
	}
	d, err := document.DecodeExact[Deed](raw, version)
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return Deed{}, fmt.Errorf("%w: %w", ErrDeed, err)
	}
	return d, nil
}

func (d Deed) check() error {
	for _, t := range []struct{ field, text string }{{"boot", d.Boot}, {"release", d.Release}, {"by", d.By}} {
		if len(t.text) > maxText {
			return fmt.Errorf("field %s: %d bytes: %d at most", t.field, len(t.text), maxText)
		}
	}
	switch {
	case d.Number < 1:
		return fmt.Errorf("field number: %d", d.Number)
	case !slices.Contains([]Kind{Armed, Failed, Stayed, WentBack}, d.Kind):
		return fmt.Errorf("field kind: %.20q", d.Kind)
	case d.Slot != "A" && d.Slot != "B":
		return fmt.Errorf("field slot: %.20q", d.Slot)
	case d.Root.IsZero():
		return errors.New("field root: there is none")
	case d.Height < 0:
		return fmt.Errorf("field height: %d", d.Height)
	}
	return nil
}

// Log is a log of deeds. It keeps the last one and the hashes of its RFC 6962 tree. The zero
// Log is empty.
type Log struct {
	last   Deed
	hashes tree
}

// tree holds the hashes of a tree as tlog stores them.
type tree []tlog.Hash

// ReadHashes gives hashes by their storage index.
func (t tree) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		if i < 0 || i >= int64(len(t)) {
			return nil, fmt.Errorf("hash %d of %d", i, len(t))
		}
		out = append(out, t[i])
	}
	return out, nil
}

// Size is how many deeds there are.
func (l *Log) Size() int64 { return l.last.Number }

// Last is the newest deed; the zero one: there is none.
func (l *Log) Last() Deed { return l.last }

// Append adds the bytes of the deed that follows. The error wraps [ErrDeed]; the log is as it
// was then.
func (l *Log) Append(raw []byte) error {
	d, err := Parse(raw)
	if err != nil {
		return err
	}
	if d.Number != l.Size()+1 {
		return fmt.Errorf("%w: field number: it is %d, and %d is wanted", ErrDeed, d.Number, l.Size()+1)
	}
	hashes, err := tlog.StoredHashes(l.Size(), raw, l.hashes)
	if err != nil {
		return err
	}
	l.last, l.hashes = d, append(l.hashes, hashes...)
	return nil
}

// Root is the root of the tree over the first deeds, so many of them; the zero one for none.
func (l *Log) Root(size int64) (document.Hash, error) {
	if size < 0 || size > l.Size() {
		return document.Hash{}, fmt.Errorf("%w: %d of %d", ErrDeed, size, l.Size())
	}
	if size == 0 {
		return document.Hash{}, nil
	}
	root, err := tlog.TreeHash(size, l.hashes)
	return document.Hash(root), err
}

// Now is what runs on a node, and how sure that is.
type Now struct {
	Boot string
	Slot string
	Root document.Hash
	// Trial says that the loader falls back from it as long as nobody has found it good.
	Trial bool
}

// Outcome says what became of the newest deed of a log if that armed something; false: nothing
// yet, or it has been noted. In the boot in which it was armed nothing has become of it.
func Outcome(last Deed, now Now) (Kind, bool) {
	switch {
	case last.Kind != Armed || now.Boot == last.Boot:
		return "", false
	case now.Root != last.Root:
		return WentBack, true
	case now.Trial:
		return "", false
	}
	return Stayed, true
}
