package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/workload"
)

// TestFillWaitsForNoOtherVolume: while a volume is filled, containers without it start.
func TestFillWaitsForNoOtherVolume(t *testing.T) {
	e := &Engine{paths: Paths{Volumes: t.TempDir()}}
	if err := errors.Join(os.MkdirAll(filepath.Join(e.paths.Volumes, "data/file"), 0o755), os.Mkdir(filepath.Join(e.paths.Volumes, "large"), 0o755)); err != nil {
		t.Fatal(err)
	}
	done, err := e.filling.Take(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	with := func(names ...string) (c workload.Container) {
		for _, name := range names {
			c.Volumes = append(c.Volumes, workload.Volume{Name: name, Target: "/" + name, NoCopy: true})
		}
		return c
	}
	for _, c := range []workload.Container{with(), with("data")} {
		if err := e.fill(t.Context(), c, nil, specs.User{}); err != nil {
			t.Error(err)
		}
	}
	given, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := e.fill(given, with("data", "large"), nil, specs.User{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a container with that volume, which gives up: %v", err)
	}
}
