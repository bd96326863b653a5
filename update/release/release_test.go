package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kogge.example/update/golden"
	"kogge.example/update/verity"
)

// created is the time of all releases of these tests; their signatures are good for a
// year.
var created = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// key is a key of the test's own, the same on every run.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func keys(names ...string) (private []ed25519.PrivateKey, public []ed25519.PublicKey) {
	for _, name := range names {
		k := key(name)
		private, public = append(private, k), append(public, k.Public().(ed25519.PublicKey))
	}
	return private, public
}

// root makes version 1 of a root.json: 2 of 3 root keys, 2 of 3 targets keys.
func root(t testing.TB) []byte {
	t.Helper()
	signers, rootKeys := keys("root-1", "root-2", "root-3")
	_, targetsKeys := keys("targets-1", "targets-2", "targets-3")
	raw, err := NewRoot{Version: 1, Expires: created.AddDate(5, 0, 0), Root: rootKeys, RootK: 2, Targets: targetsKeys, TargetsK: 2}.Sign(signers[:2])
	must(t, err)
	return raw
}

// content is what a board of that name gets: a root of two blocks, and a boot file.
func content(t testing.TB, board, version string, counter uint64) Content {
	t.Helper()
	return blocks(t, 2, board, version, counter)
}

func blocks(t testing.TB, n int, board, version string, counter uint64) Content {
	t.Helper()
	data := bytes.Repeat([]byte(board+" "+version+"\n"), n*verity.BlockSize)[:n*verity.BlockSize]
	salt := sha256.Sum256([]byte(board))
	tree, top, err := verity.HashTree(bytes.NewReader(data), uint64(n), salt)
	must(t, err)
	file := func(name string, content []byte) File {
		return File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
	}
	return Content{
		Facts: Facts{
			Version: version, Counter: counter, Board: board, Arch: "amd64", Created: created, Schema: StateSchema,
			Verity: verity.Params{Root: top, Salt: salt, Blocks: uint64(n)}.String(),
		},
		Parts: []File{file("uki", []byte("boots "+board+" "+version)), file(RootPart, append(data, tree...))},
	}
}

// bundle is a release for two boards, signed by the targets keys of those names.
func bundle(t testing.TB, version string, counter uint64, signers ...string) *Bundle {
	t.Helper()
	b, err := New([]Content{content(t, "qemu-x86_64", version, counter), content(t, "pc-x86_64", version, counter)})
	must(t, err)
	must(t, b.Prepare(created.AddDate(1, 0, 0), [][]byte{root(t)}))
	for _, name := range signers {
		must(t, b.Sign(key(name)))
	}
	return b
}

// archive is the release as a tar.
func archive(t testing.TB, b *Bundle) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, b.WriteTar(t.Context(), &buf))
	return buf.Bytes()
}

func openArchive(t testing.TB, raw []byte) *Tar {
	t.Helper()
	src, err := NewTar(bytes.NewReader(raw), int64(len(raw)))
	must(t, err)
	return src
}

// install reads all parts of a verified release, as update/slot does, and returns what
// would be installed.
func install(t testing.TB, r *Release) (string, error) {
	t.Helper()
	var all strings.Builder
	fmt.Fprintf(&all, "%s %+v\n", r.Digest, r.Facts)
	for _, p := range r.Facts.Parts {
		body, err := r.Open(t.Context(), p.Name, 0)
		if err != nil {
			return "", err
		}
		raw, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil {
			return "", err
		}
		if int64(len(raw)) != p.Size || sha256.Sum256(raw) != p.SHA256 {
			return "", fmt.Errorf("part %s is another", p.Name)
		}
		all.Write(raw)
	}
	return all.String(), nil
}

