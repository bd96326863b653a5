package images

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"

	"kogge.example/update/durable"
)

// refusals are the preloads that a release refused, why by mark. To find that out again
// takes a whole import, before any container starts.
type refusals map[string]string

// refused is the file of a node's refusals.
type refused struct {
	Release string   `json:"release"` // that refused them; others may not
	Refused refusals `json:"refused"`
}

// readRefusals are those of the release. What cannot be read is found out again.
func readRefusals(file, release string) refusals {
	var its refused
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &its)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Printf("preloads: which were refused before: %v", err)
	}
	if err != nil || its.Release != release {
		return nil
	}
	return its.Refused
}

// write makes file say what the release refuses. After a power cut it is the old file or the
// new one.
func (r refusals) write(file, release string) error {
	text, err := json.MarshalIndent(refused{release, r}, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = durable.Replace(file, append(text, '\n'), 0o600)
	}
	return err
}

// remember has the next boot pass over the preloads that this one refused, if they are
// others than before.
func (s *Store) remember(before, now refusals) {
	if s.folder == "" || maps.Equal(before, now) {
		return
	}
	if err := now.write(s.refusalsFile(), s.Release); err != nil {
		log.Printf("preloads: remember which are refused: %v", err) // the next boot finds out again
	}
}

func (s *Store) refusalsFile() string { return filepath.Join(s.folder, "kogge", "preloads.json") }
