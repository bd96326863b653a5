// Package example turns one static program into a container image: an OCI image
// layout as a tar, which a node takes as a preload and any registry tool reads.
//
// In come the program's bytes and a name; out comes a tar whose every byte
// depends on these alone. Tar compiles nothing: the program is agent/example, or
// whatever the caller built.
package example

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entrypoint is where the binary lies in the image, and its entrypoint.
const entrypoint = "/app"

// user is numeric: the image has no /etc/passwd. It is the "nonroot" that other
// minimal images use.
const user = "65532:65532"

// Tar writes an OCI image layout with one image, named ref (such as
// "kogge.example/hello:1"), for linux on arch (a GOARCH; "arm" means v7), that
// runs binary, a static executable, as a user without rights. when is the
// creation time in the image and of its files, in whole seconds.
//
// The layer is not compressed: a node unpacks it faster than it would inflate it,
// and disk images are compressed as a whole.
func Tar(w io.Writer, ref string, arch string, binary []byte, when time.Time) error {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("image name: %w", err)
	}
	when = when.UTC().Truncate(time.Second)
	img, err := build(arch, binary, when)
	if err != nil {
		return fmt.Errorf("image %s: %w", ref, err)
	}
	if err := write(w, img, tag, when); err != nil {
		return fmt.Errorf("write image %s: %w", ref, err)
	}
	return nil
}

func build(arch string, binary []byte, when time.Time) (v1.Image, error) {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: entrypoint[1:], Mode: 0o755, Size: int64(len(binary)),
		ModTime: when, Format: tar.FormatUSTAR,
	}
	if err := tw.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := tw.Write(binary); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(img, mutate.Addendum{
		Layer:   static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer),
		History: v1.History{Created: v1.Time{Time: when}, CreatedBy: "kogge"},
	})
	if err != nil {
		return nil, err
	}
	c := &v1.ConfigFile{}
	if c, err = img.ConfigFile(); err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created = "linux", arch, v1.Time{Time: when}
	if arch == "arm" {
		c.Variant = "v7"
	}
	c.Config = v1.Config{Entrypoint: []string{entrypoint}, User: user, WorkingDir: "/"}
	return mutate.ConfigFile(img, c)
}

// write lays the image out as the OCI image layout says: index.json names the
// manifest, blobs lie under their digests.
//
// Source: github.com/opencontainers/image-spec, image-layout.md.
func write(w io.Writer, img v1.Image, tag name.Tag, when time.Time) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	parsed, err := img.Manifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: digest,
			Platform: &v1.Platform{OS: cf.OS, Architecture: cf.Architecture, Variant: cf.Variant},
			Annotations: map[string]string{
				// What containerd and docker call it, and what OCI calls it.
				"io.containerd.image.name":          tag.Name(),
				"org.opencontainers.image.ref.name": tag.TagStr(),
			},
		}},
	})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	file := func(name string, data []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: when, Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(data)
		return err
	}
	if err := file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := file("index.json", index); err != nil {
		return err
	}
	for _, b := range []struct {
		digest v1.Hash
		data   []byte
	}{{digest, manifest}, {parsed.Config.Digest, config}} {
		if err := file(blob(b.digest), b.data); err != nil {
			return err
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return err
		}
		rc, err := l.Compressed()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(rc)
		if err != nil {
			return err
		}
		if err := file(blob(h), data); err != nil {
			return err
		}
	}
	return tw.Close()
}

func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
