package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
)

// Numbers gives the sequence numbers under which this node's seat signs, as [notice.Numbers]
// says. Its methods may be called from any goroutine.
type Numbers struct {
	files files

	writing sync.Mutex // held while the disk takes a number: Heard does not wait for that
	mu      sync.Mutex // guards what follows
	numbers notice.Numbers
	problem error
}

const (
	numbersName    = "numbers.json"
	numbersVersion = 1
)

type numbersFile struct {
	Version  int    `json:"version"`
	Reserved uint64 `json:"reserved"` // no number that was given is above it
}

// OpenNumbers reads from the folder of the node's identity how far its numbers are. A file that
// is gone or cannot be read costs no more than a disk that was restored: the node goes on where
// others have heard of it last.
func OpenNumbers(dir string) *Numbers { return openNumbers(folder(dir), rand.Uint64()) }

func openNumbers(files files, random uint64) *Numbers {
	n := &Numbers{files: files}
	var f numbersFile
	raw, err := files.Read(numbersName)
	if err == nil {
		f, err = document.DecodeExact[numbersFile](raw, numbersVersion)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.problem = fmt.Errorf("numbers of this node's seat: %s: %w", numbersName, err)
	}
	n.numbers = notice.Begin(f.Reserved, random)
	return n
}

// Next is a number that was never given, and, after a cut at any point, will not be given
// again: once in 256 times a higher one is on the disk before it is given. While the disk takes
// none, [Numbers.Problem] says so, and numbers are given all the same: a node has to be able to
// say that its disk fails. They hold for this run; afterwards the node hears of them from
// others.
func (n *Numbers) Next() uint64 {
	n.writing.Lock()
	defer n.writing.Unlock()
	n.mu.Lock()
	number, reserve := n.numbers.Next()
	n.mu.Unlock()
	if reserve == 0 {
		return number
	}
	raw, err := document.Encode(numbersFile{numbersVersion, reserve})
	if err == nil {
		err = n.files.Replace(numbersName, raw)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.problem = nil; err != nil {
		n.problem = fmt.Errorf("numbers of this node's seat: %w", err)
		n.numbers.Unwritten()
	}
	return number
}

// Heard notes under which number others have an object of this seat, and says whether it is
// above all that this node knows of.
func (n *Numbers) Heard(number uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.numbers.Heard(number)
}

// Problem says why the disk does not hold the numbers; nil: it does.
func (n *Numbers) Problem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.problem
}
