package release

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// metadataFiles are the files of TUF that a release carries, by name: every version
// of root.json since the first, and one of each of the others.
type metadataFiles map[string][]byte

// Names of TUF's files beside those of the roots, N.root.json.
const (
	targetsName   = metadata.TARGETS + ".json"
	snapshotName  = metadata.SNAPSHOT + ".json"
	timestampName = metadata.TIMESTAMP + ".json"
)

// metadataNames are the names that a file of TUF may have here.
var metadataNames = regexp.MustCompile(`^(targets|snapshot|timestamp|[1-9][0-9]{0,3}\.root)\.json$`)

// readMetadata reads the release's TUF files. Nothing is verified but their digests.
func readMetadata(ctx context.Context, src Source) (metadataFiles, error) {
	raw, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	for _, d := range index.Manifests {
		if hasSignatures(d) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return nil, layoutError(fmt.Errorf("index: %d manifests of signatures: want one", len(found)))
	}
	if raw, err = document(ctx, src, found[0]); err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	m, err := parseManifest(raw, TUFType, ocispec.MediaTypeEmptyJSON)
	if err != nil {
		return nil, fmt.Errorf("signatures: %w", err)
	}
	if len(m.Layers) > maxRoots+3 {
		return nil, layoutError(fmt.Errorf("signatures: %d files: %d at most", len(m.Layers), maxRoots+3))
	}
	files := metadataFiles{}
	for _, layer := range m.Layers {
		name := layer.Annotations[ocispec.AnnotationTitle]
		if layer.MediaType != MetadataType || !metadataNames.MatchString(name) {
			return nil, layoutError(fmt.Errorf("signatures: file %.80q of type %.80q", name, layer.MediaType))
		}
		if _, twice := files[name]; twice {
			return nil, layoutError(fmt.Errorf("signatures: %s is there twice", name))
		}
		if files[name], err = document(ctx, src, layer); err != nil {
			return nil, fmt.Errorf("signatures: %s: %w", name, err)
		}
	}
	return files, nil
}

// signaturesTitle is what the index calls the manifest of the signatures: some tools
// that copy an index leave out the artifactType of what it names.
const signaturesTitle = "signatures"

func hasSignatures(d ocispec.Descriptor) bool {
	return d.ArtifactType == TUFType || d.Annotations[ocispec.AnnotationTitle] == signaturesTitle
}

// signed is what the signatures vouch for.
type signed struct {
	custom
	digest      digest.Digest // of the board's manifest
	size        int64         // of the board's manifest
	version     int64         // of targets, snapshot and timestamp
	root        []byte
	rootVersion int64
}

// nowhere is a folder that cannot exist: go-tuf reads its cache even when told that
// there is none, and "" would be the folder that the program runs in.
const nowhere = "/dev/null/kogge"

// base is what the names that go-tuf asks for begin with.
const base = "release:///"

// DownloadFile is go-tuf's way to ask for a file.
func (f metadataFiles) DownloadFile(url string, most int64, _ time.Duration) ([]byte, error) {
	name := strings.TrimPrefix(url, base)
	raw, ok := f[name]
	if !ok {
		return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: name}
	}
	if int64(len(raw)) > most {
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s has %d bytes: want %d at most", name, len(raw), most)}
	}
	return raw, nil
}

// open makes ready to run TUF's client workflow over the files, beginning at a root
// that is trusted already.
func (f metadataFiles) open(root []byte, refTime time.Time) (*updater.Updater, error) {
	if len(root) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrTrust)
	}
	cfg, err := config.New(base, root)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	cfg.Fetcher, cfg.DisableLocalCache, cfg.LocalMetadataDir, cfg.LocalTargetsDir = f, true, nowhere, nowhere
	cfg.MaxRootRotations, cfg.MaxDelegations = maxRoots, 0
	cfg.RootMaxLength, cfg.TargetsMaxLength, cfg.SnapshotMaxLength, cfg.TimestampMaxLength = maxDocument, maxDocument, maxDocument, maxDocument
	u, err := updater.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	u.UnsafeSetRefTime(refTime)
	return u, nil
}

