// Package remote carries releases to registries and back, for the operator's command
// line. In come a reference and a release; requests to the registry go out. What comes
// from there is believed no more than what lies on a stick. Nodes have a client of
// their own.
package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/update/release"
)

// Registry is a place in a registry: a repository, and a tag or digest in it.
type Registry struct {
	ref     name.Reference
	options []remote.Option
}

// Open names a place. ca are certificates in PEM that are believed beside the
// system's; nil for none. Credentials are those of the file that docker login writes.
// Plain HTTP is spoken to this computer only.
func Open(reference string, ca []byte) (*Registry, error) {
	ref, err := name.ParseReference(reference, name.StrictValidation)
	if err != nil {
		return nil, fmt.Errorf("reference %q: %w", reference, err)
	}
	transport := remote.DefaultTransport.(*http.Transport).Clone()
	if ca != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(ca) {
			return nil, errors.New("the CA is not a certificate in PEM")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &Registry{ref, []remote.Option{remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(guarded{transport})}}, nil
}

// guarded keeps requests, and the credentials in them, from going over plain HTTP to
// another computer: the library tries that by itself for addresses of private networks.
type guarded struct{ http.RoundTripper }

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	host := r.URL.Hostname()
	if ip := net.ParseIP(host); r.URL.Scheme != "https" && host != "localhost" && !ip.IsLoopback() {
		return nil, fmt.Errorf("%s: it uses plain HTTP, which is accepted only on this computer", r.URL.Host)
	}
	return g.RoundTripper.RoundTrip(r)
}

func (r *Registry) with(ctx context.Context) []remote.Option {
	return append([]remote.Option{remote.WithContext(ctx)}, r.options...)
}

// String is the reference, with the registry's name.
func (r *Registry) String() string { return r.ref.Name() }

// Push sends a release, its index last. What the registry has already is not sent.
func (r *Registry) Push(ctx context.Context, b *release.Bundle) error {
	repo := r.ref.Context()
	var manifests []release.Blob
	for _, blob := range append(append([]release.Blob{}, b.Documents...), b.Layers...) {
		if blob.MediaType == ocispec.MediaTypeImageManifest {
			manifests = append(manifests, blob)
			continue
		}
		if err := remote.WriteLayer(repo, layer{ctx, blob}, r.with(ctx)...); err != nil {
			return fmt.Errorf("%s: push %s: %w", r, blob.Digest, err)
		}
	}
	for _, m := range manifests {
		raw, err := read(ctx, m)
		if err != nil {
			return err
		}
		if err := remote.Put(repo.Digest(string(m.Digest)), manifest{raw, types.OCIManifestSchema1}, r.with(ctx)...); err != nil {
			return fmt.Errorf("%s: push manifest %s: %w", r, m.Digest, err)
		}
	}
	if err := remote.Put(r.ref, manifest{b.Index, types.OCIImageIndex}, r.with(ctx)...); err != nil {
		return fmt.Errorf("%s: push index: %w", r, err)
	}
	return nil
}

func read(ctx context.Context, b release.Blob) ([]byte, error) {
	body, err := b.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, b.Size))
}

// manifest is a document that has a name of its own in a registry.
type manifest struct {
	raw  []byte
	kind types.MediaType
}

func (m manifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m manifest) MediaType() (types.MediaType, error) { return m.kind, nil }

// layer is a blob as go-containerregistry wants it. It is sent as it is.
type layer struct {
	ctx  context.Context
	blob release.Blob
}

func (l layer) Digest() (v1.Hash, error)             { return v1.NewHash(string(l.blob.Digest)) }
func (l layer) DiffID() (v1.Hash, error)             { return l.Digest() }
func (l layer) Compressed() (io.ReadCloser, error)   { return l.blob.Open(l.ctx) }
func (l layer) Uncompressed() (io.ReadCloser, error) { return l.blob.Open(l.ctx) }
func (l layer) Size() (int64, error)                 { return l.blob.Size, nil }
func (l layer) MediaType() (types.MediaType, error)  { return types.MediaType(l.blob.MediaType), nil }

// Index gets the index of the release.
func (r *Registry) Index(ctx context.Context) ([]byte, error) {
	d, err := remote.Get(r.ref, r.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	if d.MediaType != types.OCIImageIndex {
		return nil, fmt.Errorf("%s: %w: it is %.80q, not an image index", r, release.ErrLayout, d.MediaType)
	}
	return d.Manifest, nil
}

// Blob gets a manifest or a blob.
func (r *Registry) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	body, err := r.open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	if _, err := io.CopyN(io.Discard, body, offset); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %s: %w", r, d.Digest, err), body.Close())
	}
	return body, nil
}

func (r *Registry) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	ref := r.ref.Context().Digest(string(d.Digest))
	if d.MediaType == ocispec.MediaTypeImageManifest || d.MediaType == ocispec.MediaTypeImageIndex {
		found, err := remote.Get(ref, r.with(ctx)...)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(found.Manifest)), nil
	}
	l, err := remote.Layer(ref, r.with(ctx)...)
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}
