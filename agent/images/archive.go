package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/registry"
	"kogge.example/agent/tarball"
)

// importTar imports the images of a tar, unpacks them all, and only then gives them their
// names; what comes from a preload has its mark after that. What came is collected before it
// returns an error. ctx has our namespace. A load has bounds.
func (s *Store) importTar(ctx context.Context, packed io.Reader, load *bounds, from *preloaded) (names []string, err error) {
	file, err := tarball.Plain(packed)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	defer file.Close()
	var unpacked io.Reader = file
	if load != nil {
		load.unpacked.Reader, unpacked = file, &load.unpacked
	}
	lease, err := s.client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(24*time.Hour))
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	letGo := func() {}
	defer func() { letGo() }() // once there is room again: who looks at the disk until then takes others
	defer func() {
		var how []leases.DeleteOpt
		if err != nil {
			how = append(how, leases.SynchronousDelete)
		}
		// One that stays ends by itself.
		_ = s.client.LeasesService().Delete(context.WithoutCancel(ctx), lease, how...)
	}()
	ctx = leases.WithLease(ctx, lease.ID)
	store, here := documents{Store: s.client.ContentStore()}, platforms.DefaultSpec()
	index, err := readTar(ctx, store.Store, unpacked)
	if err != nil {
		return nil, err
	}
	found, err := pick(ctx, store, index, here)
	if err != nil {
		return nil, err
	}
	if err := note(ctx, store, index); err != nil {
		return nil, err
	}
	if from != nil {
		if found, err = s.free(ctx, from, found); err != nil {
			return nil, err
		}
	}
	letGo = s.pulls.hold(found)
	if err := fit(ctx, store, found, here); err != nil {
		return nil, err
	}
	for _, i := range found {
		if err := s.unpack(ctx, i, load); err != nil {
			err = fmt.Errorf("unpack %s: %w", i.Name, err)
			if errdefs.IsNotFound(err) {
				err = tarball.Refuse(err) // a layer, which the tar left out
			}
			return nil, err
		}
	}
	for _, i := range found {
		if err := s.name(ctx, i); err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
		names = append(names, i.Name)
	}
	if from == nil {
		return names, nil
	}
	// The first mark says of the whole file that it was imported: it comes after all names.
	for _, i := range found {
		if err := s.mark(ctx, i, from.mark); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// unpack makes the layers of an image that is there as a whole. A load that finds the disk full
// between two looks at it goes on once an image has gone, as a pull does.
func (s *Store) unpack(ctx context.Context, i images.Image, load *bounds) error {
	for {
		err := client.NewImage(s.client, i).Unpack(ctx, Snapshotter)
		if err == nil || load == nil || ctx.Err() != nil || !errors.Is(registry.Full(err), registry.ErrFull) {
			return err
		}
		if more, failed := s.spareOne(ctx, load.allowed); !more || failed != nil {
			return errors.Join(err, failed)
		}
	}
}

// readTar reads a tar into the store, and returns the index of its images.
func readTar(ctx context.Context, store content.Store, unpacked io.Reader) (ocispec.Descriptor, error) {
	unpacked, end := tarball.Watch(unpacked)
	index, err := archive.ImportIndex(ctx, documents{store, true}, unpacked)
	if err = end(err); err != nil {
		return index, fmt.Errorf("import: %w", err)
	}
	return index, nil
}

// pick returns the images for a node of that platform in the index of a tar, each with its
// name.
func pick(ctx context.Context, store documents, index ocispec.Descriptor, here ocispec.Platform) ([]images.Image, error) {
	data, err := content.ReadBlob(ctx, store, index)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	var its ocispec.Index
	if err := json.Unmarshal(data, &its); err != nil {
		return nil, tarball.Refuse(fmt.Errorf("index: %w", err))
	}
	named, err := tarball.Pick(its.Manifests, platforms.Only(here).Match, platforms.Format(here))
	var found []images.Image
	for _, i := range named {
		found = append(found, images.Image{Name: i.Name, Target: i.Manifest})
	}
	return found, err
}

// note notes in the store what belongs to the images of an index, so that the collector
// leaves it; a blob that the tar left out is found missing by whoever unpacks.
func note(ctx context.Context, store documents, index ocispec.Descriptor) error {
	children := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		found, err := images.Children(ctx, store, d)
		if errdefs.IsNotFound(err) {
			return nil, images.ErrSkipDesc // nor is anything noted of it
		}
		return found, err
	})
	handler := images.SetChildrenLabels(store, images.FilterPlatforms(children, platforms.Default()))
	if err := images.Walk(ctx, handler, index); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	return nil
}

// name gives an image that is there as a whole its name. What takes the place of a preload
// keeps its mark.
func (s *Store) name(ctx context.Context, i images.Image) error {
	_, err := s.client.ImageService().Update(ctx, i, "target")
	if errdefs.IsNotFound(err) {
		_, err = s.client.ImageService().Create(ctx, i)
	}
	return err
}