// TestVerify takes one release through every way there is to store it, and reads the
// same from each.
func TestVerify(t *testing.T) {
	b := bundle(t, "1.1", 7, "targets-1", "targets-3")
	dir, file := filepath.Join(t.TempDir(), "release"), filepath.Join(t.TempDir(), "release.tar")
	must(t, b.Write(t.Context(), dir))
	must(t, b.Write(t.Context(), file))
	sources := map[string]Source{}
	for kind, name := range map[string]string{"folder": dir, "tar": file} {
		src, err := Open(name)
		must(t, err)
		defer src.Close()
		sources[kind] = src
	}
	var want string
	for kind, src := range sources {
		r, err := Verify(t.Context(), src, root(t), created, "qemu-x86_64")
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		got, err := install(t, r)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if want == "" {
			want = got
		}
		if got != want || !strings.Contains(got, "boots qemu-x86_64 1.1") {
			t.Errorf("%s: another release: %.200q", kind, got)
		}
		if r.RootVersion != 1 || !bytes.Equal(r.Root, root(t)) || r.Digest != b.Digest("qemu-x86_64") || r.Verity().Blocks != 2 {
			t.Errorf("%s: root %d, digest %s, verity %s", kind, r.RootVersion, r.Digest, r.Verity())
		}
	}
}

// TestOpen reads a part from the middle, which is how an interrupted copy goes on.
func TestOpen(t *testing.T) {
	raw := archive(t, bundle(t, "1.1", 7, "targets-1", "targets-3"))
	r, err := Verify(t.Context(), openArchive(t, raw), root(t), created, "pc-x86_64")
	must(t, err)
	size := r.Facts.Parts[1].Size
	for _, offset := range []int64{-1, size + 1} {
		if _, err := r.Open(t.Context(), RootPart, offset); err == nil {
			t.Errorf("offset %d: no error", offset)
		}
	}
	body, err := r.Open(t.Context(), RootPart, 4090)
	must(t, err)
	got, err := io.ReadAll(body)
	must(t, err)
	want, err := content(t, "pc-x86_64", "1.1", 7).Parts[1].Open()
	must(t, err)
	whole, err := io.ReadAll(want)
	must(t, err)
	if !bytes.Equal(got, whole[4090:]) {
		t.Errorf("%d bytes from the middle, %.40q", len(got), got)
	}
	if _, err := r.Open(t.Context(), "dtb", 0); err == nil {
		t.Error("a part that is not there opens")
	}
}

// TestLayout holds the text of every document of a release, so that a change of the
// format is read.
func TestLayout(t *testing.T) {
	b := bundle(t, "1.1", 7, "targets-1", "targets-3")
	outer, err := b.outer()
	must(t, err)
	var all strings.Builder
	fmt.Fprintf(&all, "== oci-layout\n%s== index.json\n%s== %s\n%s", layoutFile, outer, digestOf(b.Index), b.Index)
	for _, d := range b.Documents {
		body, err := d.Open(t.Context())
		must(t, err)
		raw, err := io.ReadAll(body)
		must(t, err)
		fmt.Fprintf(&all, "== %s %s\n%s\n", d.Digest, d.MediaType, bytes.TrimRight(raw, "\n"))
	}
	for _, d := range b.Layers {
		fmt.Fprintf(&all, "== %s %s: %d bytes\n", d.Digest, d.MediaType, d.Size)
	}
	golden.Compare(t, "layout.txt", all.String())
	if again := archive(t, bundle(t, "1.1", 7, "targets-3", "targets-1")); !bytes.Equal(again, archive(t, b)) {
		t.Error("another order of signing gives other bytes")
	}
}

