package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/images"
	"kogge.example/agent/volume"
	"kogge.example/agent/workload"
)

// fill gives each volume of c that is empty what the image has at its place, as Docker does:
// the files, and the owner and the mode of the folder. Images count on it: a database
// refuses to live in a folder of another user, and a server to trust one that all can
// write to. A folder that the image does not have is the user's whom the container runs as,
// as Podman does: Docker leaves it to root, and whoever else runs there writes nothing. It
// looks at the image and
// not at the container's own root file system, which shows the ids of its namespace: a
// volume keeps those of the image (see withOwner). name is the instance's.
func (e *Engine) fill(ctx context.Context, c workload.Container, img client.Image, name string, user specs.User) error {
	e.filling.Lock() // two containers may begin with one volume
	defer e.filling.Unlock()
	var empty []workload.Volume
	for _, v := range c.Volumes {
		if err := volume.Resume(filepath.Join(e.paths.Volumes, v.Name)); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		folder := filepath.Join(e.paths.Volumes, v.Name)
		entries, err := os.ReadDir(folder)
		switch {
		case err != nil || len(entries) > 0:
		case v.NoCopy:
			if err := os.Chown(folder, int(user.UID), int(user.GID)); err != nil {
				return fmt.Errorf("volume %s: %w", v.Name, err)
			}
		default:
			empty = append(empty, v)
		}
	}
	if empty == nil {
		return nil
	}
	layers, err := img.RootFS(ctx)
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	snapshots, view := e.client.SnapshotService(images.Snapshotter), name+"-image"
	_ = snapshots.Remove(ctx, view) // an agent that was killed may have left it
	mounts, err := snapshots.View(ctx, view, identity.ChainID(layers).String())
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	defer snapshots.Remove(context.WithoutCancel(ctx), view)
	return mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		for _, v := range empty {
			if err := volume.Fill(ctx, filepath.Join(e.paths.Volumes, v.Name), root, v.Target, int(user.UID), int(user.GID)); err != nil {
				return fmt.Errorf("volume %s: %w", v.Name, err)
			}
		}
		return nil
	})
}
