package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/client"
	continuity "github.com/containerd/continuity/fs"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kogge.example/agent/images"
	"kogge.example/agent/trees"
	"kogge.example/agent/workload"
)

// fill gives each volume of c that is new and empty what the image has at its place, as
// Docker does: the files, and the owner and the mode of the folder. Images count on it: a
// database refuses to live in a folder of another user, and a server to trust one that all
// can write to. A folder that the image does not have is the user's whom the container runs
// as, as Podman does: Docker leaves it to root, and whoever else runs there writes nothing.
// It looks at the image and not at the container's own root file system, which shows the
// ids of its namespace: a volume keeps those of the image (see withOwner). name is the
// instance's.
func (e *Engine) fill(ctx context.Context, c workload.Container, img client.Image, name string, user specs.User) error {
	e.filling.Lock() // two containers may begin with one volume
	defer e.filling.Unlock()
	var empty []workload.Volume
	for _, v := range c.Volumes {
		if err := resume(filepath.Join(e.paths.Volumes, v.Name)); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		folder := filepath.Join(e.paths.Volumes, v.Name)
		entries, err := os.ReadDir(folder)
		switch {
		case err != nil || len(entries) > 0 || !untouched(folder):
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
	return images.Look(ctx, mounts, func(root string) error {
		for _, v := range empty {
			if err := fillOne(ctx, filepath.Join(e.paths.Volumes, v.Name), root, v.Target, user); err != nil {
				return fmt.Errorf("volume %s: %w", v.Name, err)
			}
		}
		return nil
	})
}

// untouched says that folder still has the owner and the mode that [makeVolume] gave it.
// Another container may have changed them: a job that runs before a service, to give it the
// folder, has nothing else to do.
func untouched(folder string) bool {
	info, err := os.Stat(folder)
	if err != nil || info.Mode() != fs.ModeDir|volumeMode {
		return false
	}
	owner := info.Sys().(*syscall.Stat_t)
	return owner.Uid == 0 && owner.Gid == 0
}

// What is to become a volume, or is copied into one, lies beside it under these names; no
// volume's begins with a dot. Under the first two it is of no use after a power cut, under
// the third it is whole.
func newOf(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".new")
}
func partOf(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".part")
}
func wholeOf(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".whole")
}

// fillOne copies what is at target below root into an empty volume; user's is a folder that
// is not there. After a power cut the volume is empty, or [resume] makes it whole:
//
//  1. copy into another folder
//  2. sync it, and give it the name that says so
//  3. move its entries, and remove it
func fillOne(ctx context.Context, volume, root, target string, user specs.User) error {
	from, err := continuity.RootPath(root, target) // a link of the image leads nowhere else
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return os.Chown(volume, int(user.UID), int(user.GID))
	}
	if err != nil {
		return err
	}
	part := partOf(volume)
	if err := trees.All(ctx, part); err != nil {
		return err
	}
	// Made before it is filled, so that all in it counts as the volume's.
	err = os.Mkdir(part, 0o700)
	if err == nil {
		err = count(part)
	}
	if err == nil {
		err = continuity.CopyDir(part, from)
	}
	if err == nil {
		err = syncFS(part)
	}
	if err == nil {
		err = os.Rename(part, wholeOf(volume))
	}
	if err == nil {
		err = syncFS(filepath.Dir(volume))
	}
	if err != nil {
		return errors.Join(err, trees.All(context.WithoutCancel(ctx), part))
	}
	return resume(volume)
}

// resume finishes what fillOne began, if there is anything.
func resume(volume string) error {
	whole := wholeOf(volume)
	entries, err := os.ReadDir(whole)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(whole)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.Rename(filepath.Join(whole, entry.Name()), filepath.Join(volume, entry.Name())); err != nil {
			return err
		}
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := errors.Join(os.Chown(volume, int(owner.Uid), int(owner.Gid)), os.Chmod(volume, info.Mode())); err != nil {
		return err
	}
	return os.Remove(whole)
}

// syncFS writes out the file system that path is on.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
