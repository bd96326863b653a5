package release

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Limits of a tar. They leave room for the folders that other tools add.
const (
	maxEntries = 2048
	maxPadding = 1 << 20 // zeros behind the end
)

// blobForm is the name of a blob in a layout.
var blobForm = regexp.MustCompile(`^blobs/sha256/[0-9a-f]{64}$`)

// entryName is the name of a file of a layout, or "" for a folder, which has no
// content. Anything else, and whatever points out of the layout, is refused.
func entryName(h *tar.Header) (string, error) {
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeDir:
		switch path.Clean(name) {
		case ".", "blobs", "blobs/sha256":
			return "", nil
		}
		return "", fmt.Errorf("folder %.80q is not part of a layout", h.Name)
	case tar.TypeReg:
	default:
		return "", fmt.Errorf("%.80q is neither a file nor a folder (type %q)", h.Name, h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return "", fmt.Errorf("%.80q is sparse", h.Name)
		}
	}
	if name != "oci-layout" && name != indexName && !blobForm.MatchString(name) {
		return "", fmt.Errorf("file %.80q is not part of a layout", h.Name)
	}
	if h.Size < 0 || h.Size > maxPart {
		return "", fmt.Errorf("%s: %d bytes: %d at most", name, h.Size, int64(maxPart))
	}
	return name, nil
}

// Tar is a layout in a tar.
type Tar struct {
	layout
	file  io.Closer
	names []string // of its files
}

// OpenTar opens the tar in a file. It reads its headers once.
func OpenTar(name string) (*Tar, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		var t *Tar
		if t, err = NewTar(f, st.Size()); err == nil {
			t.file = f
			return t, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
}

// NewTar reads the headers of a tar of so many bytes.
func NewTar(r io.ReaderAt, size int64) (*Tar, error) {
	type place struct{ offset, size int64 }
	places := map[string]place{}
	all := io.NewSectionReader(r, 0, size)
	archive := tar.NewReader(all)
	entries := 0
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, tarError(err)
		}
		if entries++; entries > maxEntries {
			return nil, tarError(fmt.Errorf("more than %d files", maxEntries))
		}
		name, err := entryName(h)
		if err != nil {
			return nil, tarError(err)
		}
		if name == "" {
			continue
		}
		if _, twice := places[name]; twice {
			return nil, tarError(fmt.Errorf("%s is there twice", name))
		}
		// The reader takes whole blocks of 512 bytes and no more than the header.
		at, err := all.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, tarError(err)
		}
		if h.Size > size-at {
			return nil, tarError(fmt.Errorf("%s: %d bytes, but the tar ends after %d", name, h.Size, size-at))
		}
		places[name] = place{at, h.Size}
	}
	if entries == 0 {
		return nil, fmt.Errorf("%w: the file is not a tar, or it is empty", ErrNoLayout)
	}
	if err := onlyZeros(all); err != nil {
		return nil, tarError(err)
	}
	return &Tar{names: slices.Collect(maps.Keys(places)), layout: layout{func(_ context.Context, name string, offset int64) (io.ReadCloser, error) {
		p, ok := places[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		offset = min(max(offset, 0), p.size)
		return io.NopCloser(io.NewSectionReader(r, p.offset+offset, p.size-offset)), nil
	}}}, nil
}

// Close closes the file.
func (t *Tar) Close() error {
	if t.file == nil {
		return nil
	}
	return t.file.Close()
}

func tarError(err error) error { return layoutError(fmt.Errorf("tar: %w", err)) }

// onlyZeros reads the rest of a tar: tools fill their last record up with zeros.
func onlyZeros(r io.Reader) error {
	rest, err := io.ReadAll(io.LimitReader(r, maxPadding+1))
	if err != nil {
		return err
	}
	if len(rest) > maxPadding || len(bytes.TrimLeft(rest, "\x00")) > 0 {
		return errors.New("there are bytes after its end")
	}
	return nil
}