// TestRoots walks from the root that a node has to the newest one of the release.
func TestRoots(t *testing.T) {
	rootKeys, rootPublic := keys("root-1", "root-2", "root-3")
	newKeys, newPublic := keys("root-4", "root-2", "root-3")
	_, targets := keys("targets-4")
	next := NewRoot{Version: 2, Expires: created.AddDate(5, 0, 0), Root: newPublic, RootK: 2, Targets: targets, TargetsK: 1}
	second, err := next.Sign([]ed25519.PrivateKey{rootKeys[0], rootKeys[1], newKeys[0]})
	must(t, err)
	next.Version = 3
	third, err := next.Sign(newKeys[:2])
	must(t, err)
	must(t, CheckRoots([][]byte{root(t), second, third}))

	b, err := New([]Content{content(t, "qemu-x86_64", "2.0", 9)})
	must(t, err)
	must(t, b.Prepare(created.AddDate(1, 0, 0), [][]byte{root(t), second, third}))
	must(t, b.Sign(key("targets-4")))
	raw := archive(t, b)
	for version, from := range map[int64][]byte{1: root(t), 2: second, 3: third} {
		r, err := Verify(t.Context(), openArchive(t, raw), from, created, "qemu-x86_64")
		if err != nil || r.RootVersion != 3 || !bytes.Equal(r.Root, third) {
			t.Errorf("from root %d: %+v, %v", version, r, err)
		}
	}

	// The release lies about the version that the node trusts, and carries nothing newer.
	_, evil := keys("evil")
	forged, err := NewRoot{Version: 1, Expires: created.AddDate(5, 0, 0), Root: evil, RootK: 1, Targets: evil, TargetsK: 1}.Sign([]ed25519.PrivateKey{key("evil")})
	must(t, err)
	b = bundle(t, "1.1", 7)
	must(t, b.Prepare(created.AddDate(1, 0, 0), [][]byte{forged}))
	must(t, b.Sign(key("targets-1")))
	must(t, b.Sign(key("targets-2")))
	r, err := Verify(t.Context(), openArchive(t, archive(t, b)), root(t), created, "qemu-x86_64")
	if err != nil || !bytes.Equal(r.Root, root(t)) {
		t.Errorf("the forged root of the same version is taken: %v", err)
	}

	// One key too few of the old ones, then of the new ones.
	bad, err := NewRoot{Version: 2, Expires: next.Expires, Root: newPublic, RootK: 2, Targets: targets, TargetsK: 1}.Sign([]ed25519.PrivateKey{newKeys[0], newKeys[1]})
	must(t, err)
	if err := CheckRoots([][]byte{root(t), bad}); !errors.Is(err, ErrSignatures) {
		t.Errorf("one old key: %v", err)
	}
	bad, err = NewRoot{Version: 2, Expires: next.Expires, Root: newPublic, RootK: 3, Targets: targets, TargetsK: 1}.Sign(rootKeys)
	must(t, err)
	if err := CheckRoots([][]byte{root(t), bad}); !errors.Is(err, ErrSignatures) {
		t.Errorf("two of three new keys: %v", err)
	}
	if _, err := (NewRoot{Version: 1, Root: append(rootPublic, rootPublic[0]), RootK: 4, Targets: targets, TargetsK: 1}).Sign(rootKeys); err == nil {
		t.Error("a key that is named twice counts twice")
	}
}

// TestCacheOfOthers runs where somebody has left a timestamp.json, which go-tuf would
// read as its own.
func TestCacheOfOthers(t *testing.T) {
	later := bundle(t, "9.0", 900, "targets-1", "targets-2")
	t.Chdir(t.TempDir())
	for name, raw := range later.tuf {
		must(t, os.WriteFile(name, raw, 0o600))
	}
	src := openArchive(t, archive(t, bundle(t, "1.1", 7, "targets-1", "targets-2")))
	if _, err := Verify(t.Context(), src, root(t), created, "qemu-x86_64"); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) != len(later.tuf) {
		t.Errorf("%d files are there, %v", len(entries), err)
	}
}

