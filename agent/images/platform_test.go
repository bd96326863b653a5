package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/registry"
)

// kept puts a document into a store.
func kept(t *testing.T, store content.Store, kind string, document any) ocispec.Descriptor {
	t.Helper()
	data, ok := document.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(document); err != nil {
			t.Fatal(err)
		}
	}
	d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := content.WriteBlob(context.Background(), store, d.Digest.String(), bytes.NewReader(data), d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRunsHere: what a tar may have of images for others, whoever says that they are.
func TestRunsHere(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image := func(config any) ocispec.Descriptor {
		return kept(t, store, ocispec.MediaTypeImageManifest, ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, Config: kept(t, store, ocispec.MediaTypeImageConfig, config),
		})
	}
	of := func(os, arch string) ocispec.Descriptor {
		return image(ocispec.Image{Platform: ocispec.Platform{OS: os, Architecture: arch}})
	}
	said := func(d ocispec.Descriptor, os, arch string) ocispec.Descriptor {
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch}
		return d
	}
	index := func(all ...ocispec.Descriptor) ocispec.Descriptor {
		return kept(t, store, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: all})
	}
	lost := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("nothing"), Size: 7}
	const schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	for name, c := range map[string]struct {
		desc     ocispec.Descriptor
		want     string // in the error; "": none
		platform bool
	}{
		"ours":                          {of("linux", runtime.GOARCH), "", false},
		"one that says nothing":         {image(ocispec.Image{}), "", false},
		"another architecture's":        {of("linux", "s390x"), "it is for linux/s390x, this node is linux/" + runtime.GOARCH, true},
		"another system's":              {of("windows", runtime.GOARCH), "it is for windows/" + runtime.GOARCH, true},
		"an index with ours":            {index(of("linux", "s390x"), of("linux", runtime.GOARCH)), "", false},
		"an index that says so":         {index(said(of("linux", "s390x"), "linux", "s390x"), said(of("linux", runtime.GOARCH), "linux", runtime.GOARCH)), "", false},
		"an index without ours":         {index(of("linux", "s390x"), of("windows", "amd64")), "it is for linux/s390x, windows/amd64, this node is", true},
		"an index that says ours, lies": {index(said(of("linux", "s390x"), "linux", runtime.GOARCH)), "it is for linux/s390x, this node is", true},
		"an index of attestations":      {index(said(image(ocispec.Image{}), "unknown", "unknown")), "it is an index without images", false},
		"an empty index":                {index(), "it is an index without images", false},
		"an index whose image is lost":  {index(said(lost, "linux", runtime.GOARCH)), "", false},
		"an image that is lost":         {lost, "", false},
		"an old manifest":               {kept(t, store, schema1, []byte(`{"schemaVersion":1}`)), `it is a "` + schema1 + `", and no container image`, false},
		"no JSON":                       {image([]byte("nonsense")), "configuration", false},
	} {
		err := runsHere(t.Context(), store, c.desc, platforms.DefaultSpec())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || errors.Is(err, registry.ErrPlatform) != c.platform {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	p := &pull{store: store, want: "linux/amd64 was requested"}
	if err := p.noMatch(t.Context(), index(said(image(ocispec.Image{}), "unknown", "unknown")), images.ErrSkipDesc); !errors.Is(err, registry.ErrLie) || !strings.Contains(err.Error(), "an index without images") {
		t.Errorf("an index of attestations in a registry: %v", err)
	}
}
