package tarball

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// saved is an image in a tar as docker save writes it, or skopeo and others.
func saved(t *testing.T, layout bool, name, arch string) []byte {
	t.Helper()
	text := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	layer := gzipped(t, strings.Repeat("a layer ", 100_000))
	config := text(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}})
	if !layout {
		return packed(t, entry{name: "layer.tar", text: layer}, entry{name: "c.json", text: config},
			entry{name: "manifest.json", text: text([]map[string]any{{"Config": "c.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})})
	}
	files := []entry{{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}}
	put := func(kind, text string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromString(text), Size: int64(len(text))}
		files = append(files, entry{name: "blobs/sha256/" + d.Digest.Encoded(), text: text})
		return d
	}
	its := put(ocispec.MediaTypeImageManifest, text(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: put(ocispec.MediaTypeImageConfig, config), Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayerGzip, layer)},
	}))
	its.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	return packed(t, append(files, entry{name: "index.json", text: text(ocispec.Index{Manifests: []ocispec.Descriptor{its}})})...)
}

// several is an image for more than one kind of computer.
func several(t *testing.T, archs ...string) []byte {
	t.Helper()
	var inner ocispec.Index
	for _, arch := range append(archs, "unknown") {
		p := ocispec.Platform{OS: "linux", Architecture: arch}
		if arch == "unknown" { // what buildx says of how it was made
			p.OS = arch
		}
		inner.Manifests = append(inner.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(arch), Platform: &p})
	}
	text, err := json.Marshal(inner)
	if err != nil {
		t.Fatal(err)
	}
	index, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{{
		MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(text), Annotations: map[string]string{nameKey: "example.invalid/a:1"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return packed(t, entry{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}, entry{name: "blobs/x", text: string(text)}, entry{name: "index.json", text: string(index)})
}

// TestJudge: whoever makes a disk image hears what a node would say of its preloads.
func TestJudge(t *testing.T) {
	pinned := "example.invalid/x@" + digest.FromString("an index").String()
	good := saved(t, true, "example.invalid/a:1", "arm64")
	for what, c := range map[string]struct {
		file []byte
		err  string
	}{
		"a layout":                        {good, ""},
		"a layout, packed":                {[]byte(gzipped(t, string(good))), ""},
		"docker save":                     {saved(t, false, "example.invalid/a:1", "arm64"), ""},
		"without its index":               {saved(t, true, pinned, "arm64"), "image " + pinned + ": it is another one, sha256:"},
		"without its index, what to do":   {saved(t, true, pinned, "arm64"), "skopeo copy --all"},
		"no name":                         {saved(t, true, "1", "arm64"), "it has no image with a name"},
		"a wrong name":                    {saved(t, false, "UPPER:1", "arm64"), "invalid reference format"},
		"of another kind of computer":     {saved(t, true, "example.invalid/a:1", "amd64"), "it is for linux/amd64, this node is linux/arm64"},
		"of another kind, by docker save": {saved(t, false, "example.invalid/a:1", "amd64"), "it is for linux/amd64, this node is linux/arm64"},
		"of a kind that is no board":      {saved(t, true, "example.invalid/a:1", "riscv64"), "it is for linux/riscv64, this node is linux/arm64"},
		"for several kinds":               {several(t, "amd64", "arm64"), ""},
		"for several others":              {several(t, "amd64", "s390x"), "it is for linux/amd64, linux/s390x, this node is linux/arm64"},
		"for another kind, in an index":   {several(t, "amd64", "amd64"), "it is for linux/amd64, this node is linux/arm64"},
		"no index":                        {packed(t, entry{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}), "index.json: "},
		"no image":                        {packed(t, entry{name: "etc/passwd", text: "root"}), "docker export writes the files of a container alone"},
		"no tar":                          {[]byte(strings.Repeat("FROM debian\n", 100)), "it is not a tar"},
		"a part":                          {good[:len(good)/2], "it is only a part of a tar"},
		"nothing":                         {nil, "it is empty"},
		"a long document":                 {packed(t, entry{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}, entry{name: "index.json", text: "{" + strings.Repeat(" ", MaxDocument) + "}"}), "bytes: a node reads one of"},
		"an index of many parts":          {packed(t, entry{name: "oci-layout", text: `{"imageLayoutVersion":"1.0.0"}`}, entry{name: "./index.json", text: `{"manifests":[{}` + strings.Repeat(",{}", MaxParts+1) + "]}"}), "index.json has more than 100000 parts"},
	} {
		err := Judge(strings.NewReader(string(c.file)), "arm64")
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", what, err, c.err)
		}
	}
}

// TestRunsOn: what a disk image takes for a board is what its node runs.
func TestRunsOn(t *testing.T) {
	const all = `amd64 amd64/v1 amd64/v2 amd64/v3 x86_64 x86-64 x86_64/v3 AMD64 386 i386 i686 arm64 arm64/v8 aarch64 arm arm/v5 arm/v6 arm/v7
		arm/v8 armhf armel armbe riscv64 ppc64 ppc64le s390x mips mipsle mips64 mips64le loong64 wasm sparc64 other`
	for _, arch := range []string{"amd64", "arm64"} {
		node := platforms.Only(ocispec.Platform{OS: "linux", Architecture: arch})
		for _, its := range strings.Fields(all) {
			its, variant, _ := strings.Cut(its, "/")
			for _, system := range []string{"", "linux", "Linux", "windows"} {
				p := ocispec.Platform{OS: system, Architecture: its, Variant: variant}
				if got, want := runsOn(p, arch), node.Match(p); got != want {
					t.Errorf("%+v on %s: %v, its node says %v", p, arch, got, want)
				}
			}
		}
	}
}

// FuzzJudge: no file makes it panic.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"imageLayoutVersion":"1.0.0"}`), []byte(`{"manifests":[{"mediaType":"`+ocispec.MediaTypeImageManifest+`","annotations":{"`+nameKey+`":"a:1"}}]}`), []byte("{}"))
	f.Add([]byte(`[{"Config":"x","RepoTags":["a:1"],"Layers":["x"]}]`), []byte("\x1f\x8b"), []byte(" {"))
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		_ = Judge(strings.NewReader(string(first)), "amd64")
		for _, name := range []string{"oci-layout", "manifest.json"} {
			_ = Judge(strings.NewReader(string(packed(t, entry{name: name, text: string(first)}, entry{name: "index.json", text: string(second)}, entry{name: "x", text: string(third)}))), "amd64")
		}
	})
}
