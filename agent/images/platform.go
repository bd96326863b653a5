package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/registry"
	"kogge.example/agent/tarball"
)

// otherPlatform is what an image with this configuration is for, if that is not wanted.
func otherPlatform(ctx context.Context, store content.Provider, config ocispec.Descriptor, wanted platforms.Matcher) (string, error) {
	if config.Size > registry.MaxDocument {
		return "", fmt.Errorf("%w: configuration of %d bytes", registry.ErrLie, config.Size)
	}
	data, err := content.ReadBlob(ctx, store, config)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	var its ocispec.Platform
	if err := json.Unmarshal(data, &its); err != nil {
		return "", fmt.Errorf("%w: configuration: %w", registry.ErrLie, err)
	}
	if its.OS == "" && its.Architecture == "" {
		return "", nil // it says nothing, as images made by hand do
	}
	if wanted.Match(platforms.Normalize(its)) {
		return "", nil
	}
	return platforms.Format(its), nil
}

// platformsIn are the platforms of the images in an index, up to 16, with commas; "" if it has
// none, but attestations or nothing. ok is false if that cannot be read.
func platformsIn(ctx context.Context, store content.Provider, desc ocispec.Descriptor) (names string, ok bool) {
	data, err := content.ReadBlob(ctx, store, desc)
	var index ocispec.Index
	if err != nil || json.Unmarshal(data, &index) != nil {
		return "", false
	}
	var all []string
	for _, m := range index.Manifests {
		its := m.Platform
		if its == nil && images.IsManifestType(m.MediaType) {
			if config, err := images.Config(ctx, store, m, platforms.All); err == nil && config.Size <= registry.MaxDocument {
				if said, err := images.ConfigPlatform(ctx, store, config); err == nil {
					its = &said
				}
			}
		}
		if its == nil || its.OS == "" || its.OS == "unknown" || len(all) >= 16 {
			continue
		}
		if name := platforms.Format(*its); !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return strings.Join(all, ", "), true
}

// fit says whether images, which came in a tar, run on a node of that platform.
func fit(ctx context.Context, store content.Provider, found []images.Image, here ocispec.Platform) error {
	for _, i := range found {
		if err := runsHere(ctx, store, i.Target, here); err != nil {
			err = fmt.Errorf("image %s: %w", i.Name, err)
			if errors.Is(err, registry.ErrLie) || errors.Is(err, registry.ErrPlatform) {
				err = tarball.Refuse(err)
			}
			return err
		}
	}
	return nil
}

// runsHere says whether the image at desc, which came in a tar, runs on a node of that
// platform. What the tar left out is found missing by whoever unpacks.
func runsHere(ctx context.Context, store content.Provider, desc ocispec.Descriptor, here ocispec.Platform) error {
	runs := platforms.Only(here)
	if !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) {
		return fmt.Errorf("%w: it is a %.100q, and no container image", registry.ErrLie, desc.MediaType)
	}
	var other string
	config, err := images.Config(ctx, store, desc, runs)
	if err == nil {
		other, err = otherPlatform(ctx, store, config, runs)
	} else if names, ok := platformsIn(ctx, store, desc); images.IsIndexType(desc.MediaType) && ok && !mentions(names, runs) {
		if names == "" {
			return tarball.Refuse(errors.New("it is an index without images"))
		}
		other, err = names, nil
	}
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case other != "":
		return fmt.Errorf("%w: it is for %s, this node is %s", registry.ErrPlatform, other, platforms.Format(here))
	}
	return nil
}

// mentions says whether a list of platforms has one that is wanted.
func mentions(names string, wanted platforms.Matcher) bool {
	return slices.ContainsFunc(strings.Split(names, ", "), func(name string) bool {
		p, err := platforms.Parse(name)
		return err == nil && wanted.Match(p)
	})
}
