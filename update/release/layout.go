package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoLayout says that there is no OCI image layout at all.
var ErrNoLayout = errors.New("not an OCI image layout")

func digestOf(raw []byte) digest.Digest { return digest.SHA256.FromBytes(raw) }

// indexName is the file of a layout that names what is in it.
const indexName = "index.json"

// blobName is where a layout has a blob. The digest has been checked.
func blobName(d digest.Digest) string {
	return "blobs/sha256/" + strings.TrimPrefix(string(d), "sha256:")
}

// layout is a [Source] that is laid out as OCI's specification says, over any files.
type layout struct {
	// open opens a file of the layout from offset on. The name is a path with slashes.
	open func(ctx context.Context, name string, offset int64) (io.ReadCloser, error)
}

func (l layout) read(ctx context.Context, name string) ([]byte, error) {
	f, err := l.open(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := readAll(f, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return raw, nil
}

// Index follows index.json, which names one index: that of the release.
func (l layout) Index(ctx context.Context) ([]byte, error) {
	raw, err := l.read(ctx, ocispec.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoLayout, err)
	}
	if err != nil {
		return nil, err
	}
	var version ocispec.ImageLayout
	if err := decode(raw, &version); err != nil {
		return nil, layoutError(fmt.Errorf("%s: %w", ocispec.ImageLayoutFile, err))
	}
	if version.Version != ocispec.ImageLayoutVersion {
		return nil, layoutError(fmt.Errorf("%s: layout of version %.20q: want %s", ocispec.ImageLayoutFile, version.Version, ocispec.ImageLayoutVersion))
	}
	d, err := l.release(ctx)
	if err != nil {
		return nil, err
	}
	return document(ctx, l, d)
}

// release is the descriptor of the index of the release.
func (l layout) release(ctx context.Context) (ocispec.Descriptor, error) {
	raw, err := l.read(ctx, indexName)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	outer, err := parseIndex(raw)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", indexName, err)
	}
	if len(outer.Manifests) != 1 {
		return ocispec.Descriptor{}, layoutError(fmt.Errorf("%s: it has %d entries: want one release", indexName, len(outer.Manifests)))
	}
	d := outer.Manifests[0]
	if d.MediaType != ocispec.MediaTypeImageIndex {
		return d, layoutError(fmt.Errorf("%s: media type %.80q: want %s", indexName, d.MediaType, ocispec.MediaTypeImageIndex))
	}
	if err := checkDescriptor(d, maxDocument); err != nil {
		return d, layoutError(fmt.Errorf("%s: %w", indexName, err))
	}
	return d, nil
}

// Blob opens a blob of the layout.
func (l layout) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := checkDescriptor(d, maxPart); err != nil {
		return nil, layoutError(err)
	}
	body, err := l.open(ctx, blobName(d.Digest), offset)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, layoutError(fmt.Errorf("%s is missing", blobName(d.Digest)))
	}
	return body, err
}

// Dir is a layout in a folder.
type Dir struct {
	layout
	root *os.Root
}

// OpenDir opens the layout in a folder. Links that lead out of it are not followed.
func OpenDir(name string) (*Dir, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return &Dir{layout{func(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
		// A named pipe would keep us waiting for somebody who writes.
		f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = layoutError(fmt.Errorf("%s is not a regular file", name))
		}
		if err == nil {
			_, err = f.Seek(offset, io.SeekStart)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}}, root}, nil
}

// Close closes the folder.
func (d *Dir) Close() error { return d.root.Close() }
