package engine

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"kogge.example/agent/images"
	"kogge.example/agent/quota"
)

// bindEvery is how often the bound of what containers write follows how full STATE is.
const bindEvery = 5 * time.Second

// KeepReserve sees to it that containers leave a reserve of STATE, in bytes and files, until
// ctx ends. The first time it does so before it returns.
func (e *Engine) KeepReserve(ctx context.Context) (wait func()) {
	if e.paths.Images == "" {
		return func() {}
	}
	last := ""
	bind := func() bool {
		err := quota.Bind(e.paths.Images)
		text := ""
		switch {
		case errors.Is(err, quota.ErrNone):
			text = "STATE has no project quotas, as it was made by an older release: containers can use all of it up; kogge node reset makes a new one"
		case err != nil:
			text = err.Error()
		}
		if text != "" && text != last {
			log.Print("agent: " + text)
		}
		last = text
		return !errors.Is(err, quota.ErrNone)
	}
	done := make(chan struct{})
	if !bind() {
		close(done)
		return func() {}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(bindEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				bind()
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { <-done }
}

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

// count has what is in a folder count as containers'.
func count(folder string) error {
	if err := quota.Tag(folder); err != nil && !errors.Is(err, quota.ErrNone) {
		return err
	}
	return nil
}
