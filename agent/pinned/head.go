package pinned

import (
	"errors"
	"fmt"
	"io/fs"

	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
)

// head says how far the ledger's files go. By it the node sees that one of them is gone, and
// knows its fleet's first record even if the file of that has decayed.
type head struct {
	Version int           `json:"version"` // of this document: 1
	First   document.Hash `json:"first"`   // record 1
	Height  int64         `json:"height"`  // of the newest record that is surely here
	Record  document.Hash `json:"record"`  // that record
}

const (
	headName    = "head"
	headVersion = 1
)

// readHead is the head; the zero one where nothing was taken yet.
func (l *Ledger) readHead() (head, error) {
	raw, err := l.files.Read(headName)
	if errors.Is(err, fs.ErrNotExist) {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	content, err := unsummed(raw)
	if err != nil {
		return head{}, err
	}
	h, err := document.DecodeExact[head](content, headVersion)
	if err == nil && (h.Height < 1 || h.First.IsZero() || h.Record.IsZero()) {
		err = fmt.Errorf("its height is %d", h.Height)
	}
	return h, err
}

// writeHead says that all records of a log are here.
func (l *Ledger) writeHead(log *ledger.Log) error {
	first, err := log.Record(1)
	if err != nil {
		return err
	}
	h := head{headVersion, first, log.State().Height, log.State().Record}
	content, err := document.Encode(h)
	if err != nil {
		return err
	}
	if err := l.files.Replace(headName, summed(content)); err != nil {
		return err
	}
	l.head = h
	return nil
}

// leads wants the newest record of a state to be the one that the head names, if it names that
// height. The error wraps [ErrFork].
func (h head) leads(s ledger.State) error {
	for _, known := range []struct {
		height int64
		record document.Hash
	}{{1, h.First}, {h.Height, h.Record}} {
		if h.Height > 0 && s.Height == known.height && s.Record != known.record {
			return fmt.Errorf("%w: %d: %s was taken, and this is %s", ErrFork, s.Height, known.record.Short(), s.Record.Short())
		}
	}
	return nil
}
