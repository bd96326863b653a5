package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"kogge.example/agent/images"
	"kogge.example/agent/removal"
	"kogge.example/agent/workload"
)

// What a container made may be so deep or so much that removing it takes minutes. So it
// gets a name under which it is nobody's, beside the volumes, and goes bit by bit.

// removedPrefix begins such a name.
const removedPrefix = ".removed-"

// atOnce is how many entries are removed by this process, which for nearly all containers
// is all there is; for more it starts a helper.
const atOnce = 1000

// sweepPatience is how long somebody waits for the removal of what he had removed, so that
// he sees the space free, before it goes on without him.
const sweepPatience = 3 * time.Second

// sweepEvery is how often there is another look for what a helper could not finish.
const sweepEvery = 10 * time.Minute

// discard renames a folder, which lies on the file system of the volumes, to what is to be
// removed. Whoever calls it lets [Engine.sweep] follow.
func (e *Engine) discard(folder string) error {
	return os.Rename(folder, filepath.Join(e.paths.Volumes, removedPrefix+rand.Text()))
}

// sweep removes what was discarded, and returns when that is done, or after
// [sweepPatience], or when ctx ends. It goes on by itself until the engine is closed; what
// is left then is for the next one.
func (e *Engine) sweep(ctx context.Context) {
	done := make(chan struct{})
	e.sweeps.Go(func() {
		defer close(done)
		if err := e.sweepAll(e.open); err != nil && e.open.Err() == nil {
			log.Print(err) // the next sweep tries again
		}
	})
	patience := time.NewTimer(sweepPatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// sweepAll removes what was discarded, one after the other.
func (e *Engine) sweepAll(ctx context.Context) error {
	e.sweeping.Lock()
	defer e.sweeping.Unlock()
	left, err := filepath.Glob(filepath.Join(e.paths.Volumes, removedPrefix+"*"))
	for _, path := range left {
		gone, some := removal.Some(ctx, path, atOnce)
		switch {
		case some == nil && gone:
			err = errors.Join(err, removal.All(ctx, path))
		case some == nil && e.paths.Remove != nil:
			err = errors.Join(err, e.paths.Remove(ctx, path))
		case some == nil:
			err = errors.Join(err, removal.All(ctx, path))
		default:
			err = errors.Join(err, some)
		}
	}
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	return nil
}

// sweepOften looks for what is left until ctx ends.
func (e *Engine) sweepOften(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		e.sweep(ctx)
		e.sweepOutput(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweepOutput removes the output of containers that are neither there nor wanted: an agent
// that was killed may have left it.
func (e *Engine) sweepOutput(ctx context.Context) {
	found, err := e.List(ctx)
	if err != nil {
		return // containerd is away
	}
	files, err := os.ReadDir(e.paths.Logs)
	if err != nil {
		return // nobody has written anything
	}
	for _, f := range files {
		id, ok := strings.CutSuffix(strings.TrimSuffix(f.Name(), ".1"), ".log")
		if ok && !slices.ContainsFunc(found, func(f workload.Found) bool { return f.ID == id }) {
			e.dropOutput(id)
		}
	}
}

// emptySnapshot takes out of an instance's root file system, which is mounted no more, what
// the container wrote: containerd, which removes the rest, would hold a descriptor for
// each level of it. What cannot be removed here is left to containerd, with its reasons.
func (e *Engine) emptySnapshot(ctx context.Context, name string) {
	mounts, err := e.client.SnapshotService(images.Snapshotter).Mounts(ctx, name)
	if errdefs.IsNotFound(err) {
		return
	}
	if upper := upperOf(mounts); err == nil && upper != "" {
		err = e.empty(ctx, upper)
	}
	if err != nil {
		log.Printf("container %s: root file system: %v", name, err)
	}
}

// empty removes what is in a folder of a container, or, where that is much, sets it aside
// for removal.
func (e *Engine) empty(ctx context.Context, folder string) error {
	gone, err := removal.Some(ctx, folder, atOnce)
	if err != nil || gone {
		return err
	}
	switch err := e.discard(folder); {
	case errors.Is(err, unix.EXDEV), errors.Is(err, os.ErrNotExist): // no volumes there
		return removal.All(ctx, folder)
	case err != nil:
		return err
	}
	e.sweep(ctx)
	return nil
}

// upperOf is the folder of what was written to a root file system; "" if it has none.
func upperOf(mounts []mount.Mount) string {
	for _, m := range mounts {
		if m.Type == "bind" && slices.Contains(m.Options, "rw") { // of an image without layers
			return m.Source
		}
		for _, o := range m.Options {
			if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
				return upper
			}
		}
	}
	return ""
}
