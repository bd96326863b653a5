package engine

import (
	"context"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"kogge.example/agent/images"
	"kogge.example/agent/workload"
)

// sweepEvery is how often there is a look for what is left of containers and volumes.
const sweepEvery = 10 * time.Minute

// sweep looks for that until ctx ends.
func (e *Engine) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		e.bin.Empty(ctx)
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
		err = e.bin.Clear(ctx, upper)
	}
	if err != nil {
		log.Printf("container %s: root file system: %v", name, err)
	}
}

// upperOf is the folder of what was written to a root file system; "" if it has none.
func upperOf(mounts []mount.Mount) string {
	for _, m := range mounts {
		if m.Type == "bind" && slices.Contains(m.Options, "rw") { // of an image without layers
			return m.Source
		}
	}
	return optionOf(mounts, "upperdir=")
}

// optionOf is the value of an option of a mount; "" if there is none.
func optionOf(mounts []mount.Mount, name string) string {
	for _, m := range mounts {
		for _, o := range m.Options {
			if value, ok := strings.CutPrefix(o, name); ok {
				return value
			}
		}
	}
	return ""
}
