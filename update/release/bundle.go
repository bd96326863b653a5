package release

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Blob is one thing that a release consists of.
type Blob struct {
	ocispec.Descriptor
	// Open reads it from its beginning.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Bundle is a whole release in hand, as it is and unverified: what is to be written,
// signed or sent elsewhere.
type Bundle struct {
	// Index is the release's index; it names everything else.
	Index []byte
	// Documents are manifests, configs and metadata; Layers the parts of the boards.
	// Both in the order in which a reader wants them, none twice.
	Documents, Layers []Blob

	boards []board
	tuf    metadataFiles
}

// board is one board's part of a bundle.
type board struct {
	manifest, facts []byte
	Facts           Facts
	layers          []Blob
}

// Content is what a release gets for one board.
type Content struct {
	Facts Facts // without Parts
	Parts []File
}

// File is one part of a board.
type File struct {
	Name string
	Size int64
	Open func() (io.ReadCloser, error)
}

// New puts a release together, without signatures. Its bytes depend on the content
// alone. All contents have the same version and counter. It reads each file once, and
// again when the bundle is written.
func New(contents []Content) (*Bundle, error) {
	b := &Bundle{}
	for _, c := range contents {
		one, err := newBoard(c)
		if err != nil {
			return nil, fmt.Errorf("board %s: %w", c.Facts.Board, err)
		}
		b.boards = append(b.boards, one)
	}
	if len(b.boards) == 0 || len(b.boards) > maxBoards {
		return nil, fmt.Errorf("release of %d boards: want 1 to %d", len(b.boards), maxBoards)
	}
	slices.SortFunc(b.boards, func(x, y board) int { return compareText(x.Facts.Board, y.Facts.Board) })
	for i, one := range b.boards[1:] {
		switch first := b.boards[i].Facts; {
		case one.Facts.Board == first.Board:
			return nil, fmt.Errorf("board %s is there twice", first.Board)
		case one.Facts.Version != first.Version || one.Facts.Counter != first.Counter:
			return nil, fmt.Errorf("boards %s and %s differ in version or counter", first.Board, one.Facts.Board)
		}
	}
	return b, nil
}

func newBoard(c Content) (board, error) {
	b := board{Facts: c.Facts}
	b.Facts.Format, b.Facts.Parts, b.Facts.Created = 1, nil, c.Facts.Created.UTC()
	m := newManifest(BoardType, ocispec.Descriptor{})
	for _, file := range c.Parts {
		sum, err := hash(file)
		if err != nil {
			return b, fmt.Errorf("part %s: %w", file.Name, err)
		}
		b.Facts.Parts = append(b.Facts.Parts, Part{Name: file.Name, Size: file.Size, SHA256: sum})
		d := ocispec.Descriptor{
			MediaType: layerType(file.Name), Digest: sum.digest(), Size: file.Size,
			Annotations: map[string]string{ocispec.AnnotationTitle: file.Name},
		}
		m.Layers = append(m.Layers, d)
		b.layers = append(b.layers, Blob{d, func(context.Context) (io.ReadCloser, error) { return file.Open() }})
	}
	if err := b.Facts.check(); err != nil {
		return b, err
	}
	var err error
	if b.facts, err = encode(b.Facts); err != nil {
		return b, err
	}
	m.Config = describe(FactsType, b.facts)
	m.Annotations = map[string]string{ocispec.AnnotationVersion: b.Facts.Version}
	b.manifest, err = encode(m)
	return b, err
}

// hash reads a file and holds its size against what was said of it.
func hash(f File) (Sum, error) {
	r, err := f.Open()
	if err != nil {
		return Sum{}, err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return Sum{}, err
	}
	if n != f.Size {
		return Sum{}, fmt.Errorf("%d bytes instead of %d", n, f.Size)
	}
	return Sum(h.Sum(nil)), nil
}

// Read reads the documents of a release, and checks that it is whole but for its
// layers: if it is signed, it has the boards that the signatures are for, all of them and
// no others. Whose the signatures are is not looked at: this is for those who make and
// carry releases.
func Read(ctx context.Context, src Source) (*Bundle, error) {
	raw, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, err
	}
	b := &Bundle{}
	if b.tuf, err = readMetadata(ctx, src); err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if hasSignatures(d) {
			continue
		}
		one, err := loadBoard(ctx, src, d)
		if err != nil {
			return nil, fmt.Errorf("manifest %.80s: %w", d.Digest, err)
		}
		b.boards = append(b.boards, one)
	}
	if len(b.boards) == 0 {
		return nil, layoutError(fmt.Errorf("index: it has no board"))
	}
	if err := b.complete(); err != nil {
		return nil, err
	}
	if err := b.finish(); err != nil {
		return nil, err
	}
	return b, nil
}

