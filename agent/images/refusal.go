package images

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"kogge.example/agent/tarball"
	"kogge.example/update/durable"
)

// past is what a release knows of preloads that have no image with their mark. To find that
// out again takes a whole import, before any container starts.
type past struct {
	Release string            `json:"release"` // others may come to another end
	Refused map[string]string `json:"refused"` // why, by mark
	// Beside are the names in those that gave none, since other preloads have them, by mark.
	Beside map[string][]string `json:"beside,omitempty"`
}

// readPast is that of the release. What cannot be read is found out again.
func readPast(file, release string) past {
	var its past
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &its)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Printf("preloads: which were refused before: %v", err)
	}
	if err != nil || its.Release != release {
		return past{Release: release}
	}
	return its
}

// same says whether p and q are.
func (p past) same(q past) bool {
	return maps.Equal(p.Refused, q.Refused) && maps.EqualFunc(p.Beside, q.Beside, slices.Equal)
}

// write makes file say what the release knows. After a power cut it is the old file or the
// new one.
func (p past) write(file string) error {
	text, err := json.MarshalIndent(p, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = durable.Replace(file, append(text, '\n'), 0o600)
	}
	return err
}

// remember has the next boot pass over the preloads that this one passed over, if they are
// others than before.
func (s *Store) remember(before, now past) {
	if s.folder == "" || before.same(now) {
		return
	}
	if err := now.write(s.pastFile()); err != nil {
		log.Printf("preloads: remember which are refused: %v", err) // the next boot finds out again
	}
}

func (s *Store) pastFile() string { return filepath.Join(s.folder, "kogge", "preloads.json") }

// ofNode are errors of the node's, whatever else is wrong by their words.
var ofNode = []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE}

// ofFile are words of errors that come from containerd, or as words alone, for what is wrong
// with an archive whenever it is read.
//
// Source: core/images/archive/importer.go and pkg/rootfs/apply.go of containerd, and what
// unpacks layers.
var ofFile = []string{
	`" not found`, "unsupported OCI version", "missing index.json", "unrecognized image format", "no target for symlink",
	"wrong diff id", "archive/tar: ", "gzip: invalid", "flate: corrupt", "unexpected EOF", "magic number mismatch",
}

// damaged says whether the import of a preload failed for its bytes: another boot would end
// the same way.
func damaged(err error) bool {
	if tarball.Refused(err) {
		return true
	}
	passes := func(e error) bool { return strings.Contains(err.Error(), e.Error()) }
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errdefs.IsCanceled(err) ||
		errdefs.IsDeadlineExceeded(err) || errdefs.IsUnavailable(err) || errdefs.IsNotFound(err) || slices.ContainsFunc(ofNode, passes) {
		return false
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) ||
		errors.As(err, new(flate.CorruptInputError)) || errors.As(err, new(*json.SyntaxError)) || errors.As(err, new(*json.UnmarshalTypeError)) {
		return true
	}
	return slices.ContainsFunc(ofFile, func(words string) bool { return strings.Contains(err.Error(), words) })
}
