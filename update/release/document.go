package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"regexp"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// digestForm is the only kind of digest that a release has.
var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// checkDescriptor says what is wrong with a descriptor of something that is at most
// so many bytes long.
func checkDescriptor(d ocispec.Descriptor, most int64) error {
	if !digestForm.MatchString(string(d.Digest)) {
		return fmt.Errorf("digest %.80q is not a SHA-256", string(d.Digest))
	}
	if d.Size < 1 || d.Size > most {
		return fmt.Errorf("%s: %d bytes: want 1 to %d", d.Digest, d.Size, most)
	}
	if len(d.Data) > 0 || len(d.URLs) > 0 {
		return fmt.Errorf("%s: descriptor points elsewhere", d.Digest)
	}
	return nil
}

// document reads something small whole, and compares it with its descriptor.
func document(ctx context.Context, src Source, d ocispec.Descriptor) ([]byte, error) {
	if err := checkDescriptor(d, maxDocument); err != nil {
		return nil, layoutError(err)
	}
	body, err := src.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := readAll(body, d.Size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	if int64(len(raw)) != d.Size || Sum(sha256.Sum256(raw)).Digest() != string(d.Digest) {
		return nil, layoutError(fmt.Errorf("%s: its bytes do not match its digest", d.Digest))
	}
	return raw, nil
}

// readAll reads at most so many bytes; more is an error.
func readAll(r io.Reader, most int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > most {
		return nil, layoutError(fmt.Errorf("more than %d bytes", most))
	}
	return raw, nil
}

// layoutError marks what is wrong with a release.
func layoutError(err error) error { return fmt.Errorf("%w: %w", ErrLayout, err) }

// decode reads one JSON value and nothing behind it.
func decode(raw []byte, value any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(value); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("there are bytes after its end")
	}
	return nil
}

// parseIndex reads an index.
func parseIndex(raw []byte) (ocispec.Index, error) {
	var index ocispec.Index
	if len(raw) > maxDocument {
		return index, layoutError(fmt.Errorf("index: more than %d bytes", maxDocument))
	}
	if err := decode(raw, &index); err != nil {
		return index, layoutError(fmt.Errorf("index: %w", err))
	}
	if index.SchemaVersion != 2 || index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex {
		return index, layoutError(fmt.Errorf("index: schema version %d, media type %.80q: it is not an OCI image index", index.SchemaVersion, index.MediaType))
	}
	if len(index.Manifests) > maxBoards+1 {
		return index, layoutError(fmt.Errorf("index: %d manifests: %d at most", len(index.Manifests), maxBoards+1))
	}
	return index, nil
}

// parseManifest reads a manifest of the given artifact and config types.
func parseManifest(raw []byte, artifact, config string) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := decode(raw, &m); err != nil {
		return m, layoutError(fmt.Errorf("manifest: %w", err))
	}
	switch {
	case m.SchemaVersion != 2 || m.MediaType != ocispec.MediaTypeImageManifest:
		return m, layoutError(fmt.Errorf("manifest: schema version %d, media type %.80q: it is not an OCI image manifest", m.SchemaVersion, m.MediaType))
	case m.ArtifactType != artifact:
		return m, layoutError(fmt.Errorf("manifest: artifact type %.80q: want %s", m.ArtifactType, artifact))
	case m.Config.MediaType != config:
		return m, layoutError(fmt.Errorf("manifest: config of type %.80q: want %s", m.Config.MediaType, config))
	}
	return m, nil
}

// newManifest is a manifest without layers.
func newManifest(artifact string, config ocispec.Descriptor) ocispec.Manifest {
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifact, Config: config, Layers: []ocispec.Descriptor{},
	}
}

// describe is the descriptor of a document.
func describe(mediaType string, raw []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(raw), Size: int64(len(raw))}
}
