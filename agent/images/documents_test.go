package images

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/registry"
	"kogge.example/agent/tarball"
)

// TestDocuments: what is read as a whole is small, whatever its descriptor says, and what is
// a layer is not read as a whole.
func TestDocuments(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	long := `{"x":"` + strings.Repeat("a", registry.MaxDocument) + `"}`
	many := `{"manifests":[{}` + strings.Repeat(",{}", registry.MaxParts+1) + `]}`
	for what, c := range map[string]struct {
		kind, text string
		layers     bool
		want       string
	}{
		"small":                     {ocispec.MediaTypeImageIndex, `{"manifests":[{},{}]}`, false, ""},
		"of many parts":             {ocispec.MediaTypeImageManifest, "[0" + strings.Repeat(",0", registry.MaxParts) + "]", true, ""},
		"long":                      {ocispec.MediaTypeImageManifest, long, false, "bytes: a node reads one of 8388608 at the most"},
		"long, in an import":        {ocispec.MediaTypeImageConfig, long + " ", true, "bytes: a node reads"},
		"long, and called a layer":  {ocispec.MediaTypeImageLayer, long + "  ", false, "bytes: a node reads"},
		"long, and called nothing":  {"", long + "   ", false, "bytes: a node reads"},
		"a layer in an import":      {"", long + "    ", true, ""},
		"of too many parts":         {ocispec.MediaTypeImageIndex, many, false, "more than 100000 parts"},
		"too many parts, no object": {ocispec.MediaTypeImageConfig, strings.ReplaceAll(many, "{}", "0"), true, "more than 100000 parts"},
	} {
		d := kept(t, store, c.kind, []byte(c.text))
		d.Size = 3 // it lies
		got, err := content.ReadBlob(t.Context(), documents{store, c.layers}, d)
		if c.want == "" && (err != nil || string(got) != c.text) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %d bytes, %v, want %q", what, len(got), err, c.want)
		}
		if tarball.Refused(err) != (c.want != "") {
			t.Errorf("%s: another look would find the same: %v", what, err)
		}
	}
}
