package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

// pull is the pull of one image: what of it is there, and what is still to come.
type pull struct {
	name     string
	platform platforms.MatchComparer
	want     string // platform in words
	store    content.Store
	room     func(ctx context.Context, need int64) error
	allowed  *allowance

	cancel  context.CancelFunc
	waiting int           // for its end; guarded by pulls.mu
	done    chan struct{} // closed at the end; then err is set
	err     error

	mu     sync.Mutex // guards what follows
	total  int64      // bytes of all parts; 0: not known yet
	parts  map[digest.Digest]*part
	layers []digest.Digest // in order
}

// part is a manifest, a configuration or a layer.
type part struct {
	ref                string // of what is half there, in the store
	size, have, before int64
	from               string
}

func newPull(w wish, cancel context.CancelFunc) *pull {
	want := "this node is " + platforms.Format(platforms.DefaultSpec())
	if w.platform != "" {
		want = w.platform + " was requested"
	}
	return &pull{
		name: w.name, platform: platformOf(w.platform), want: want, cancel: cancel,
		waiting: 1, done: make(chan struct{}), parts: map[digest.Digest]*part{},
	}
}

func (p *pull) progress() workload.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := workload.Progress{Total: p.total}
	for _, part := range p.parts {
		sum.Done += part.have
	}
	sum.Done = min(sum.Done, sum.Total)
	for _, name := range p.layers {
		one := p.parts[name]
		sum.Layers = append(sum.Layers, workload.LayerProgress{Digest: name.String(), Done: one.have, Size: one.size, Before: one.before, From: one.from})
	}
	return sum
}

// come is p as a [flow]: until its manifest is there, it waits for that.
func (p *pull) come() (bytes int64, waits bool) {
	now := p.progress()
	return now.Done, now.Total == 0 || now.Done < now.Total
}

// from notes which server sends a part.
func (p *pull) from(name digest.Digest, host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part := p.parts[name]; part != nil {
		part.from = host
	}
}

// watch keeps p's numbers up to date until ctx ends.
func (p *pull) watch(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.look(ctx)
	}
}

// look asks the store how much of the parts is there. It may fail: the next one is
// soon.
func (p *pull) look(ctx context.Context) {
	half, err := p.store.ListStatuses(ctx)
	if err != nil {
		return
	}
	offsets := make(map[string]int64, len(half))
	for _, s := range half {
		offsets[s.Ref] = s.Offset
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.parts {
		if offset, ok := offsets[part.ref]; ok {
			part.have = max(part.have, min(offset, part.size)) // it may have been completed meanwhile
		}
	}
}

// check wraps the handler that fetches the parts of an image: it refuses what is no
// image for this node before its layers come, and tells p what there is.
func (p *pull) check(fetch images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		layer := images.IsLayerType(desc.MediaType)
		if !layer && desc.Size > registry.MaxDocument {
			return nil, fmt.Errorf("%w: %s of %d bytes", registry.ErrLie, desc.MediaType, desc.Size)
		}
		if !layer && !images.IsIndexType(desc.MediaType) && !images.IsManifestType(desc.MediaType) && !images.IsConfigType(desc.MediaType) {
			return nil, fmt.Errorf("%w: a %.100q is not part of a container image", registry.ErrLie, desc.MediaType)
		}
		desc.URLs = nil // other places that a manifest names are none of ours to ask
		children, err := fetch.Handle(ctx, desc)
		if images.IsIndexType(desc.MediaType) && errdefs.IsNotFound(err) {
			err = p.noMatch(ctx, desc, err)
		}
		if errdefs.IsFailedPrecondition(err) {
			// What came has no future: the next try starts this part anew.
			_ = p.store.Abort(context.WithoutCancel(ctx), remotes.MakeRefKey(ctx, desc))
			p.have(desc.Digest, 0)
			err = fmt.Errorf("%w: the bytes do not match %s (%s, %d bytes)", registry.ErrLie, desc.Digest, desc.MediaType, desc.Size)
		}
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &kind) {
			err = fmt.Errorf("%w: a %s that cannot be read", registry.ErrLie, desc.MediaType)
		}
		if err != nil {
			return children, err
		}
		p.have(desc.Digest, desc.Size)
		switch {
		case images.IsManifestType(desc.MediaType):
			err = p.plan(ctx, desc, children)
		case images.IsConfigType(desc.MediaType):
			err = p.fits(ctx, desc)
		}
		return children, err
	})
}

// have notes how much of a part is there.
func (p *pull) have(name digest.Digest, size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part := p.parts[name]; part != nil {
		part.have = size
	}
}

// plan notes the parts of a manifest, if there is room for what is missing.
func (p *pull) plan(ctx context.Context, manifest ocispec.Descriptor, children []ocispec.Descriptor) error {
	parts := map[digest.Digest]*part{manifest.Digest: {size: manifest.Size, have: manifest.Size}}
	total, missing, config := manifest.Size, int64(0), false
	var layers []digest.Digest
	for _, c := range children {
		config = config || images.IsConfigType(c.MediaType)
		if parts[c.Digest] != nil {
			continue
		}
		if c.Size < 0 || c.Size > 1<<50 {
			return fmt.Errorf("%w: a part of %d bytes", registry.ErrLie, c.Size)
		}
		one := &part{ref: remotes.MakeRefKey(ctx, c), size: c.Size}
		if _, err := p.store.Info(ctx, c.Digest); err == nil {
			one.have = c.Size
		} else if half, err := p.store.Status(ctx, one.ref); err == nil {
			one.have = min(half.Offset, c.Size)
		}
		one.before = one.have
		parts[c.Digest] = one
		if images.IsLayerType(c.MediaType) {
			layers = append(layers, c.Digest)
		}
		total += one.size
		missing += one.size - one.have
	}
	if !config {
		return fmt.Errorf("%w: it is not a container image", registry.ErrLie)
	}
	if err := p.room(ctx, missing); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, one := range p.parts { // of the try before this one
		if again := parts[name]; again != nil {
			again.before, again.from = min(one.before, again.have), one.from
		}
	}
	p.total, p.parts, p.layers = total, parts, layers
	return nil
}

// fits says whether an image with this configuration runs here.
func (p *pull) fits(ctx context.Context, config ocispec.Descriptor) error {
	other, err := otherPlatform(ctx, documents{Store: p.store}, config, p.platform)
	if err == nil && other != "" {
		err = p.other(other)
	}
	return err
}

// noMatch makes of an index without an image for this node an error that says what
// it has instead; err is what was wrong with it.
func (p *pull) noMatch(ctx context.Context, desc ocispec.Descriptor, err error) error {
	names, ok := platformsIn(ctx, p.store, desc)
	switch {
	case !ok:
		return err
	case names == "":
		return fmt.Errorf("%w: an index without images", registry.ErrLie)
	}
	return p.other(names)
}

// other says what the image is for, instead of what it should be for.
func (p *pull) other(what string) error {
	return fmt.Errorf("%w: it is for %s, but %s", registry.ErrPlatform, what, p.want)
}
