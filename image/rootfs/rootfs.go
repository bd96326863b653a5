// Package rootfs turns files into the read-only root file system of a slot: an
// erofs image, the same bytes for the same files. It knows nothing of what the
// files are for; package image decides that.
package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"kogge.example/image/debian"
)

// Entry is one file, folder or symbolic link. Parent folders are added.
type Entry struct {
	Path string // absolute, clean
	Mode int64  // permission bits; 0 means 0644 for a file and 0755 for a folder

	// Exactly one of these four says what it is.
	File string // copied from this path on the building machine
	Data []byte // the content itself; must not be nil for an empty file
	Link string // symbolic link to this target
	Dir  bool
}

// blockSize is erofs's and dm-verity's block size in bytes.
const blockSize = 4096

// Compression of the root. lz4 unpacks fast on every board; 64 KiB clusters halve
// the size of Go programs.
var compression = []string{"-zlz4hc,9", "-C65536"}

// Build writes the root file system to out. Every file belongs to root and has
// the time when. The file appears whole or not at all if the caller renames it.
func Build(ctx context.Context, tools debian.Toolbox, entries []Entry, when time.Time, uuid, out string) error {
	layout, err := withParents(entries)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	args := append([]string{"--quiet", "--tar=f", "--all-root", "-T" + fmt.Sprint(when.Unix()), "-U" + uuid, "-b" + fmt.Sprint(blockSize)}, compression...)
	// mkfs.erofs reads the tar twice, so it cannot be a pipe.
	tmp := out + ".tar"
	defer os.Remove(tmp)
	if err := writeTarFile(tmp, layout, when); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	cmd, err := tools.Command(ctx, []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", when.Unix())}, "mkfs.erofs", append(args, out, tmp)...)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &errs, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("root file system: mkfs.erofs: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// Digest names what Build would write: the same digest, the same bytes.
func Digest(entries []Entry, when time.Time, uuid string) ([32]byte, error) {
	var sum [32]byte
	layout, err := withParents(entries)
	if err != nil {
		return sum, fmt.Errorf("root file system: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%v %d %s\n", compression, when.Unix(), uuid)
	for _, e := range layout {
		content, err := e.open()
		if err != nil {
			return sum, fmt.Errorf("root file system: %w", err)
		}
		fh := sha256.New()
		if content != nil {
			_, err = io.Copy(fh, content)
			content.Close()
			if err != nil {
				return sum, fmt.Errorf("root file system: %s: %w", e.Path, err)
			}
		}
		fmt.Fprintf(h, "%q %o %q %v %x\n", e.Path, e.Mode, e.Link, e.Dir, fh.Sum(nil))
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Layout is what Build writes for the entries: sorted by path, with the folders above
// them and with every mode filled in.
func Layout(entries []Entry) ([]Entry, error) {
	layout, err := withParents(entries)
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	return layout, nil
}

// WriteTar writes the entries, with the folders above them, as a tar to the file
// name. Every file belongs to root and has the time when.
func WriteTar(name string, entries []Entry, when time.Time) error {
	layout, err := withParents(entries)
	if err != nil {
		return err
	}
	return writeTarFile(name, layout, when)
}

// withParents sorts the entries and adds the folders above them. Two entries of
// one path are an error.
func withParents(entries []Entry) ([]Entry, error) {
	all := map[string]Entry{}
	for _, e := range entries {
		if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path {
			return nil, fmt.Errorf("%q is not a clean absolute path", e.Path)
		}
		if old, ok := all[e.Path]; ok && !(old.Dir && e.Dir) {
			return nil, fmt.Errorf("%s is there twice", e.Path)
		}
		if e.Mode == 0 {
			e.Mode = 0o644
			if e.Dir {
				e.Mode = 0o755
			}
		}
		all[e.Path] = e
	}
	for p := range all {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if e, ok := all[dir]; !ok {
				all[dir] = Entry{Path: dir, Mode: 0o755, Dir: true}
			} else if !e.Dir {
				return nil, fmt.Errorf("%s is below %s, which is not a folder", p, dir)
			}
		}
	}
	sorted := make([]Entry, 0, len(all))
	for _, e := range all {
		sorted = append(sorted, e)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Path < sorted[j].Path })
	return sorted, nil
}

// open returns the content of a regular file, nil for folders and links.
func (e Entry) open() (io.ReadCloser, error) {
	switch {
	case e.Dir || e.Link != "":
		return nil, nil
	case e.File != "":
		return os.Open(e.File)
	}
	return io.NopCloser(bytes.NewReader(e.Data)), nil
}

func writeTarFile(name string, layout []Entry, when time.Time) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	w := tar.NewWriter(f)
	root := Entry{Path: "/", Mode: 0o755, Dir: true}
	for _, e := range append([]Entry{root}, layout...) {
		if err := e.write(w, when); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return w.Close()
}

func (e Entry) write(w *tar.Writer, when time.Time) error {
	h := &tar.Header{Name: "." + e.Path, Mode: e.Mode, ModTime: when, Format: tar.FormatPAX}
	switch {
	case e.Dir:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/"
		return w.WriteHeader(h)
	case e.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Link, 0o777
		return w.WriteHeader(h)
	case e.File == "":
		h.Typeflag, h.Size = tar.TypeReg, int64(len(e.Data))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(e.Data)
		return err
	}
	f, err := os.Open(e.File)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
