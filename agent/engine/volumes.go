package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"kogge.example/agent/images"
	"kogge.example/agent/trees"
	"kogge.example/agent/volumes"
	"kogge.example/update/durable"
)

// NamedVolume is a volume that is on STATE.
type NamedVolume struct {
	Name string // [workload.Join] of its project and what that calls it
	// Size is what it takes of the disk, in bytes. Least says that it may be more: its
	// files were too many to be counted in time, or changed meanwhile.
	Size  int64
	Least bool
	By    []string // IDs of the containers that are wanted or there, and mount it
}

// Why a volume is not removed.
var (
	ErrNoVolume = errors.New("no such volume")
	ErrInUse    = errors.New("in use")
	// errLeaving is [ErrInUse] by a container that is about to go.
	errLeaving = fmt.Errorf("still %w", ErrInUse)
)

// A container that is about to go is waited for so long before its volume stays, and looked
// at so often.
const (
	leaveLimit = 20 * time.Second // less than a caller waits
	leavePause = 200 * time.Millisecond
)

// countLimit bounds the counting of all volumes' files.
const countLimit = 10 * time.Second

// ListVolumes lists the volumes by name.
func (e *Engine) ListVolumes(ctx context.Context) ([]NamedVolume, error) {
	by, err := e.mountedBy(ctx)
	unsure := errors.Is(err, images.ErrWants)
	if err != nil && !unsure {
		return nil, err
	}
	entries, err := os.ReadDir(e.paths.Volumes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	counting, cancel := context.WithTimeout(ctx, countLimit)
	defer cancel()
	var all []NamedVolume
	for _, entry := range entries { // by name
		name := entry.Name()
		if !entry.IsDir() || strings.HasPrefix(name, ".") {
			continue // what is being removed, or filled
		}
		v := NamedVolume{Name: name, By: by[name]}
		if unsure {
			v.By = []string{images.NotKnown}
		}
		v.Size, v.Least = trees.Usage(counting, filepath.Join(e.paths.Volumes, name))
		all = append(all, v)
	}
	return all, ctx.Err()
}

// users are the containers that use each volume, sorted.
type users map[string][]string

func (u users) add(volume, id string) {
	if at, there := slices.BinarySearch(u[volume], id); !there {
		u[volume] = slices.Insert(u[volume], at, id)
	}
}

// wantedBy returns for every volume which of the wanted containers use it.
func (e *Engine) wantedBy(ctx context.Context) (users, error) {
	wanted, err := e.Wanted()
	if err != nil {
		return nil, err
	}
	by := make(users)
	for _, c := range wanted {
		// An image that is not here, or cannot be read, has nothing mounted either.
		whole, _, _ := e.complete(ctx, c, false)
		for _, v := range whole.Volumes {
			by.add(v.Name, c.ID)
		}
	}
	return by, nil
}

// mountedBy returns for every volume which containers use it: those that are wanted, and
// those that are there.
func (e *Engine) mountedBy(ctx context.Context) (users, error) {
	by, err := e.wantedBy(ctx)
	if err != nil {
		return nil, err
	}
	ctx = e.context(ctx)
	there, err := e.client.Containers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range there {
		spec, err := c.Spec(ctx)
		if errdefs.IsNotFound(err) {
			continue // it has gone since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("container %s: spec: %w", c.ID(), err)
		}
		for _, m := range spec.Mounts {
			if filepath.Dir(m.Source) == filepath.Clean(e.paths.Volumes) {
				by.add(filepath.Base(m.Source), c.ID())
			}
		}
	}
	return by, nil
}

// RemoveVolume removes a volume that no container uses, with all that is in it. The
// error wraps [ErrNoVolume] or [ErrInUse]. After a power cut the volume is there as a
// whole or not at all: (1) it gets another name; (2) the folder is synced; (3) its files
// go, then or at the next start. A volume with very many files is gone when RemoveVolume
// returns, and its files are a while later. A container that is not wanted any more is
// waited for: its project was removed a moment ago.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("volume %q: %w", name, ErrNoVolume)
	}
	for end := time.Now().Add(leaveLimit); ; {
		err := e.setAside(ctx, name)
		if err == nil {
			break
		}
		if !errors.Is(err, errLeaving) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(leavePause):
		}
	}
	log.Printf("volume %s: removed by request", name)
	e.bin.Empty(ctx)
	return nil
}

// setAside renames a volume that nobody uses. Nobody can begin to, meanwhile: a start
// makes the volumes of its container first.
func (e *Engine) setAside(ctx context.Context, name string) error {
	e.volumes.Lock()
	defer e.volumes.Unlock()
	wanted, err := e.wantedBy(ctx)
	if err != nil {
		return err
	}
	if len(wanted[name]) > 0 {
		return fmt.Errorf("volume %s: %w: by %s", name, ErrInUse, strings.Join(wanted[name], ", "))
	}
	all, err := e.mountedBy(ctx)
	if err != nil {
		return err
	}
	if len(all[name]) > 0 {
		return fmt.Errorf("volume %s: %w: by %s", name, errLeaving, strings.Join(all[name], ", "))
	}
	whole := filepath.Join(e.paths.Volumes, name)
	for _, left := range volumes.Beside(whole) {
		if err := e.bin.Discard(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("volume %s: %w", name, err)
		}
	}
	err = e.bin.Discard(whole)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume %s: %w", name, ErrNoVolume)
	}
	if err == nil {
		err = durable.SyncFolder(e.paths.Volumes)
	}
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}
