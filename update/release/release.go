// Package release reads, verifies, writes and signs releases: what an update puts
// into a slot, and who vouches for it.
//
// A release is one OCI image index: a manifest for each board, whose layers are the
// root file system and the boot files as they are, whose config are the [Facts]; and
// one manifest whose layers are TUF metadata. TUF's targets are the boards' manifests.
// It lies in an OCI image layout (a folder, a tar, a folder on a web server) or in a
// registry; a [Source] is any of these. In comes a source and a root of trust; out
// comes what a slot needs, verified: TUF first, then the board's manifest and facts,
// and not a byte of a layer before that. Whoever installs a layer hashes it; [Facts]
// say what it has to be. Slots, floors and what has failed before are no concern of
// this package.
//
// Sources: github.com/opencontainers/image-spec, theupdateframework.github.io/specification
package release

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/update/memory"
	"kogge.example/update/partition"
	"kogge.example/update/verity"
)

// Media types of a release.
const (
	BoardType    = "application/vnd.kogge.release.v1"            // artifactType of a board's manifest
	FactsType    = "application/vnd.kogge.release.facts.v1+json" // its config
	RootType     = "application/vnd.kogge.slot.root.v1"          // its layer for the root slot
	BootType     = "application/vnd.kogge.slot.boot.v1"          // its layers for the boot partition
	TUFType      = "application/vnd.kogge.tuf.v1"                // artifactType of the manifest of the signatures
	MetadataType = "application/vnd.kogge.tuf.metadata.v1+json"  // its layers
)

// RootPart is the name of the part that goes into the root slot.
const RootPart = "root"

var (
	// ErrLayout says that this is no release, or a damaged one.
	ErrLayout = errors.New("not a whole release")
	// ErrSignatures says that too few of the trusted keys have signed.
	ErrSignatures = errors.New("not signed by enough of the trusted keys")
	// ErrExpired says that a signature was good until a time that is over.
	ErrExpired = errors.New("signatures have expired")
	// ErrBoard says that the release has nothing for a board.
	ErrBoard = errors.New("nothing for this board")
	// ErrTrust says that the root of trust itself cannot be used.
	ErrTrust = errors.New("no usable root of trust")
)

// Facts are what a release says of one board: the config of the board's manifest.
// Readers ignore what they do not know; a change that they must not ignore has
// another Format.
type Facts struct {
	Format  int    `json:"format"` // 1
	Version string `json:"version"`
	// Counter orders releases; no node goes below its floor. 1 to 2^53-1.
	Counter uint64    `json:"counter"`
	Board   string    `json:"board"`
	Arch    string    `json:"arch"`    // Go's name
	Created time.Time `json:"created"` // time of the commit
	// Verity is the value of kogge.verity on the command line of this release.
	Verity string        `json:"verity"`
	Schema memory.Schema `json:"schema"`
	// Parts are in the order of the layers: the boot files, and then the root.
	Parts []Part `json:"parts"`
}

// StateSchema is that of the release this source tree makes. It writes format 1;
// [partition.SealedState] once no slot has a release that does not read it; and
// [partition.FleetState] on a node whose genesis is of version 2.
var StateSchema = memory.Schema{Reads: [2]int{1, partition.FleetState}, Writes: 1}

// Part is one thing that a release puts on a disk.
type Part struct {
	Name   string `json:"name"` // RootPart, or that of a boot file
	Size   int64  `json:"size"` // in bytes
	SHA256 Sum    `json:"sha256"`
}

// Sum is a SHA-256, as hex digits in JSON.
type Sum [32]byte

// MarshalText is 64 hex digits.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads what MarshalText writes, and nothing else.
func (s *Sum) UnmarshalText(text []byte) error {
	var read Sum
	n, err := hex.Decode(read[:], text[:min(len(text), 2*len(read))])
	if err != nil || n != len(read) || hex.EncodeToString(read[:]) != string(text) {
		return fmt.Errorf("%q is not a SHA-256 in hex digits", text)
	}
	*s = read
	return nil
}

// Digest is the OCI digest.
func (s Sum) Digest() string { return string(s.digest()) }

func (s Sum) digest() digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(s[:]))
}

