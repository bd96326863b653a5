package keeper

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"kogge.example/agent/workload"
)

// fetch pulls the image of c unless the node has it: what lies on the disk starts
// without asking anybody. report is told how far it is. The pull has no limit of its
// own: one that stalls ends itself.
func (k *Keeper) fetch(ctx context.Context, c workload.Container, report func(workload.Progress)) error {
	err := k.Engine.CheckImage(ctx, c)
	if !errors.Is(err, workload.ErrNoImage) {
		return err
	}
	log.Printf("container %s: pulling %s", c.ID, c.Image)
	began := time.Now()
	pullErr := k.Engine.Pull(ctx, c.Image, c.Platform, report)
	if pullErr != nil {
		return fmt.Errorf("%w: %w", err, pullErr)
	}
	log.Printf("container %s: pulled %s in %s", c.ID, c.Image, time.Since(began).Round(time.Millisecond))
	return nil
}

// pulling notes how far the image of a start is. A node is as good as its release
// when a registry is slow, so the start counts as tried.
func (u *unit) pulling(p *workload.Progress) {
	if u.State == workload.Starting {
		u.reason, u.tried, u.pull = p.String(), true, p
	}
}
