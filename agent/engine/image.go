package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

// Complete is c with what its image, which is here, has for it.
func (e *Engine) Complete(ctx context.Context, c workload.Container) (workload.Container, error) {
	whole, cannot, err := e.complete(ctx, c)
	for _, path := range cannot {
		log.Printf("container %s: what it writes to %q is not kept: its image declares a volume there, and there can be none", c.ID, path)
	}
	if err != nil || !whole.Apart() {
		return whole, err
	}
	img, err := e.Image(e.context(ctx), c.Image, c.Platform)
	if err != nil {
		return whole, err
	}
	ids, err := e.IDs(ctx, img)
	if err != nil {
		return whole, fmt.Errorf("image %s: the owners of its files: %w", c.Image, err)
	}
	return whole.With(workload.FromImage{IDs: ids}), nil
}

func (e *Engine) complete(ctx context.Context, c workload.Container) (whole workload.Container, cannot []string, err error) {
	data, err := e.configuration(e.context(ctx), c.Image, c.Platform)
	if err != nil {
		return c, nil, err
	}
	var its ocispec.Image
	if err := json.Unmarshal(data, &its); err != nil {
		return c, nil, fmt.Errorf("image %s: configuration: %w", c.Image, err)
	}
	if n := len(its.Config.Volumes); n > workload.MaxImageVolumes {
		return c, nil, fmt.Errorf("image %s: it declares %d volumes, a node takes %d at most", c.Image, n, workload.MaxImageVolumes)
	}
	volumes, cannot := workload.VolumesOf(c, slices.Collect(maps.Keys(its.Config.Volumes)))
	return c.With(workload.FromImage{Volumes: volumes, IDs: workload.NumberedIDs(its.Config.User)}), cannot, nil
}

// Outdated says of which of all, by ID, there is a container that runs, or has ended for
// good, and was made from another image than the name stands for by now. What cannot be
// found out in time is not outdated.
func (e *Engine) Outdated(all []workload.Container) map[string]bool {
	ctx, cancel := context.WithTimeout(context.Background(), outdatedLimit)
	defer cancel()
	found, err := e.List(ctx)
	if err != nil {
		return nil
	}
	outdated := make(map[string]bool)
	for _, c := range all {
		for _, f := range found {
			if f.ID != c.ID || f.Spec != c.Hash() || f.Relieved || f.Task != workload.Alive && f.Task != workload.Over {
				continue
			}
			if digest, err := e.Digest(ctx, c.Image); err == nil && digest != f.Image {
				outdated[c.ID] = true
			}
		}
	}
	return outdated
}

const outdatedLimit = 5 * time.Second

// configuration is that of an image, as it is written.
func (e *Engine) configuration(ctx context.Context, name, platform string) ([]byte, error) {
	img, err := e.Image(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	desc, err := img.Config(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: configuration: %w", name, err)
	}
	if desc.Size > registry.MaxDocument {
		return nil, fmt.Errorf("image %s: configuration: it has %d bytes", name, desc.Size)
	}
	data, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err != nil {
		return nil, fmt.Errorf("image %s: configuration: %w", name, err)
	}
	return data, nil
}
