package release

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/update/golden"
)

// entry is a file of a tar that a test takes apart.
type entry struct {
	tar.Header
	data []byte
}

func unpack(t testing.TB, raw []byte) []entry {
	t.Helper()
	var all []entry
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		all = append(all, entry{*h, data})
	}
}

func pack(t testing.TB, entries []entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.Typeflag == tar.TypeReg {
			e.Size = int64(len(e.data))
		}
		must(t, w.WriteHeader(&e.Header))
		_, err := w.Write(e.data)
		must(t, err)
	}
	must(t, w.Close())
	return buf.Bytes()
}

// swap replaces text in all documents, and gives what names them the new digests: what
// is left to find the change are the signatures.
func swap(t testing.TB, b *Bundle, old, new string) *Bundle {
	t.Helper()
	done := false
	replace := func(raw []byte) []byte {
		done = done || bytes.Contains(raw, []byte(old))
		return bytes.ReplaceAll(raw, []byte(old), []byte(new))
	}
	c := &Bundle{tuf: metadataFiles{}}
	for name, raw := range b.tuf {
		c.tuf[name] = replace(raw)
	}
	for _, one := range b.boards {
		before := one.facts
		one.facts = replace(one.facts)
		one.manifest = bytes.ReplaceAll(replace(one.manifest), []byte(digestOf(before)), []byte(digestOf(one.facts)))
		one.manifest = bytes.ReplaceAll(one.manifest, fmt.Appendf(nil, `"size": %d`, len(before)), fmt.Appendf(nil, `"size": %d`, len(one.facts)))
		c.boards = append(c.boards, one)
	}
	if !done {
		t.Fatalf("there is no %q", old)
	}
	must(t, c.finish())
	return c
}

// resign swaps, and has the keys sign again: a maintainer who errs, or lies.
func resign(t testing.TB, b *Bundle, old, new string) *Bundle {
	t.Helper()
	c := swap(t, b, old, new)
	for _, name := range []string{"targets-1", "targets-2"} {
		must(t, c.Sign(key(name)))
	}
	return c
}

// sized is a release whose board's root has another size in manifest and facts.
func sized(t testing.TB, b *Bundle, size int64) *Bundle {
	t.Helper()
	return signedAnew(t, b, func(f *Facts) { f.Parts[1].Size = size })
}

// signedAnew changes the facts and signs what comes of it.
func signedAnew(t testing.TB, b *Bundle, change func(*Facts)) *Bundle {
	t.Helper()
	return madeAnew(t, b, change, func(*ocispec.Manifest) {})
}

// madeAnew changes facts and manifests and signs what comes of it.
func madeAnew(t testing.TB, b *Bundle, change func(*Facts), changeManifest func(*ocispec.Manifest)) *Bundle {
	t.Helper()
	c := &Bundle{}
	for _, one := range b.boards {
		one.Facts.Parts = slices.Clone(one.Facts.Parts)
		change(&one.Facts)
		var err error
		one.facts, err = encode(one.Facts)
		must(t, err)
		m, err := parseManifest(one.manifest, BoardType, FactsType)
		must(t, err)
		m.Config = describe(FactsType, one.facts)
		for i, p := range one.Facts.Parts {
			m.Layers[i].Size = p.Size
		}
		changeManifest(&m)
		one.manifest, err = encode(m)
		must(t, err)
		c.boards = append(c.boards, one)
	}
	must(t, c.Prepare(created.AddDate(1, 0, 0), [][]byte{root(t)}))
	must(t, c.Sign(key("targets-1")))
	must(t, c.Sign(key("targets-2")))
	return c
}

