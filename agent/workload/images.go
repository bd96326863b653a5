package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
)

// Image is an image that the node has.
type Image struct {
	Name    string
	Digest  string
	Size    int64 // bytes, compressed, of what this platform needs; 0: some of it is missing
	Created time.Time
}

// Images lists the images of the node by name.
func (e *Engine) Images(ctx context.Context) ([]Image, error) {
	ctx = e.context(ctx)
	known, err := e.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var all []Image
	for _, i := range known {
		size, err := i.Size(ctx)
		if err != nil {
			size = 0
		}
		all = append(all, Image{i.Name(), i.Target().Digest.String(), size, i.Metadata().CreatedAt})
	}
	slices.SortFunc(all, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Load imports and unpacks the images of a tar (an OCI layout or what `docker save`
// writes) and returns their names. What cannot be unpacked
// leaves no name behind, and its content is collected.
func (e *Engine) Load(ctx context.Context, tar io.Reader) ([]string, error) {
	ctx = e.context(ctx)
	ctx, done, err := e.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	imported, err := e.importTar(ctx, tar)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	var names []string
	for _, i := range imported {
		names = append(names, i.Name)
	}
	return names, nil
}

// importTar is what Load and preloads have in common; ctx has a lease.
func (e *Engine) importTar(ctx context.Context, tar io.Reader) ([]images.Image, error) {
	imported, err := e.client.Import(ctx, tar, client.WithImageRefTranslator(fullName), client.WithSkipMissing())
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if len(imported) == 0 {
		return nil, errors.New("no image with a name in it")
	}
	for _, i := range imported {
		if err := client.NewImage(e.client, i).Unpack(ctx, snapshotter); err != nil {
			// A name whose layers are not there would fail each start of it.
			return nil, errors.Join(fmt.Errorf("unpack %s: %w", i.Name, err), e.Forget(ctx, i.Name))
		}
	}
	return imported, nil
}

// Forget removes an image by name; containers that run from it go on. The error
// wraps [ErrNoImage] where there is none.
func (e *Engine) Forget(ctx context.Context, name string) error {
	full, err := FullName(name)
	if err != nil {
		return err
	}
	err = e.client.ImageService().Delete(e.context(ctx), full, images.SynchronousDelete())
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s: %w", full, ErrNoImage)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", full, err)
	}
	return nil
}
