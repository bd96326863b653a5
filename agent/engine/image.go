package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"slices"

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
	return whole, err
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
	return c.With(workload.FromImage{Volumes: volumes}), cannot, nil
}

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