// TestBadInput shows what is said of releases that nobody should install. Each is
// tried as a tar; its words are held.
func TestBadInput(t *testing.T) {
	good := bundle(t, "1.1", 7, "targets-1", "targets-2")
	whole := archive(t, good)
	entries := func(change func([]entry) []entry) []byte { return pack(t, change(unpack(t, whole))) }
	file := func(name string, kind byte, link string) entry {
		return entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o644}}
	}
	edit := func(name string, change func([]byte) []byte) []byte {
		return entries(func(all []entry) []entry {
			for i, e := range all {
				if e.Name == name {
					all[i].data = change(bytes.Clone(e.data))
					return all
				}
			}
			t.Fatalf("there is no %s", name)
			return nil
		})
	}
	index := func(change func(*ocispec.Index)) []byte {
		return edit(indexName, func(raw []byte) []byte {
			var i ocispec.Index
			must(t, json.Unmarshal(raw, &i))
			change(&i)
			raw, err := encode(i)
			must(t, err)
			return raw
		})
	}
	manifests := func(change func(*ocispec.Manifest)) *Bundle { return madeAnew(t, good, func(*Facts) {}, change) }
	layer := blobName(good.Layers[3].Digest)
	mixed := bundle(t, "1.1", 7, "targets-1", "targets-2")
	mixed.tuf[timestampName] = bundle(t, "1.2", 8, "targets-1", "targets-2").tuf[timestampName]
	must(t, mixed.finish())
	old := bundle(t, "1.1", 7, "targets-1", "targets-2")
	for _, name := range []string{snapshotName, targetsName} {
		old.tuf[name] = bundle(t, "1.0", 6, "targets-1", "targets-2").tuf[name]
	}
	must(t, old.finish())
	twice := bundle(t, "1.1", 7, "targets-1")
	for _, name := range []string{targetsName, snapshotName, timestampName} {
		var m map[string]any
		must(t, json.Unmarshal(twice.tuf[name], &m))
		m["signatures"] = append(m["signatures"].([]any), m["signatures"].([]any)[0])
		raw, err := json.Marshal(m)
		must(t, err)
		twice.tuf[name] = raw
	}
	must(t, twice.finish())
	strangers := bundle(t, "1.1", 7, "targets-1", "stranger", "root-1")
	bare, err := New([]Content{content(t, "qemu-x86_64", "1.1", 7)})
	must(t, err)
	must(t, bare.Prepare(created.AddDate(1, 0, 0), nil))
	unsigned := bundle(t, "1.1", 7)

	cases := []struct {
		name  string
		raw   []byte
		board string
		when  time.Time
	}{
		{"no tar", []byte("hello"), "", created},
		{"empty", nil, "", created},
		{"an image of a disk", make([]byte, 4096), "", created},
		{"cut in the headers", whole[:700], "", created},
		{"cut in the documents", whole[:6000], "", created},
		{"cut in a layer", whole[:len(whole)-8000], "", created},
		{"something behind the end", append(bytes.Clone(whole), "more"...), "", created},
		{"file with ../", entries(func(e []entry) []entry { return append(e, file("../index.json", tar.TypeReg, "")) }), "", created},
		{"file below /", entries(func(e []entry) []entry { return append(e, file("/index.json", tar.TypeReg, "")) }), "", created},
		{"hidden by dots", entries(func(e []entry) []entry { return append(e, file("blobs/../index.json", tar.TypeReg, "")) }), "", created},
		{"symbolic link", entries(func(e []entry) []entry {
			return append(e, file("blobs/sha256/"+strings.Repeat("0", 64), tar.TypeSymlink, "/etc/passwd"))
		}), "", created},
		{"hard link", entries(func(e []entry) []entry {
			return append(e, file("blobs/sha256/"+strings.Repeat("0", 64), tar.TypeLink, "index.json"))
		}), "", created},
		{"device", entries(func(e []entry) []entry {
			return append(e, file("blobs/sha256/"+strings.Repeat("0", 64), tar.TypeBlock, ""))
		}), "", created},
		{"foreign folder", entries(func(e []entry) []entry { return append([]entry{file("etc/", tar.TypeDir, "")}, e...) }), "", created},
		{"foreign file", entries(func(e []entry) []entry { return append(e, file("manifest.json", tar.TypeReg, "")) }), "", created},
		{"index twice", entries(func(e []entry) []entry { return append([]entry{e[0], e[1]}, append([]entry{e[1]}, e[2:]...)...) }), "", created},
		{"layer twice", entries(func(e []entry) []entry { return append(e, e[len(e)-1]) }), "", created},
		{"too many files", entries(func(e []entry) []entry {
			for i := range maxEntries {
				e = append(e, file(fmt.Sprintf("blobs/sha256/%064x", i), tar.TypeReg, ""))
			}
			return e
		}), "", created},
		{"no oci-layout", entries(func(e []entry) []entry { return e[1:] }), "", created},
		{"layout of another version", edit("oci-layout", func([]byte) []byte { return []byte(`{"imageLayoutVersion":"2.0.0"}`) }), "", created},
		{"index is no JSON", edit(indexName, func(raw []byte) []byte { return raw[:20] }), "", created},
		{"index and more", edit(indexName, func(raw []byte) []byte { return append(raw, "{}"...) }), "", created},
		{"index of endless length", edit(indexName, func(raw []byte) []byte { return append(raw, bytes.Repeat([]byte(" "), maxDocument)...) }), "", created},
		{"index is empty", index(func(i *ocispec.Index) { i.Manifests = nil }), "", created},
		{"index names two", index(func(i *ocispec.Index) { i.Manifests = append(i.Manifests, i.Manifests[0]) }), "", created},
		{"index names an image", index(func(i *ocispec.Index) { i.Manifests[0].MediaType = ocispec.MediaTypeImageManifest }), "", created},
		{"index points outside", index(func(i *ocispec.Index) { i.Manifests[0].Digest = "sha256:../../../../etc/passwd" }), "", created},
		{"index points to a server", index(func(i *ocispec.Index) { i.Manifests[0].URLs = []string{"http://192.0.2.1/"} }), "", created},
		{"index brings it along", index(func(i *ocispec.Index) { i.Manifests[0].Data = good.Index }), "", created},
		{"another kind of digest", index(func(i *ocispec.Index) { i.Manifests[0].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e" }), "", created},
		{"index of more than 2 GiB", index(func(i *ocispec.Index) { i.Manifests[0].Size = 1<<31 + 7 }), "", created},
		{"size below zero", index(func(i *ocispec.Index) { i.Manifests[0].Size = -1 }), "", created},
		{"blob is missing", index(func(i *ocispec.Index) { i.Manifests[0].Digest = digestOf([]byte("nothing")) }), "", created},
		{"blob is shorter", edit(blobName(digestOf(good.Index)), func(raw []byte) []byte { return raw[:len(raw)-1] }), "", created},
		{"blob is longer", edit(blobName(digestOf(good.Index)), func(raw []byte) []byte { return append(raw, ' ') }), "", created},
		{"layer is another", edit(layer, func(raw []byte) []byte { raw[100] ^= 1; return raw }), "", created},
		{"layer is missing", entries(func(e []entry) []entry { return slices.DeleteFunc(e, func(e entry) bool { return e.Name == layer }) }), "", created},
		{"layer is shorter", edit(layer, func(raw []byte) []byte { return raw[:4096] }), "", created},
		{"not signed", archive(t, unsigned), "", created},
		{"one signature of two", archive(t, bundle(t, "1.1", 7, "targets-1")), "", created},
		{"one key twice", archive(t, twice), "", created},
		{"strangers sign", archive(t, strangers), "", created},
		{"of two releases", archive(t, mixed), "", created},
		{"old metadata", archive(t, old), "", created},
		{"expired", whole, "", created.AddDate(1, 0, 1)},
		{"root has expired", archive(t, good), "", created.AddDate(6, 0, 0)},
		{"another board", whole, "rock64", created},
		{"board that is no name", whole, "../pc-x86_64", created},
		{"version changed", archive(t, swap(t, good, `"version": "1.1"`, `"version": "1.2"`)), "", created},
		{"counter changed", archive(t, swap(t, good, `"counter": 7`, `"counter": 9`)), "", created},
		{"target changed", archive(t, swap(t, good, digestOf(good.boards[1].manifest).Encoded(), digestOf(good.boards[0].manifest).Encoded())), "", created},
		{"null for a target", archive(t, swap(t, good, `"hashes": {`, `"hashes": null, "x": {`)), "", created},
		{"a null target", archive(t, swap(t, good, `"targets": {`, `"targets": {"x.json": null,`)), "", created},
		{"a null file of the snapshot", archive(t, resign(t, good, `"snapshot.json": {`, `"snapshot.json": null, "y.json": {`)), "", created},
		{"unknown media type of a layer", archive(t, manifests(func(m *ocispec.Manifest) { m.Layers[0].MediaType = "application/vnd.example" })), "", created},
		{"layers in another order", archive(t, manifests(func(m *ocispec.Manifest) { slices.Reverse(m.Layers) })), "", created},
		{"a layer more than parts", archive(t, manifests(func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) })), "", created},
		{"layer from a server", archive(t, manifests(func(m *ocispec.Manifest) { m.Layers[0].URLs = []string{"http://192.0.2.1"} })), "", created},
		{"layer without a name", archive(t, manifests(func(m *ocispec.Manifest) { m.Layers[0].Annotations = nil })), "", created},
		{"config of an image", archive(t, manifests(func(m *ocispec.Manifest) { m.Config.MediaType = ocispec.MediaTypeImageConfig })), "", created},
		{"facts of endless length", archive(t, manifests(func(m *ocispec.Manifest) { m.Config.Size = 1 << 40 })), "", created},
		{"signed facts of another format", archive(t, signedAnew(t, good, func(f *Facts) { f.Format = 2 })), "", created},
		{"signed for another board", archive(t, resign(t, good, `"pc-x86_64.json"`, `"rock64.json"`)), "rock64", created},
		{"signed root larger than its tree", archive(t, sized(t, good, 1<<31+4096)), "", created},
		{"signed root of a petabyte", archive(t, sized(t, good, 1<<50)), "", created},
		{"signed schema that reads less than it writes", archive(t, signedAnew(t, good, func(f *Facts) { f.Schema.Writes = 9 })), "", created},
		{"signed part of a strange name", archive(t, signedAnew(t, good, func(f *Facts) { f.Parts[0].Name = "../uki" })), "", created},
		{"signed part without root", archive(t, signedAnew(t, good, func(f *Facts) { f.Parts[1].Name = "rest" })), "", created},
		{"no roots, and none is needed", archive(t, bare), "", created},
	}
	var all strings.Builder
	for _, c := range cases {
		if c.board == "" {
			c.board = "qemu-x86_64"
		}
		fmt.Fprintf(&all, "%s\n", c.name)
		err := try(t, func() (Source, error) { return NewTar(bytes.NewReader(c.raw), int64(len(c.raw))) }, root(t), c.when, c.board)
		if err == nil {
			t.Errorf("%s: it is taken", c.name)
		}
		fmt.Fprintf(&all, "  %v\n", err)
	}
	golden.Compare(t, "bad.txt", all.String())
}