// TestWriteBreaksOff writes a release over another, and breaks off at each of its
// blobs: the folder and the tar have the old one, whole, and the next try goes through.
func TestWriteBreaksOff(t *testing.T) {
	before := bundle(t, "1.0", 6, "targets-1", "targets-2")
	for _, kind := range []string{"release", "release.tar"} {
		out := filepath.Join(t.TempDir(), kind)
		must(t, before.Write(t.Context(), out))
		installs := func(version string) {
			t.Helper()
			src, err := Open(out)
			must(t, err)
			defer src.Close()
			r, err := Verify(t.Context(), src, root(t), created, "qemu-x86_64")
			must(t, err)
			if _, err := install(t, r); err != nil || r.Facts.Version != version {
				t.Fatalf("%s: release %s, %v, want %s", kind, r.Facts.Version, err, version)
			}
		}
		broken := errors.New("the disk is pulled out")
		for i := 0; ; i++ {
			after := bundle(t, "1.1", 7, "targets-1", "targets-2")
			blobs := append(slices.Clone(after.Documents), after.Layers...)
			if i == len(blobs) {
				break
			}
			breaks := func(context.Context) (io.ReadCloser, error) { return nil, broken }
			if i < len(after.Documents) {
				after.Documents[i].Open = breaks
			} else {
				after.Layers[i-len(after.Documents)].Open = breaks
			}
			// What both have is not read again.
			if err := after.Write(t.Context(), out); !errors.Is(err, broken) && (err != nil || kind != "release") {
				t.Fatalf("%s: breaks off at blob %d: %v", kind, i, err)
			} else if err == nil {
				installs("1.1")
				must(t, before.Write(t.Context(), out))
			}
			installs("1.0")
		}
		must(t, bundle(t, "1.1", 7, "targets-1", "targets-2").Write(t.Context(), out))
		installs("1.1")
		if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*")); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left over, %v", kind, left, err)
		}
		if kind == "release" {
			blobs, err := os.ReadDir(filepath.Join(out, "blobs", "sha256"))
			must(t, err)
			if want := len(bundle(t, "1.1", 7).Documents) + 4 + 1; len(blobs) != want {
				t.Errorf("%d blobs, want %d", len(blobs), want)
			}
		}
	}
}

// BenchmarkVerify is what a node spends before it reads the first byte of a layer.
func BenchmarkVerify(b *testing.B) {
	src := openArchive(b, archive(b, bundle(b, "1.1", 7, "targets-1", "targets-2")))
	trusted := root(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(b.Context(), src, trusted, created, "qemu-x86_64"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWriteStaysInside writes into a folder that somebody else has made: links do not lead
// out of it, and what is no blob stays.
func TestWriteStaysInside(t *testing.T) {
	home, out := t.TempDir(), filepath.Join(t.TempDir(), "1.1.oci")
	thesis := filepath.Join(home, "thesis.txt")
	must(t, os.WriteFile(thesis, []byte("my work"), 0o600))
	must(t, os.MkdirAll(filepath.Join(out, "blobs"), 0o755))
	must(t, os.Symlink(home, filepath.Join(out, "blobs", "sha256")))
	b := bundle(t, "1.1", 7, "targets-1", "targets-2")
	if err := b.Write(t.Context(), out); err == nil {
		t.Error("it followed a link out of the folder")
	}
	must(t, os.Remove(filepath.Join(out, "blobs", "sha256")))
	must(t, os.MkdirAll(filepath.Join(out, "blobs", "sha256"), 0o755))
	note := filepath.Join(out, "blobs", "sha256", "README")
	must(t, os.WriteFile(note, nil, 0o600))
	must(t, b.Write(t.Context(), out))
	for _, file := range []string{thesis, note} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("it is gone: %v", err)
		}
	}
	// A pipe keeps nobody waiting.
	blob := filepath.Join(out, "index.json")
	must(t, os.Remove(blob))
	must(t, syscall.Mkfifo(blob, 0o600))
	src, err := OpenDir(out)
	must(t, err)
	defer src.Close()
	if _, err := src.Index(t.Context()); !errors.Is(err, ErrLayout) {
		t.Errorf("a pipe: %v", err)
	}
}
