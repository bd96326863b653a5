package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"

	"kogge.example/agent/imageref"
)

// labelPreload says which file an image came from: "NAME SIZE MTIME". It lies in
// containerd's store beside the image, so the memory of an import and its result
// are there together or not at all.
const labelPreload = "kogge.example/preload"

// Preload imports and unpacks the archives in folder, as [Store.Load] takes them, that were
// not imported yet, and returns the names of the new images. A file that cannot be read is an
// error beside which the others are still imported. No folder means no preloads, and a file
// whose name begins with a dot is none.
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
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		st, err := os.Stat(path)
		if err != nil {
			failed = append(failed, fmt.Errorf("preload: %w", err))
			continue
		}
		if !st.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		mark := fmt.Sprintf("%s %d %d", st.Name(), st.Size(), st.ModTime().UnixNano())
		if slices.ContainsFunc(known, func(i images.Image) bool { return i.Labels[labelPreload] == mark }) {
			continue
		}
		imported, err := s.preload(ctx, path, mark)
		if err != nil {
			failed = append(failed, fmt.Errorf("preload %s: %w", path, err))
			continue
		}
		names = append(names, imported...)
	}
	return names, errors.Join(failed...)
}

func (s *Store) preload(ctx context.Context, path, mark string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.importTar(ctx, f, mark)
}

// mark says of an image which preload it came from, or took the place of.
func (s *Store) mark(ctx context.Context, i images.Image, mark string) error {
	note := images.Image{Name: i.Name, Labels: map[string]string{labelPreload: mark}}
	if _, err := s.client.ImageService().Update(ctx, note, "labels."+labelPreload); err != nil {
		return fmt.Errorf("label %s: %w", i.Name, err)
	}
	return nil
}

// fullName makes the name of an image in a layout ("hello:1", or a bare tag) what
// a Compose file means by it; a name that is none is not imported.
func fullName(name string) string {
	if !strings.ContainsAny(name, ":/@") {
		return "" // a bare tag names no image
	}
	full, err := imageref.Full(name)
	if err != nil {
		return ""
	}
	return full
}
