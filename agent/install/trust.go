package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"kogge.example/update/durable"
	"kogge.example/update/release"
)

// trust is where the node has the root of trust: who may make releases for it. The
// image brings one; releases bring newer ones, each signed by the one before, and the
// newest that was ever seen is kept on STATE. It never goes back: a key that was
// exchanged because it was stolen must not count again after a rollback.
type trust struct {
	image string // root.json of the running release
	kept  string // and of STATE
}

// errNoTrust means that nobody may make releases for this node.
var errNoTrust = refuse("this node trusts no keys for releases: its image has no root of trust")

// root returns the newest root.json.
func (t trust) root() ([]byte, error) {
	image, imageVersion, err := readRoot(t.image)
	if err != nil {
		return nil, err
	}
	kept, keptVersion, err := readRoot(t.kept)
	switch {
	case err != nil:
		return nil, err
	case kept == nil && image == nil:
		return nil, errNoTrust
	case imageVersion > keptVersion: // the running release was verified itself
		return image, nil
	}
	return kept, nil
}

// readRoot returns nil and 0 where there is no file. One that makes no sense is an
// error: whoever could damage it must not get back what came before.
func readRoot(file string) ([]byte, int64, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("root of trust: %w", err)
	}
	root, err := release.ParseRoot(raw)
	if err != nil {
		return nil, 0, fmt.Errorf("root of trust %s: %w", file, err)
	}
	return raw, root.Version, nil
}

// keep keeps a newer root.json. After a cut there is the old one or the new one.
func (t trust) keep(raw []byte, version int64) error {
	_, have, err := readRoot(t.kept)
	if err != nil || version <= have {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(t.kept), 0o700); err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	if err := durable.Replace(t.kept, raw, 0o600); err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	return nil
}