// try does what an update does with a release, up to the bytes of the parts.
func try(t testing.TB, open func() (Source, error), root []byte, when time.Time, board string) error {
	t.Helper()
	src, err := open()
	if err != nil {
		return err
	}
	r, err := Verify(t.Context(), src, root, when, board)
	if err != nil {
		return err
	}
	_, err = install(t, r)
	return err
}

// TestRootOfTrust gives roots that are none.
func TestRootOfTrust(t *testing.T) {
	src := openArchive(t, archive(t, bundle(t, "1.1", 7, "targets-1", "targets-2")))
	_, public := keys("root-1")
	unsigned, err := NewRoot{Version: 1, Root: public, RootK: 1, Targets: public, TargetsK: 1}.Sign(nil)
	must(t, err)
	for name, raw := range map[string][]byte{
		"none": nil, "empty": {}, "no JSON": []byte("root"), "null": []byte("null"), "no keys": []byte(`{"signed":{"_type":"root"},"signatures":[]}`),
		"unsigned": unsigned, "another role": bundle(t, "1.1", 7, "targets-1").tuf[targetsName],
		"null role": bytes.ReplaceAll(root(t), []byte(`"root": {`), []byte(`"root": null, "x": {`)),
	} {
		if _, err := Verify(t.Context(), src, raw, created, "qemu-x86_64"); !errors.Is(err, ErrTrust) && !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other, err := NewRoot{Version: 1, Expires: created.AddDate(1, 0, 0), Root: public, RootK: 1, Targets: public, TargetsK: 1}.Sign([]ed25519.PrivateKey{key("root-1")})
	must(t, err)
	if _, err := Verify(t.Context(), src, other, created, "qemu-x86_64"); !errors.Is(err, ErrSignatures) {
		t.Errorf("root of somebody else: %v", err)
	}
}

// TestEveryByte flips a bit in every byte of a small release: what is installed is the
// same, or nothing is. The bytes that may change without an error are held by their
// place in the tar: the name of the version in index.json, which only people read, and
// how its JSON is spelled; the fields of tar headers that say who owned a file, and
// when; and zeros that fill a block up.
func TestEveryByte(t *testing.T) {
	b, trusted := tiny(t)
	raw := archive(t, b)
	open := func() (Source, error) { return NewTar(bytes.NewReader(raw), int64(len(raw))) }
	want, err := installed(t, open, trusted)
	must(t, err)
	where := places(t, raw)
	taken, flips := map[string]int{}, map[string]int{}
	step := 1
	if testing.Short() {
		step = 41
	}
	for i := 0; i < len(raw); i += step {
		flip := byte(1) << (i % 8)
		raw[i] ^= flip
		got, err := installed(t, open, trusted)
		raw[i] ^= flip
		flips[where(i)]++
		if err == nil && got != want {
			t.Fatalf("byte %d (%s) ^ %#x: another release is taken", i, where(i), flip)
		}
		if err == nil {
			taken[where(i)]++
		}
	}
	var all strings.Builder
	for _, place := range slices.Sorted(maps.Keys(flips)) {
		fmt.Fprintf(&all, "%-20s %5d flips, %4d without effect\n", place, flips[place], taken[place])
	}
	if step == 1 {
		golden.Compare(t, "everybyte.txt", all.String())
	}
}

// tiny is a release for one board with one key, and what trusts it.
func tiny(t testing.TB) (b *Bundle, trusted []byte) {
	t.Helper()
	signers, public := keys("root-1")
	trusted, err := NewRoot{Version: 1, Expires: created.AddDate(5, 0, 0), Root: public, RootK: 1, Targets: public, TargetsK: 1}.Sign(signers)
	must(t, err)
	b, err = New([]Content{blocks(t, 1, "qemu-x86_64", "1.1", 7)})
	must(t, err)
	must(t, b.Prepare(created.AddDate(1, 0, 0), [][]byte{trusted}))
	must(t, b.Sign(signers[0]))
	return b, trusted
}

// installed is what comes of a release for one board, with the root that is trusted
// from then on.
func installed(t testing.TB, open func() (Source, error), trusted []byte) (string, error) {
	t.Helper()
	src, err := open()
	if err != nil {
		return "", err
	}
	r, err := Verify(t.Context(), src, trusted, created, "qemu-x86_64")
	if err != nil {
		return "", err
	}
	got, err := install(t, r)
	return got + string(r.Root), err
}

// places names what the bytes of a tar belong to.
func places(t testing.TB, raw []byte) func(int) string {
	t.Helper()
	type place struct {
		end  int
		name string
	}
	var all []place
	section := io.NewSectionReader(bytes.NewReader(raw), 0, int64(len(raw)))
	r := tar.NewReader(section)
	for {
		h, err := r.Next()
		if err == io.EOF {
			all = append(all, place{len(raw), "end of the tar"})
			break
		}
		must(t, err)
		at, err := section.Seek(0, io.SeekCurrent)
		must(t, err)
		name := h.Name
		if strings.HasPrefix(name, "blobs/") {
			name = "a blob"
		}
		end := int(at) + int(h.Size)
		all = append(all, place{int(at), "header of " + name}, place{end, name}, place{(end + 511) / 512 * 512, "padding"})
	}
	return func(i int) string {
		for _, p := range all {
			if i < p.end {
				return p.name
			}
		}
		return "nowhere"
	}
}

// FuzzTar reads any bytes as a tar. Nothing is taken but what the keys
// signed, nothing panics.
func FuzzTar(f *testing.F) {
	b, trusted := tiny(f)
	whole := archive(f, b)
	f.Add(whole)
	f.Add(whole[:6000])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<20 {
			t.Skip("longer than any of these documents")
		}
		src, err := NewTar(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		if r, err := Verify(t.Context(), src, trusted, created, "qemu-x86_64"); err == nil && r.Facts.Version != "1.1" {
			t.Errorf("taken: %+v", r.Facts)
		}
		if src.Check(t.Context()) == nil {
			again := archive(t, b)
			for name, data := range files(t, raw) {
				if was, ok := files(t, again)[name]; !ok || !bytes.Equal(was, data) && name != indexName && name != "oci-layout" {
					t.Errorf("whole, and with another %s", name)
				}
			}
		}
	})
}