// Source is where a release lies. Nothing that it says is believed.
type Source interface {
	// Index returns the index of the release, at most maxDocument bytes.
	Index(ctx context.Context) ([]byte, error)
	// Blob opens what the descriptor names, from offset on. What is read may be
	// longer, shorter or something else.
	Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// Release is what is there for one board, verified.
type Release struct {
	Facts Facts
	// Digest is that of the board's manifest, sha256:…: it names the release.
	Digest string
	// Root is the newest root of trust, root.json, which whoever verified this trusts
	// from now on; RootVersion is its number.
	Root        []byte
	RootVersion int64

	source Source
	layers map[string]ocispec.Descriptor // by part
}

// Verity are the parameters of the root part.
func (f Facts) verity() (verity.Params, error) { return verity.ParseParams(f.Verity) }

// Verity are the parameters of the root part.
func (r *Release) Verity() verity.Params {
	p, _ := r.Facts.verity() // check has read it
	return p
}

// Open reads a part from offset on, to its end at most. What it reads is not
// verified: whoever reads it hashes it and compares.
func (r *Release) Open(ctx context.Context, part string, offset int64) (io.ReadCloser, error) {
	d, ok := r.layers[part]
	if !ok {
		return nil, fmt.Errorf("release %s has no part %q", r.Facts.Version, part)
	}
	if offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("part %s: offset %d is outside its %d bytes", part, offset, d.Size)
	}
	body, err := r.source.Blob(ctx, d, offset)
	if err != nil {
		return nil, fmt.Errorf("part %s: %w", part, err)
	}
	return limited{io.LimitReader(body, d.Size-offset), body}, nil
}

// limited is a reader that ends early, with the closer of the whole.
type limited struct {
	io.Reader
	io.Closer
}

// Limits of what one release may have. They leave room, and keep a hostile one from
// filling the memory of a node.
const (
	maxDocument = 256 << 10 // bytes of an index, a manifest, facts or TUF metadata
	maxParts    = 16
	maxBoards   = 64
	maxRoots    = 256     // versions of root.json
	maxPart     = 1 << 40 // bytes
	maxText     = 128     // bytes of a name
	maxCounter  = 1<<53 - 1
)

// words are what names and versions may be made of: they go into file names, command
// lines and logs.
var words = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]*$`)

// CheckVersion says what is wrong with a version's name.
func CheckVersion(version string) error {
	if len(version) > maxText || !words.MatchString(version) {
		return fmt.Errorf("version %.140q: want at most %d letters, digits, and ._+~- after the first", version, maxText)
	}
	return nil
}

// CheckCounter says what is wrong with a release counter.
func CheckCounter(counter uint64) error {
	if counter == 0 || counter > maxCounter {
		return fmt.Errorf("release counter %d: want 1 to %d", counter, uint64(maxCounter))
	}
	return nil
}

// parseFacts reads the config of a board's manifest.
func parseFacts(raw []byte) (Facts, error) {
	var f Facts
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, fmt.Errorf("facts: %w", err)
	}
	if err := f.check(); err != nil {
		return f, fmt.Errorf("facts: %w", err)
	}
	return f, nil
}

// check says what is wrong with facts. A release that passes can be staged as far as
// its numbers go.
func (f Facts) check() error {
	if f.Format != 1 {
		return fmt.Errorf("format %d; this program reads format 1: a newer one is needed", f.Format)
	}
	if err := errors.Join(CheckVersion(f.Version), CheckCounter(f.Counter)); err != nil {
		return err
	}
	if len(f.Board) > maxText || !words.MatchString(f.Board) {
		return fmt.Errorf("board %.140q is not a name", f.Board)
	}
	p, err := f.verity()
	if err != nil {
		return err
	}
	if s := f.Schema; s.Reads[0] < 1 || s.Reads[1] < s.Reads[0] || s.Writes < s.Reads[0] || s.Writes > s.Reads[1] {
		return fmt.Errorf("schema reads %d to %d, writes %d: a release reads what it writes", s.Reads[0], s.Reads[1], s.Writes)
	}
	if len(f.Parts) < 2 || len(f.Parts) > maxParts {
		return fmt.Errorf("%d parts: want 2 to %d", len(f.Parts), maxParts)
	}
	seen := map[string]bool{}
	for _, part := range f.Parts {
		switch {
		case len(part.Name) > maxText || !words.MatchString(part.Name):
			return fmt.Errorf("part %.140q is not a name", part.Name)
		case seen[part.Name]:
			return fmt.Errorf("part %s is there twice", part.Name)
		case part.Size < 1 || part.Size > maxPart:
			return fmt.Errorf("part %s: %d bytes: want 1 to %d", part.Name, part.Size, int64(maxPart))
		case part.Name == RootPart && uint64(part.Size) != p.Blocks*verity.BlockSize+verity.TreeSize(p.Blocks):
			return fmt.Errorf("part %s: %d bytes, but %d blocks and their tree have %d", part.Name, part.Size, p.Blocks, p.Blocks*verity.BlockSize+verity.TreeSize(p.Blocks))
		}
		seen[part.Name] = true
	}
	if !seen[RootPart] {
		return fmt.Errorf("there is no part %s", RootPart)
	}
	return nil
}

// Size is the sum of the parts in bytes.
func (f Facts) Size() int64 {
	var sum int64 // at most maxParts times maxPart
	for _, p := range f.Parts {
		sum += p.Size
	}
	return sum
}

// layerType is the media type of a part's layer.
func layerType(part string) string {
	if part == RootPart {
		return RootType
	}
	return BootType
}
