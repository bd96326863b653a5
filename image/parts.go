package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"kogge.example/update/bootloader"
	content "kogge.example/update/release"
	"kogge.example/update/verity"
)

// TrustFile is where the root file system has the root.json of TUF that the node
// believes as long as it knows no newer one.
const TrustFile = "/usr/lib/kogge/tuf/root.json"

// ErrMarked says that a build is not what its commit and its lock say: it may be put
// on a disk, and is no release.
var ErrMarked = errors.New("no release can be made of it")

// Parts makes what a release has for one board: the same boot files and root file
// system that [Build] puts into slot A. What it returns reads from the cache. The error
// wraps [ErrMarked] where others could not build the same: a package is not the locked
// one, or a suite was left out.
func Parts(ctx context.Context, o Options) (content.Content, error) {
	if err := bootloader.CheckVersion(o.Version); err != nil {
		return content.Content{}, err
	}
	if len(o.Packages.Without) > 0 {
		return content.Content{}, fmt.Errorf("board %s: built without the suite %s: %w", o.Board.Name, strings.Join(o.Packages.Without, ", "), ErrMarked)
	}
	unlock, err := lockCache(ctx, o)
	if err != nil {
		return content.Content{}, err
	}
	defer unlock()
	r, err := buildRelease(ctx, o)
	if err != nil {
		return content.Content{}, err
	}
	if len(r.unlocked) > 0 {
		return content.Content{}, fmt.Errorf("board %s: unlocked, it has %s: %w", o.Board.Name, strings.Join(r.unlocked, ", "), ErrMarked)
	}
	c := content.Content{Facts: content.Facts{
		Version: o.Version, Counter: o.counter(), Board: o.Board.Name, Arch: o.Board.Arch, Created: o.When,
		Verity: r.root.Verity.String(), Schema: content.StateSchema,
	}}
	for _, p := range r.boot {
		c.Parts = append(c.Parts, content.File{Name: p.Name, Size: int64(len(p.Data)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(p.Data)), nil
		}})
	}
	blocks := r.root.Verity.Blocks
	size := int64(blocks*verity.BlockSize + verity.TreeSize(blocks))
	c.Parts = append(c.Parts, content.File{Name: content.RootPart, Size: size, Open: func() (io.ReadCloser, error) {
		f, err := os.Open(r.root.File)
		if err != nil {
			return nil, fmt.Errorf("root file system: %w", err)
		}
		return section{io.NewSectionReader(f, 0, size), f}, nil
	}})
	return c, nil
}

// section is the beginning of a file.
type section struct {
	io.Reader
	io.Closer
}

// counter is that of the release.
func (o Options) counter() uint64 {
	if o.Counter == 0 {
		return uint64(max(1, o.When.Unix()))
	}
	return o.Counter
}