// files are those of a tar, by name.
func files(t testing.TB, raw []byte) map[string][]byte {
	all := map[string][]byte{}
	for _, e := range unpack(t, raw) {
		if e.Typeflag == tar.TypeReg {
			all[strings.TrimPrefix(e.Name, "./")] = e.data
		}
	}
	return all
}

// FuzzDocuments has a source that says anything, with digests that fit.
func FuzzDocuments(f *testing.F) {
	b, trusted := tiny(f)
	for _, name := range b.tuf.names() {
		f.Add(name, b.tuf[name])
	}
	f.Add("facts", b.boards[0].facts)
	f.Add("manifest", b.boards[0].manifest)
	f.Add("index", b.Index)
	f.Add(targetsName, []byte(`{"signed":{"_type":"targets","targets":{"x":null}},"signatures":[]}`))
	f.Add("1.root.json", []byte(`{"signed":{"_type":"root","keys":{"x":null},"roles":{"root":{"keyids":["x"],"threshold":1}}},"signatures":[]}`))
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		_, _ = ParseRoot(raw)
		_, _ = parseFacts(raw)
		c := &Bundle{tuf: metadataFiles{}, boards: slices.Clone(b.boards)}
		for n, r := range b.tuf {
			c.tuf[n] = r
		}
		switch {
		case name == "facts":
			c.boards[0].facts = raw
		case name == "manifest":
			c.boards[0].manifest = raw
		case metadataNames.MatchString(name):
			c.tuf[name] = raw
		}
		if err := c.finish(); err != nil {
			return
		}
		if name == "index" {
			c.Index = raw
		}
		src := inMemory{c}
		if r, err := Verify(t.Context(), src, trusted, created, "qemu-x86_64"); err == nil && r.Facts.Version != "1.1" {
			t.Errorf("taken: %+v", r.Facts)
		}
		if read, err := Read(t.Context(), src); err == nil {
			if root, err := ParseRoot(trusted); err == nil {
				read.Signatures(root)
			}
			_ = CheckRoots([][]byte{trusted, raw})
		}
	})
}

// inMemory is a source over a bundle.
type inMemory struct{ *Bundle }

func (m inMemory) Index(context.Context) ([]byte, error) { return m.Bundle.Index, nil }
func (m inMemory) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	for _, have := range slices.Concat(m.Documents, m.Layers) {
		if have.Digest == d.Digest {
			body, err := have.Open(ctx)
			if err == nil {
				_, err = io.CopyN(io.Discard, body, offset)
			}
			return body, err
		}
	}
	return nil, layoutError(errors.New("it is missing"))
}
