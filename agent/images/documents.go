package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/tarball"
)

// documents is a content store that gives out only what may be read as a whole. With layers
// what has no media type is a layer, which nobody reads so.
type documents struct {
	content.Store
	layers bool
}

func (d documents) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := d.Store.ReaderAt(ctx, desc)
	if err != nil || d.layers && desc.MediaType == "" {
		return r, err
	}
	if err := tarball.Small(content.NewReader(r), r.Size()); err != nil { // whatever the descriptor says of its size
		return nil, errors.Join(fmt.Errorf("%.100s %s has %w", cmp.Or(desc.MediaType, "document"), desc.Digest, err), r.Close())
	}
	return r, nil
}
