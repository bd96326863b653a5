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

// mountedBy returns for every volume that is used which containers use it, sorted.
func (e *Engine) mountedBy(ctx context.Context) (map[string][]string, error) {
	wanted, err := e.Wanted()
	if err != nil {
		return nil, err
	}
	by := make(map[string][]string)
	add := func(volume, id string) {
		if at, there := slices.BinarySearch(by[volume], id); !there {
			by[volume] = slices.Insert(by[volume], at, id)
		}
	}
	for _, c := range wanted {
		// An image that is not here, or cannot be read, has nothing mounted either.
		whole, _, _ := e.complete(ctx, c, false)
		for _, v := range whole.Volumes {
			add(v.Name, c.ID)
		}
	}
	ctx = e.context(ctx)
	there, err := e.client.Containers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range there {
		spec, err := c.Spec(ctx)
		if err != nil {
			return nil, fmt.Errorf("container %s: spec: %w", c.ID(), err)
		}
		for _, m := range spec.Mounts {
			if filepath.Dir(m.Source) == filepath.Clean(e.paths.Volumes) {
				add(filepath.Base(m.Source), c.ID())
			}
		}
	}
	return by, nil
}

// RemoveVolume removes a volume that no container uses, with all that is in it. The
// error wraps [ErrNoVolume] or [ErrInUse]. After a power cut the volume is there as a
// whole or not at all: (1) it gets another name; (2) the folder is synced; (3) its files
// go, then or at the next start. A volume with very many files is gone when RemoveVolume
// returns, and its files are a while later.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return fmt.Errorf("volume %q: %w", name, ErrNoVolume)
	}
	if err := e.setAside(ctx, name); err != nil {
		return err
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
	by, err := e.mountedBy(ctx)
	if err != nil {
		return err
	}
	if len(by[name]) > 0 {
		return fmt.Errorf("volume %s: %w: by %s", name, ErrInUse, strings.Join(by[name], ", "))
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