// complete holds the boards of a release against those that its signatures are for, if it
// has any.
func (b *Bundle) complete() error {
	targets, err := parseMetadata[metadata.TargetsType](b.tuf[targetsName])
	if err != nil {
		return nil // nobody has signed it, and Verify says what is wrong with what is there
	}
	signed := boardsOf(targets)
	for _, name := range signed {
		if b.Digest(name) == "" {
			return layoutError(fmt.Errorf("board %s: the signatures are for it, and the release does not have it", name))
		}
	}
	for _, one := range b.boards {
		if !slices.Contains(signed, one.Facts.Board) {
			return layoutError(fmt.Errorf("board %s: the release has it, and no signature is for it", one.Facts.Board))
		}
	}
	return nil
}

func loadBoard(ctx context.Context, src Source, d ocispec.Descriptor) (board, error) {
	r, err := readBoard(ctx, src, d)
	if err != nil {
		return board{}, err
	}
	one := board{Facts: r.Facts}
	if one.manifest, err = document(ctx, src, d); err != nil {
		return board{}, err
	}
	m, err := parseManifest(one.manifest, BoardType, FactsType)
	if err != nil {
		return board{}, err
	}
	if one.facts, err = document(ctx, src, m.Config); err != nil {
		return board{}, err
	}
	for _, layer := range m.Layers {
		one.layers = append(one.layers, Blob{layer, func(ctx context.Context) (io.ReadCloser, error) { return src.Blob(ctx, layer, 0) }})
	}
	return one, nil
}

// Facts are those of the boards, sorted by name.
func (b *Bundle) Facts() []Facts {
	var all []Facts
	for _, one := range b.boards {
		all = append(all, one.Facts)
	}
	slices.SortFunc(all, func(x, y Facts) int { return compareText(x.Board, y.Board) })
	return all
}

// Digest names a board's part of the release.
func (b *Bundle) Digest(board string) string {
	for _, one := range b.boards {
		if one.Facts.Board == board {
			return string(digestOf(one.manifest))
		}
	}
	return ""
}

// finish derives index and lists of blobs from boards and metadata.
func (b *Bundle) finish() error {
	b.Documents, b.Layers = nil, nil
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: BoardType, Manifests: []ocispec.Descriptor{}}
	add := func(mediaType string, raw []byte) ocispec.Descriptor {
		d := describe(mediaType, raw)
		if !slices.ContainsFunc(b.Documents, func(have Blob) bool { return have.Digest == d.Digest }) {
			b.Documents = append(b.Documents, Blob{d, bytesOpener(raw)})
		}
		return d
	}
	m := newManifest(TUFType, ocispec.DescriptorEmptyJSON)
	for _, name := range b.tuf.names() {
		d := add(MetadataType, b.tuf[name])
		d.Annotations = map[string]string{ocispec.AnnotationTitle: name}
		m.Layers = append(m.Layers, d)
	}
	m.Config.Data = nil
	add(ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
	raw, err := encode(m)
	if err != nil {
		return err
	}
	signatures := add(ocispec.MediaTypeImageManifest, raw)
	signatures.ArtifactType, signatures.Annotations = TUFType, map[string]string{ocispec.AnnotationTitle: signaturesTitle}
	index.Manifests = append(index.Manifests, signatures)
	for _, one := range b.boards {
		add(FactsType, one.facts)
		d := add(ocispec.MediaTypeImageManifest, one.manifest)
		d.ArtifactType, d.Platform = BoardType, &ocispec.Platform{OS: "linux", Architecture: one.Facts.Arch}
		d.Annotations = map[string]string{ocispec.AnnotationTitle: one.Facts.Board}
		index.Manifests = append(index.Manifests, d)
		for _, layer := range one.layers {
			if !slices.ContainsFunc(b.Layers, func(have Blob) bool { return have.Digest == layer.Digest }) {
				b.Layers = append(b.Layers, layer)
			}
		}
	}
	if b.Index, err = encode(index); err != nil {
		return err
	}
	for _, d := range b.Documents {
		if d.Size > maxDocument {
			return fmt.Errorf("%s of %d bytes: %d at most", d.MediaType, d.Size, maxDocument)
		}
	}
	return nil
}

// encode is the JSON of a document, to be read by people as well.
func encode(value any) ([]byte, error) {
	raw, err := json.MarshalIndent(value, "", "  ")
	return append(raw, '\n'), err
}
