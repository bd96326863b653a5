package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"kogge.example/update/partition"
)

// labelPreload says which file an image came from: "NAME SIZE MTIME". It lies in
// containerd's store beside the image, so the memory of an import and its result
// are there together or not at all.
const labelPreload = "kogge.example/preload"

// Preload imports and unpacks the archives in folder, as [Store.Load] takes them, that were
// not imported yet, and returns the names of the new images. A file that cannot be read is an
// error beside which the others are still imported. No folder means no preloads, and a file
// whose name is none of an archive is no preload. A name that stands for an image already
// stays with that, unless it came from another version of this file, or one that is gone.
// What this release has refused is refused with the same words, and not read again; nor is
// a file while all of its names stand for images from others.
//
// After a power cut at any point a file counts as imported only if its images are
// unpacked and synced: (1) blobs, each synced; (2) layers unpacked, synced by file
// system; (3) the names, and then the labels, synced with containerd's metadata.
func (s *Store) Preload(ctx context.Context, folder string) ([]string, error) {
	ctx = s.context(ctx)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("preloads: %w", err)
	}
	known, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var names []string
	var failed []error
	var files []preloaded
	marks := make(map[string]bool)
	for _, e := range entries {
		if !partition.IsPreload(e.Name()) {
			continue
		}
		path := filepath.Join(folder, e.Name())
		st, err := os.Stat(path)
		if err != nil {
			failed = append(failed, fmt.Errorf("preload: %w", err))
			continue
		}
		if st.Mode().IsRegular() {
			mark := fmt.Sprintf("%s %d %d", st.Name(), st.Size(), st.ModTime().UnixNano())
			files, marks[mark] = append(files, preloaded{path: path, mark: mark, marks: marks}), true
		}
	}
	var before past
	if s.folder != "" {
		before = readPast(s.pastFile(), s.Release)
	}
	// Of files that are there.
	now := past{Release: s.Release, Refused: make(map[string]string), Beside: make(map[string][]string)}
	for _, file := range files {
		if slices.ContainsFunc(known, func(i images.Image) bool { return i.Labels[labelPreload] == file.mark }) {
			continue
		}
		if why, was := before.Refused[file.mark]; was {
			failed, now.Refused[file.mark] = append(failed, fmt.Errorf("preload %s: %s", file.path, why)), why
			continue
		}
		given := func(name string) bool {
			return !slices.ContainsFunc(known, func(i images.Image) bool { return i.Name == name && file.beside(i.Labels) })
		}
		if names, was := before.Beside[file.mark]; was && !slices.ContainsFunc(names, given) {
			now.Beside[file.mark] = names
			continue
		}
		imported, err := s.preload(ctx, &file)
		if err != nil {
			if ctx.Err() == nil && damaged(err) {
				now.Refused[file.mark] = err.Error()
			}
			failed = append(failed, fmt.Errorf("preload %s: %w", file.path, err))
			continue
		}
		if len(file.taken) > 0 {
			now.Beside[file.mark] = file.taken
		}
		names = append(names, imported...)
	}
	s.remember(before, now)
	return names, errors.Join(failed...)
}

// preloaded is a file with preloads.
type preloaded struct {
	path, mark string
	marks      map[string]bool // of all files that are there
	taken      []string        // its names, if those are all of images from other files
}

// gives says whether the images of f may have the names of those that are there with these
// labels: not of one that was pulled or loaded, nor of one from another file.
func (f *preloaded) gives(labels map[string]string) bool {
	mark := labels[labelPreload]
	return mark != "" && (mark == f.mark || !f.marks[mark])
}

// beside says whether an image with these labels, whose name is in f too, is another file's.
func (f *preloaded) beside(labels map[string]string) bool {
	return labels[labelPreload] != "" && !f.gives(labels)
}

// free are those of the images from f whose names may be given. One that was pulled or loaded
// has its name in place of that in f, and f's mark: f is not looked at at each boot. f hears
// that others have all of its names.
func (s *Store) free(ctx context.Context, f *preloaded, found []images.Image) (free []images.Image, err error) {
	var taken []string
	for _, i := range found {
		old, err := s.client.ImageService().Get(ctx, i.Name)
		if errdefs.IsNotFound(err) || err == nil && f.gives(old.Labels) {
			free = append(free, i)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
		log.Printf("preload %s: image %s stays what it is: it did not come from this file", f.path, i.Name)
		if f.beside(old.Labels) {
			taken = append(taken, i.Name)
		} else if err := s.mark(ctx, i, f.mark); err != nil {
			return nil, err
		}
	}
	if len(taken) == len(found) {
		f.taken = taken
	}
	return free, nil
}

func (s *Store) preload(ctx context.Context, from *preloaded) ([]string, error) {
	f, err := os.Open(from.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.importTar(ctx, f, nil, from)
}

// mark says of an image which preload it came from, or took the place of.
func (s *Store) mark(ctx context.Context, i images.Image, mark string) error {
	note := images.Image{Name: i.Name, Labels: map[string]string{labelPreload: mark}}
	if _, err := s.client.ImageService().Update(ctx, note, "labels."+labelPreload); err != nil {
		return fmt.Errorf("label %s: %w", i.Name, err)
	}
	return nil
}
