package docket

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/fleet/docket"
	"kogge.example/update/fleet/document"
)

// files is the folder of the docket. The tests have one that loses power.
type files interface {
	Read(name string) ([]byte, error)
	Replace(name string, data []byte) error // old or new after a power cut, new once it returns
	Remove(name string) error
	Aside(name string) error // beside its place, where List has it under another name
	List() ([]string, error) // names; none where there is no folder
}

// timesFile has for how long proposals have waited, and which have left the queue.
const timesFile = "times.json"

// times is what it says.
type times struct {
	Version int        `json:"version"` // of this document: 1
	Waited  []waited   `json:"waited,omitempty"`
	Left    []departed `json:"left,omitempty"` // the oldest first
}

type waited struct {
	Proposal document.Hash     `json:"proposal"`
	Time     document.Duration `json:"time"`
}

type departed struct {
	Proposal document.Hash `json:"proposal"`
	Why      string        `json:"why"`
}

const version = 1

// loadTimes reads the times, if there are any. Where they are damaged all waiting begins anew.
func (s *Store) loadTimes(names []string) {
	if !slices.Contains(names, timesFile) {
		return
	}
	raw, ok := s.whole(timesFile)
	if !ok {
		return
	}
	t, err := document.DecodeExact[times](raw, version)
	if err != nil {
		return // a later release's: it is written anew, with what this one knows
	}
	for _, w := range t.Waited {
		s.seen[w.Proposal] = seen{max(0, time.Duration(w.Time)), s.running()}
	}
	for _, l := range t.Left {
		s.set.Remember(l.Proposal, l.Why)
	}
}

// keepTimes writes the times. The caller holds writing. After a cut the old ones are there or these.
func (s *Store) keepTimes() error {
	t := times{Version: version}
	s.mu.Lock()
	now := s.running()
	for _, p := range s.set.Proposals() {
		of := s.seen[p.ID]
		t.Waited = append(t.Waited, waited{p.ID, document.Duration((of.waited + max(0, now-of.at)).Truncate(time.Second))})
	}
	ids, why := s.set.Left()
	s.mu.Unlock()
	for i, id := range ids {
		t.Left = append(t.Left, departed{id, why[i]})
	}
	raw, err := document.Encode(t)
	if err == nil {
		err = s.files.Replace(timesFile, summed(raw))
	}
	if err != nil {
		return fmt.Errorf("keep for how long proposals have waited: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unkept, s.kept = false, now
	delete(s.damaged, timesFile)
	return nil
}

// summed is what a file holds: a SHA-256, because disks decay, and the content.
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

// maxFile is the bytes of a file, at most. The times of a full docket have less than three objects.
const maxFile = 4 * docket.MaxObject

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
