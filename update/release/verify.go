package release

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Verify returns what the release in src has for a board, if the keys that root
// trusts have signed it. root is a root.json of TUF; the release may carry newer ones,
// each signed by the one before it. Signatures that were good until before refTime are
// refused. No byte of a layer is read.
//
// An older release than one that was verified before is no error here: the floor is
// update/slot's. So neither timestamp nor snapshot are to be kept from one call to the
// next; the newest root is.
func Verify(ctx context.Context, src Source, root []byte, refTime time.Time, board string) (*Release, error) {
	files, err := readMetadata(ctx, src)
	if err != nil {
		return nil, err
	}
	said, err := files.verify(root, refTime, board)
	if err != nil {
		return nil, err
	}
	r, err := readBoard(ctx, src, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: said.digest, Size: said.size})
	if err != nil {
		return nil, fmt.Errorf("board %s: %w", board, err)
	}
	f := r.Facts
	if f.Board != board || f.Version != said.Version || f.Counter != said.Counter || int64(f.Counter) != said.version {
		return nil, layoutError(fmt.Errorf("board %s: its facts are of %s %s (counter %d), the signatures are for %s (counter %d) and have version %d",
			board, f.Board, f.Version, f.Counter, said.Version, said.Counter, said.version))
	}
	r.Root, r.RootVersion = said.root, said.rootVersion
	return r, nil
}

// custom is what TUF's targets say of a board's manifest besides its hash.
type custom struct {
	Version string `json:"version"`
	Counter uint64 `json:"counter"`
}

// readBoard reads the manifest and the facts of a board, and holds them together.
func readBoard(ctx context.Context, src Source, d ocispec.Descriptor) (*Release, error) {
	raw, err := document(ctx, src, d)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw, BoardType, FactsType)
	if err != nil {
		return nil, err
	}
	if raw, err = document(ctx, src, m.Config); err != nil {
		return nil, fmt.Errorf("facts: %w", err)
	}
	r := &Release{Digest: string(d.Digest), source: src, layers: map[string]ocispec.Descriptor{}}
	if r.Facts, err = parseFacts(raw); err != nil {
		return nil, layoutError(err)
	}
	if len(m.Layers) != len(r.Facts.Parts) {
		return nil, layoutError(fmt.Errorf("%d layers for %d parts", len(m.Layers), len(r.Facts.Parts)))
	}
	for i, part := range r.Facts.Parts {
		layer := m.Layers[i]
		if err := checkDescriptor(layer, maxPart); err != nil {
			return nil, layoutError(fmt.Errorf("layer of part %s: %w", part.Name, err))
		}
		if layer.MediaType != layerType(part.Name) || string(layer.Digest) != part.SHA256.Digest() || layer.Size != part.Size ||
			layer.Annotations[ocispec.AnnotationTitle] != part.Name {
			return nil, layoutError(fmt.Errorf("layer %d is %s %.80q of type %.80q, %d bytes; the facts say that it is part %s: %s of type %s, %d bytes", i+1,
				layer.Digest, layer.Annotations[ocispec.AnnotationTitle], layer.MediaType, layer.Size, part.Name, part.SHA256.Digest(), layerType(part.Name), part.Size))
		}
		r.layers[part.Name] = layer
	}
	return r, nil
}

// parseCustom reads what the targets say of a board.
func parseCustom(raw *json.RawMessage) (custom, error) {
	var c custom
	if raw == nil {
		return c, fmt.Errorf("it has neither version nor counter")
	}
	return c, json.Unmarshal(*raw, &c)
}
