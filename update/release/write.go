package release

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/update/durable"
)

func compareText(x, y string) int { return strings.Compare(x, y) }

func bytesOpener(raw []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
}

// layoutFile is the content of the file oci-layout.
var layoutFile = []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}` + "\n")

// outer is index.json: it names the index of the release, and calls it by its version.
func (b *Bundle) outer() ([]byte, error) {
	d := describe(ocispec.MediaTypeImageIndex, b.Index)
	d.Annotations = map[string]string{ocispec.AnnotationRefName: b.boards[0].Facts.Version}
	return encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
}

// sink takes the files of a layout.
type sink interface {
	add(name string, size int64, r io.Reader) error
}

// put writes the whole layout, index.json and the documents first. Each blob is compared
// with its digest on the way.
func (b *Bundle) put(ctx context.Context, s sink) error {
	outer, err := b.outer()
	if err != nil {
		return err
	}
	if err := s.add(ocispec.ImageLayoutFile, int64(len(layoutFile)), bytes.NewReader(layoutFile)); err != nil {
		return err
	}
	if err := s.add(indexName, int64(len(outer)), bytes.NewReader(outer)); err != nil {
		return err
	}
	blobs := append([]Blob{{describe(ocispec.MediaTypeImageIndex, b.Index), bytesOpener(b.Index)}}, b.Documents...)
	for _, blob := range append(blobs, b.Layers...) {
		if err := putBlob(ctx, s, blob); err != nil {
			return fmt.Errorf("%s: %w", blob.Digest, err)
		}
	}
	return nil
}

func putBlob(ctx context.Context, s sink, blob Blob) error {
	if d, ok := s.(*dirSink); ok && d.has(blob) {
		return nil
	}
	body, err := blob.Open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	checked := blob.Digest.Verifier()
	r := io.TeeReader(io.LimitReader(&cancelable{ctx, body}, blob.Size), checked)
	if err := s.add(blobName(blob.Digest), blob.Size, r); err != nil {
		return err
	}
	if !checked.Verified() {
		return layoutError(errors.New("its bytes do not match its digest"))
	}
	return nil
}

// cancelable is a reader that ends with its context.
type cancelable struct {
	ctx context.Context
	io.Reader
}

func (c *cancelable) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// WriteTar writes the release as a tar of an OCI image layout.
func (b *Bundle) WriteTar(ctx context.Context, w io.Writer) error {
	archive := tar.NewWriter(w)
	if err := b.put(ctx, tarSink{archive}); err != nil {
		return err
	}
	return archive.Close()
}

type tarSink struct{ *tar.Writer }

func (t tarSink) add(name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if size >= 1<<33 { // more than USTAR can say
		h.Format = tar.FormatPAX
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t.Writer, r)
	if err == nil && n != size {
		err = layoutError(fmt.Errorf("it has %d bytes instead of %d", n, size))
	}
	return err
}

// IsTar says whether out names a tar rather than a folder.
func IsTar(out string) bool { return strings.HasSuffix(out, ".tar") }

// Write writes the release to out: a tar if the name ends so, a folder otherwise. The
// tar appears whole, by rename. A folder that has a release already gets this one
// instead: its blobs first, then index.json by rename; then what is no longer named
// goes. After a cut it is one of the two, and blobs that nobody names may be left.
func (b *Bundle) Write(ctx context.Context, out string) error {
	if IsTar(out) {
		return b.writeTar(ctx, out)
	}
	return b.writeDir(ctx, out)
}

func (b *Bundle) writeTar(ctx context.Context, out string) error {
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := b.WriteTar(ctx, f); err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o644), f.Sync(), f.Close(), os.Rename(f.Name(), out), durable.SyncFolder(filepath.Dir(out)))
}

// blobDir is where a layout has its blobs.
const blobDir = "blobs/sha256"

func (b *Bundle) writeDir(ctx context.Context, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	// Whoever made the folder may have put links into it: none leads out of it.
	dir, err := os.OpenRoot(out)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.MkdirAll(blobDir, 0o755); err != nil {
		return err
	}
	if err := b.put(ctx, &dirSink{dir}); err != nil {
		return err
	}
	// What index.json names is there for good before it names it.
	if err := errors.Join(syncIn(dir, blobDir), syncIn(dir, ".")); err != nil {
		return err
	}
	if err := dir.Rename(indexName+".new", indexName); err != nil {
		return err
	}
	if err := syncIn(dir, "."); err != nil {
		return err
	}
	named := map[string]bool{string(digestOf(b.Index).Encoded()): true}
	for _, blob := range append(b.Documents, b.Layers...) {
		named[blob.Digest.Encoded()] = true
	}
	return prune(dir, named)
}

func syncIn(dir *os.Root, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// begun is how the names of files begin that are not whole yet.
const begun = ".new-"

// ours are names that only a layout's writer gives.
var ours = regexp.MustCompile(`^([0-9a-f]{64}|\.new-.*)$`)

// prune removes the blobs that are not named.
func prune(dir *os.Root, named map[string]bool) error {
	f, err := dir.Open(blobDir)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if ours.MatchString(name) && !named[name] {
			if err := dir.Remove(blobDir + "/" + name); err != nil {
				return err
			}
		}
	}
	return nil
}

// dirSink writes a layout into a folder. index.json comes under another name, for
// what it names is not there yet.
type dirSink struct{ dir *os.Root }

func (d *dirSink) add(name string, size int64, r io.Reader) error {
	if name == indexName {
		name += ".new"
	}
	unfinished := path.Join(path.Dir(name), begun+path.Base(name))
	_ = d.dir.Remove(unfinished) // of a run that was cut
	f, err := d.dir.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = layoutError(fmt.Errorf("it has %d bytes instead of %d", n, size))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.dir.Rename(unfinished, name)
	}
	if err != nil {
		_ = d.dir.Remove(unfinished) // or the next run does
	}
	return err
}

// Stored is a layout in a folder or a tar.
type Stored interface {
	Source
	io.Closer
}

// Open opens the layout at name: a folder, or a tar.
func Open(name string) (Local, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	switch {
	case st.IsDir():
		return OpenDir(name)
	case st.Mode().IsRegular():
		return OpenTar(name)
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("neither a folder nor a file")}
}

// has says whether the folder has a blob already, whole.
func (d *dirSink) has(blob Blob) bool {
	f, err := d.dir.Open(blobName(blob.Digest))
	if err != nil {
		return false
	}
	defer f.Close()
	checked := blob.Digest.Verifier()
	n, err := io.Copy(checked, f)
	return err == nil && n == blob.Size && checked.Verified()
}
