package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/imageref"
	"kogge.example/agent/registry"
)

// importTar imports the images of a tar, unpacks them all, and only then gives them their
// names; what comes from a preload has its mark after that. What came is collected before it
// returns an error. ctx has our namespace. A load has bounds.
func (s *Store) importTar(ctx context.Context, packed io.Reader, load *bounds, from *preloaded) (names []string, err error) {
	file, err := plain(packed)
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
	unpacked, end := watch(unpacked)
	index, err := archive.ImportIndex(ctx, documents{s.client.ContentStore(), true}, unpacked)
	wrong := end()
	switch {
	case errors.Is(err, tar.ErrHeader):
		err = errors.New("it is not a tar, as docker save writes one")
	case err != nil && wrong != nil:
		err = wrong
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("it is only a part of a tar, or none: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	found, err := s.named(ctx, index)
	if err != nil {
		return nil, err
	}
	if from != nil {
		if found, err = s.free(ctx, *from, found); err != nil {
			return nil, err
		}
	}
	letGo = s.pulls.hold(found)
	for _, i := range found {
		if err := runsHere(ctx, documents{Store: s.client.ContentStore()}, i.Target); err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
		if err := s.unpack(ctx, i, load); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", i.Name, err)
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

// named are the images for this node in the index of a tar, each with its name. What belongs
// to them is noted in the store, so that the collector leaves it; a blob that the tar left
// out is found missing by whoever unpacks.
func (s *Store) named(ctx context.Context, index ocispec.Descriptor) ([]images.Image, error) {
	store := documents{Store: s.client.ContentStore()}
	data, err := content.ReadBlob(ctx, store, index)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	var its ocispec.Index
	if err := json.Unmarshal(data, &its); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	found, err := forHere(its.Manifests)
	if err != nil {
		return nil, err
	}
	children := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		found, err := images.Children(ctx, store, d)
		if errdefs.IsNotFound(err) {
			return nil, images.ErrSkipDesc // nor is anything noted of it
		}
		return found, err
	})
	note := images.SetChildrenLabels(store, images.FilterPlatforms(children, platforms.Default()))
	if err := images.Walk(ctx, note, index); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	return found, nil
}

// forHere picks of the manifests in a tar those with a name, and of several with the same
// one the last that runs on this node.
func forHere(manifests []ocispec.Descriptor) ([]images.Image, error) {
	var found []images.Image
	other := make(map[string]string) // platform by name
	for _, m := range manifests {
		name, err := called(m)
		if err != nil {
			return nil, err
		}
		if name == "" {
			continue
		}
		if m.Platform != nil && !platforms.Default().Match(*m.Platform) {
			other[name] = platforms.Format(*m.Platform)
			continue
		}
		if pin := imageref.Pin(name); pin != "" && pin != m.Digest {
			return nil, fmt.Errorf("image %s: it is another one, %s: give it a name with a tag", name, m.Digest)
		}
		found = slices.DeleteFunc(found, func(i images.Image) bool { return i.Name == name })
		found = append(found, images.Image{Name: name, Target: m})
	}
	for _, i := range found {
		delete(other, i.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		return nil, fmt.Errorf("image %s: %w: it is for %s, this node is %s", name, registry.ErrPlatform, other[name], platforms.Format(platforms.DefaultSpec()))
	}
	if len(found) == 0 {
		return nil, errors.New("it has no image with a name: save it by name and tag (docker save NAME:TAG), or give a manifest of its index.json the annotation " + images.AnnotationImageName)
	}
	return found, nil
}

// called is the full name of the image that a manifest of a tar is: what a Compose file means
// by what stands there. "": it has none.
func called(m ocispec.Descriptor) (string, error) {
	ref := fullName(m.Annotations[ocispec.AnnotationRefName])
	name := m.Annotations[images.AnnotationImageName]
	if name == "" {
		return ref, nil
	}
	full, err := imageref.Full(name)
	if err != nil && ref != "" {
		return ref, nil
	}
	return full, err
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
