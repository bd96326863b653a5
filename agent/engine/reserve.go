package engine

import (
	"context"
	"errors"
	"fmt"

	"kogge.example/agent/images"
	"kogge.example/agent/quota"
)

// bindRoot has what an instance will write to its root file system count as containers'.
func (e *Engine) bindRoot(ctx context.Context, name string) error {
	mounts, err := e.client.SnapshotService(images.Snapshotter).Mounts(ctx, name)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	// The kernel makes a file in the second, and moves it to the first.
	for _, folder := range []string{upperOf(mounts), optionOf(mounts, "workdir=")} {
		if folder == "" {
			continue
		}
		if err := quota.TagTree(folder); err != nil && !errors.Is(err, quota.ErrNone) {
			return fmt.Errorf("root file system: %w", err)
		}
	}
	return nil
}
