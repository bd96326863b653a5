package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/imageref"
	"kogge.example/update/release"
)

// Release is a release of the node's own system in a registry: it is reached as images
// are, by the same mirrors, authorities and credentials, and goes past containerd.
type Release struct {
	name     string
	servers  *servers
	resolver remotes.Resolver
	fetcher  remotes.Fetcher
	index    ocispec.Descriptor
}

// OpenRelease asks the registry of ref for a release, and for nothing but its name yet.
// Errors do not repeat ref.
func (r Registries) OpenRelease(ctx context.Context, ref string) (*Release, error) {
	name, err := imageref.Full(ref)
	if err != nil {
		return nil, err
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	servers, err := r.Open(reference.Domain(named), true, func(digest.Digest, string) {})
	if err != nil {
		return nil, err
	}
	one := &Release{name: name, servers: servers, resolver: docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return servers.Hosts, nil },
		Headers: http.Header{"User-Agent": {"kogge"}},
	})}
	if _, one.index, err = one.resolver.Resolve(ctx, name); err == nil {
		one.fetcher, err = one.resolver.Fetcher(ctx, name)
	}
	if err != nil {
		servers.Close()
		return nil, Explain(err)
	}
	return one, nil
}

// OpenWebRelease names a release in a folder of a web server. Which authorities its
// certificate may be from, and whether it speaks plain HTTP, is set as for a registry
// of its host.
func (r Registries) OpenWebRelease(address string) (*release.Web, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("its address cannot be parsed") // its text may hold a password
	}
	own := r[u.Host].Access
	access := release.Access{Plain: own.Insecure}
	if own.CA != "" {
		access.CA = []byte(own.CA)
	}
	return release.OpenWeb(address, access)
}

// Index gets the index of the release.
func (o *Release) Index(ctx context.Context) ([]byte, error) {
	if o.index.MediaType != ocispec.MediaTypeImageIndex || o.index.Size > MaxDocument {
		return nil, fmt.Errorf("%w: it is %.80q of %d bytes, not an image index", release.ErrLayout, o.index.MediaType, o.index.Size)
	}
	body, err := o.Blob(ctx, o.index, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, o.index.Size+1))
	if err != nil {
		return nil, Explain(err)
	}
	if int64(len(raw)) != o.index.Size || digest.FromBytes(raw) != o.index.Digest {
		return nil, fmt.Errorf("index: %w", ErrLie)
	}
	return raw, nil
}

// Blob gets a manifest or a blob, from offset on.
func (o *Release) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	body, err := o.fetcher.Fetch(ctx, d)
	if err != nil {
		return nil, Explain(err)
	}
	if offset > 0 {
		if there, ok := body.(io.Seeker); ok { // it asks for a range
			_, err = there.Seek(offset, io.SeekStart)
		} else {
			_, err = io.CopyN(io.Discard, body, offset)
		}
	}
	if err != nil {
		return nil, errors.Join(Explain(err), body.Close())
	}
	return body, nil
}

// Close ends the connections that are not in use.
func (o *Release) Close() error {
	o.servers.Close()
	return nil
}

var _ release.Stored = (*Release)(nil)
