package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/images"
	"kogge.example/agent/volumes"
	"kogge.example/agent/workload"
)

// fill gives each volume of c that is new and empty what the image has at its place, as
// Docker does: the files, and the owner and the mode of the folder. Images count on it: a
// database refuses to live in a folder of another user, and a server to trust one that all
// can write to. A folder that the image does not have is the user's whom the container runs
// as, as Podman does: Docker leaves it to root, and whoever else runs there writes nothing.
// It looks at the image and not at the container's own root file system, which shows the
// ids of its namespace: a volume keeps those of the image (see withOwner). ctx has a lease.
func (e *Engine) fill(ctx context.Context, c workload.Container, img client.Image, user specs.User) error {
	for _, v := range c.Volumes {
		if err := e.fillOne(ctx, v, img, user); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func (e *Engine) fillOne(ctx context.Context, v workload.Volume, img client.Image, user specs.User) error {
	done, err := e.filling.Take(ctx, v.Name) // two containers may begin with one volume
	if err != nil {
		return fmt.Errorf("another container fills it: %w", err)
	}
	defer done()
	folder := filepath.Join(e.paths.Volumes, v.Name)
	fresh, err := volumes.Fresh(folder)
	if err != nil || !fresh {
		return err
	}
	uid, gid := int(user.UID), int(user.GID)
	if v.NoCopy {
		return os.Chown(folder, uid, gid)
	}
	layers, err := img.RootFS(ctx)
	if err != nil {
		return err
	}
	// By a name that no instance has. What an agent leaves that is killed goes with the lease
	// of the start.
	snapshots, view := e.client.SnapshotService(images.Snapshotter), "fill-"+strings.ToLower(rand.Text())
	mounts, err := snapshots.View(ctx, view, identity.ChainID(layers).String())
	if err != nil {
		return err
	}
	defer snapshots.Remove(context.WithoutCancel(ctx), view)
	return images.Look(ctx, mounts, func(root string) error {
		return volumes.Fill(ctx, folder, root, v.Target, uid, gid)
	})
}
