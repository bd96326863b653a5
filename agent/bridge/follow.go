package bridge

import (
	"slices"
)

// Follow brings what rests on the node's own links up to date: between which of them the
// node routes. Before the first Publish there is nothing to follow.
func (b *Bridges) Follow() error {
	r := b.applied
	if r.Networks == nil && r.Routed == nil {
		return nil
	}
	if now := b.routed(); !slices.Equal(now, r.Routed) {
		r.Routed = now
		if err := Apply(r); err != nil {
			return err
		}
		b.applied = r
	}
	return nil
}