// unpanic turns a panic into an error: go-tuf dereferences what JSON may have null
// for, some of it before it has looked at a signature.
func unpanic(err *error) {
	if r := recover(); r != nil {
		*err = layoutError(fmt.Errorf("signatures: a part of them is null or missing (%v)", r))
	}
}

// verify runs TUF's client workflow from a trusted root to what is said of a board.
func (f metadataFiles) verify(root []byte, refTime time.Time, board string) (s signed, err error) {
	defer unpanic(&err)
	u, err := f.open(root, refTime)
	if err != nil {
		return s, err
	}
	trusted := u.GetTrustedMetadataSet().Root.Signed.Version
	if err := u.Refresh(); err != nil {
		return s, f.explain(err)
	}
	t := u.GetTrustedMetadataSet()
	s.root, s.rootVersion = root, t.Root.Signed.Version
	if s.rootVersion > trusted { // the file of the trusted version itself was not looked at
		s.root = f[rootName(s.rootVersion)]
		if _, err := ParseRoot(s.root); err != nil { // whoever keeps it has to read it again
			return s, err
		}
	}
	targets := t.Targets[metadata.TARGETS]
	s.version = targets.Signed.Version
	if t.Snapshot.Signed.Version != s.version || t.Timestamp.Signed.Version != s.version {
		return s, layoutError(fmt.Errorf("signatures: targets have version %d, snapshot %d, timestamp %d: they are of different releases", s.version, t.Snapshot.Signed.Version, t.Timestamp.Signed.Version))
	}
	target, ok := targets.Signed.Targets[targetName(board)]
	if !ok {
		return s, fmt.Errorf("%w: %s; the release is for %s", ErrBoard, board, strings.Join(boardsOf(targets), ", "))
	}
	sum := target.Hashes["sha256"]
	if len(target.Hashes) != 1 || len(sum) != len(Sum{}) {
		return s, layoutError(fmt.Errorf("signatures: %s needs a SHA-256 and no other hash", targetName(board)))
	}
	if s.custom, err = parseCustom(target.Custom); err != nil {
		return s, layoutError(fmt.Errorf("signatures: %s: %w", targetName(board), err))
	}
	s.digest, s.size = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum)), target.Length
	return s, nil
}

// walk follows the versions of root.json from a trusted one, and returns the newest
// that it came to. There may be more behind it, which does not follow.
func (f metadataFiles) walk(root []byte) (version int64, err error) {
	defer unpanic(&err)
	roots := metadataFiles{}
	for name, raw := range f {
		if strings.HasSuffix(name, "."+metadata.ROOT+".json") {
			roots[name] = raw
		}
	}
	u, err := roots.open(root, time.Unix(0, 0))
	if err != nil {
		return 0, err
	}
	var missing *metadata.ErrDownloadHTTP
	if err := u.Refresh(); !errors.As(err, &missing) || missing.URL != timestampName { // what comes after the roots
		return 0, roots.explain(err)
	}
	return u.GetTrustedMetadataSet().Root.Signed.Version, nil
}

// explain says what go-tuf found in words of this package.
func (f metadataFiles) explain(err error) error {
	var missing *metadata.ErrDownloadHTTP
	var expired *metadata.ErrExpiredMetadata
	var unsigned *metadata.ErrUnsignedMetadata
	switch {
	case errors.As(err, &expired):
		return fmt.Errorf("%w: %s", ErrExpired, expired.Msg)
	case errors.As(err, &unsigned):
		return fmt.Errorf("%w: %s", ErrSignatures, unsigned.Msg)
	case errors.As(err, &missing):
		return layoutError(fmt.Errorf("signatures: %s is missing", missing.URL))
	}
	return layoutError(fmt.Errorf("signatures: %w", err))
}

func rootName(version int64) string {
	return strconv.FormatInt(version, 10) + "." + metadata.ROOT + ".json"
}

// targetName is TUF's name of a board's manifest.
func targetName(board string) string { return board + ".json" }

// boardsOf are the boards that targets name, sorted.
func boardsOf(targets *metadata.Metadata[metadata.TargetsType]) []string {
	var names []string
	for _, target := range slices.Sorted(maps.Keys(targets.Signed.Targets)) {
		if board, ok := strings.CutSuffix(target, ".json"); ok {
			names = append(names, board)
		}
	}
	return names
}
