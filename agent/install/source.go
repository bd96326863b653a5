package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/init/nodeconfig"
	"kogge.example/update/release"
)

// kept is a source that is closed by somebody else, or needs no closing.
type kept struct{ release.Source }

func (kept) Close() error { return nil }

// open opens the release of an order.
func (i *Installer) open(ctx context.Context, o Order) (release.Stored, error) {
	if o.Source != nil {
		return kept{o.Source}, nil
	}
	settings, err := i.settings()
	if err != nil {
		return nil, err
	}
	from := o.From
	if from == "source:" {
		if from = settings.Source; from == "" {
			return nil, refuse("no release was named, and node.yaml has no update.source")
		}
	}
	var src release.Stored
	name := from
	switch {
	case strings.HasPrefix(from, "usb:"):
		if from != "usb:" {
			return nil, refuse("%.100q: a release on a stick is called usb: alone, and lies in the folder %s", from, StickFolder)
		}
		if settings.USB != nodeconfig.USBAsk {
			return nil, refuse("this node reads no sticks: update.usb in its node.yaml is off")
		}
		name = "on a stick"
		src, err = i.Sticks()
	case strings.Contains(from, "://") && i.Web != nil:
		if u, err := url.Parse(from); err == nil {
			name = u.Redacted()
		}
		src, err = i.Web(from)
	case i.Registry == nil:
		return nil, refuse("%.100q: this node cannot get releases from there", from)
	default:
		src, err = i.Registry(ctx, from)
	}
	switch {
	case errors.Is(err, release.ErrServer):
		return nil, refusal{err}
	case err != nil:
		return nil, fmt.Errorf("release %.200s: %w: %w", name, ErrUnreachable, err)
	}
	return reached{src}, nil
}

// reached is a source that says which of its errors are those of the way to it.
type reached struct{ release.Stored }

func (r reached) Index(ctx context.Context) ([]byte, error) {
	raw, err := r.Stored.Index(ctx)
	return raw, unreachable(err)
}

func (r reached) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	body, err := r.Stored.Blob(ctx, d, offset)
	if err != nil {
		return nil, unreachable(err)
	}
	return reachedBody{body}, nil
}

type reachedBody struct{ io.ReadCloser }

func (b reachedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		return n, err
	}
	return n, unreachable(err)
}

// unreachable marks errors that say nothing of the release itself.
func unreachable(err error) error {
	for _, told := range []error{release.ErrLayout, release.ErrNoLayout, release.ErrServer} {
		if errors.Is(err, told) {
			return err
		}
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
