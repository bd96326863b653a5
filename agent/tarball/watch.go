package tarball

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An archive of some kB can unpack to documents that take all of the node's memory: those
// that are long, and those of very many parts. Both are refused before anybody reads them as
// a whole.

// MaxDocument is the size of the largest document about an image that is read as a whole, in
// bytes.
const MaxDocument = 8 << 20

// MaxParts is how many commas one may have, and so parts: each is two bytes, and a hundred
// or more once it is read.
const MaxParts = 100_000

// maxNames bounds the names in a tar, all of which are kept until its end: in bytes, with
// nameCost for each beside its own.
const (
	maxNames = 32 << 20
	nameCost = 256
)

// Small says why a document of size bytes is not read as a whole.
func Small(r io.Reader, size int64) error {
	if size > MaxDocument {
		return Refuse(fmt.Errorf("%d bytes: a node reads one of %d at the most", size, MaxDocument))
	}
	var parts commas
	if _, err := io.Copy(&parts, r); err != nil {
		return err
	}
	if parts > MaxParts {
		return Refuse(fmt.Errorf("more than %d parts: a node reads no such one", MaxParts))
	}
	return nil
}

// commas counts them in what is written to it: a document has no more parts than those.
type commas int

func (c *commas) Write(p []byte) (int, error) {
	*c += commas(bytes.Count(p, []byte(",")))
	return len(p), nil
}

// Watch reads a tar for somebody who keeps the names in it, and reads its manifest.json as a
// whole: it ends with an error where that takes too much memory. The caller calls end with the
// error that reading had, and gets in its place what is wrong with the tar.
func Watch(r io.Reader) (in io.Reader, end func(failed error) error) {
	out, to := io.Pipe()
	said := make(chan error, 1)
	go func() {
		wrong, fatal := watch(out)
		if fatal != nil {
			wrong = fatal
		} else {
			_, _ = io.Copy(io.Discard, out)
		}
		_ = out.CloseWithError(fatal)
		said <- wrong
	}()
	return &watched{r, to}, func(failed error) error {
		_ = to.CloseWithError(io.ErrUnexpectedEOF) // unless it is at its end
		wrong := <-said
		switch {
		case errors.Is(failed, tar.ErrHeader):
			return Refuse(errors.New("it is not a tar, as docker save writes one"))
		case failed != nil && wrong != nil:
			return Refuse(wrong)
		case errors.Is(failed, io.ErrUnexpectedEOF):
			return fmt.Errorf("it is only a part of a tar, or none: %w", failed)
		}
		return failed
	}
}

// watched is what somebody reads whom a judge watches, who hears of its end too.
type watched struct {
	io.Reader
	judge *io.PipeWriter
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if _, fatal := w.judge.Write(p[:n]); fatal != nil {
		return 0, fatal
	}
	if err != nil {
		_ = w.judge.CloseWithError(err)
	}
	return n, err
}

// watch says what is wrong with a tar that is no archive of images, or why it must not be read
// on.
func watch(r io.Reader) (wrong, fatal error) {
	wrong = errors.New("it is an empty tar")
	archive, inside := false, ""
	for t, left := tar.NewReader(r), maxNames; ; {
		h, err := t.Next()
		switch {
		case archive && err != nil, err != nil && !errors.Is(err, io.EOF):
			return nil, nil // all else is found by whoever makes images of it
		case err != nil && inside != "":
			return fmt.Errorf("the layout of its images lies in its folder %.100q: pack what is in there, as tar -C FOLDER -cf FILE . does", inside), nil
		case err != nil:
			return wrong, nil
		}
		if left -= nameCost + len(h.Name) + len(h.Linkname); left < 0 {
			return nil, errors.New("it has more files than an archive of images")
		}
		wrong = errors.New("it has neither an oci-layout nor a manifest.json: docker export writes the files of a container alone, docker save NAME:TAG an image")
		name := path.Clean(h.Name)
		switch {
		case name == ocispec.ImageLayoutFile || name == "manifest.json":
			archive = true
			if err := Small(t, h.Size); Refused(err) {
				return nil, fmt.Errorf("%s has %w", name, err)
			} else if err != nil {
				return nil, nil // it could not be read, which says nothing of it
			}
		case path.Base(name) == ocispec.ImageLayoutFile:
			inside = path.Dir(name)
		}
	}
}
