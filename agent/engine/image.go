package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/workload"
)

// Complete is c with what its image, which is here, has for it.
func (e *Engine) Complete(ctx context.Context, c workload.Container) (workload.Container, error) {
	whole, cannot, err := e.complete(ctx, c, true)
	for _, path := range cannot {
		log.Printf("container %s: what it writes to %q is not kept: its image declares a volume there, and there can be none", c.ID, path)
	}
	return whole, err
}

// complete is Complete, but for the ids of its files if files is false. cannot are the
// volumes of the image that cannot be.
func (e *Engine) complete(ctx context.Context, c workload.Container, files bool) (whole workload.Container, cannot []string, err error) {
	data, config, err := e.Configuration(ctx, c.Image, c.Platform)
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
	said := workload.FromImage{IDs: workload.NumberedIDs(its.Config.User)}
	said.Volumes, cannot = workload.VolumesOf(c, slices.Collect(maps.Keys(its.Config.Volumes)))
	if files && c.Apart() {
		ids, err := e.IDs(ctx, config, its.RootFS.DiffIDs)
		if err != nil {
			return c, cannot, fmt.Errorf("image %s: the owners of its files: %w", c.Image, err)
		}
		said.IDs = append(said.IDs, ids...)
	}
	return c.With(said), cannot, nil
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
