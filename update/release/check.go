package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Local is a layout on this computer, whose files can be listed.
type Local interface {
	Stored
	// Check reads every file of the layout, also what no node reads, and says of each what
	// is wrong: what the release names is there, whole and with the bytes of its digest,
	// and beside it lies nothing else. The error wraps [ErrLayout]. Signatures are for
	// [Verify].
	Check(ctx context.Context) error
}

// maxProblems is how many files are named that something is wrong with.
const maxProblems = 20

// Check is that of [Local].
func (d *Dir) Check(ctx context.Context) error {
	var names []string
	err := fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (name == "." || name == path.Dir(blobDir) || name == blobDir) {
			return nil
		}
		names = append(names, name)
		if e.IsDir() {
			return fs.SkipDir // named as a whole
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.check(ctx, names)
}

// Check is that of [Local].
func (t *Tar) Check(ctx context.Context) error { return t.check(ctx, t.names) }

// check compares a layout that has these files with what it names.
func (l layout) check(ctx context.Context, names []string) error {
	named, err := l.named(ctx)
	if err != nil {
		return err
	}
	slices.Sort(names)
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !slices.Contains(names, name) {
			problems = append(problems, fmt.Errorf("%s is missing", name))
		}
	}
	for _, name := range names {
		d, ok := named[name]
		switch {
		case name == ocispec.ImageLayoutFile, name == indexName: // they have been read
			continue
		case !ok && !blobForm.MatchString(name):
			problems = append(problems, fmt.Errorf("%q is not part of a release", name))
			continue
		}
		size, sum, err := l.sum(ctx, name)
		whole := sum == path.Base(name)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			problems = append(problems, fmt.Errorf("%q: %w", name, err))
		case !ok && !whole:
			problems = append(problems, fmt.Errorf("%s: nothing in the release names it, and its bytes do not match its name", name))
		case !ok:
			problems = append(problems, fmt.Errorf("%s: nothing in the release names it", name))
		case size != d.Size:
			problems = append(problems, fmt.Errorf("%s: %d bytes, the release says %d", name, size, d.Size))
		case !whole:
			problems = append(problems, fmt.Errorf("%s: its bytes do not match its digest", name))
		}
	}
	if over := len(problems) - maxProblems; over > 0 {
		problems = append(problems[:maxProblems], fmt.Errorf("and %d more files", over))
	}
	if len(problems) > 0 {
		return layoutError(errors.Join(problems...))
	}
	return nil
}

// named are the blobs that a layout names, by their files.
func (l layout) named(ctx context.Context) (map[string]ocispec.Descriptor, error) {
	top, err := l.release(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := l.Index(ctx)
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, err
	}
	named := map[string]ocispec.Descriptor{blobName(top.Digest): top}
	for _, d := range index.Manifests {
		raw, err := document(ctx, l, d)
		if err != nil {
			return nil, err
		}
		var m ocispec.Manifest
		if err := decode(raw, &m); err != nil {
			return nil, layoutError(fmt.Errorf("manifest %s: %w", d.Digest, err))
		}
		for _, one := range append([]ocispec.Descriptor{d, m.Config}, m.Layers...) {
			if err := checkDescriptor(one, maxPart); err != nil {
				return nil, layoutError(fmt.Errorf("manifest %s: %w", d.Digest, err))
			}
			named[blobName(one.Digest)] = one
		}
	}
	return named, nil
}

// sum reads a file of the layout to its end. The SHA-256 is in hex digits.
func (l layout) sum(ctx context.Context, name string) (size int64, sum string, err error) {
	f, err := l.open(ctx, name, 0)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, &cancelable{ctx, f})
	return size, hex.EncodeToString(h.Sum(nil)), err
}
