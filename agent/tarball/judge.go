// Package tarball is what a tar with images says of itself, as docker save or skopeo write
// one: in comes a file, plain or packed, out go the names of its images, or why a node takes
// none of it. It keeps nothing and asks nobody: who imports the images is package images.
package tarball

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Judge says why a node of the architecture ("arm64") would not take a file as a preload; nil:
// nothing speaks against it. It reads the file to its end. What the tar left out, and what is
// in layers, is found by the node alone.
func Judge(packed io.Reader, arch string) error {
	file, err := Plain(packed)
	if err != nil {
		return err
	}
	defer file.Close()
	in, end := Watch(file)
	docs, err := read(in)
	var manifests []ocispec.Descriptor
	if err == nil {
		manifests, err = docs.manifests()
	}
	if err := end(err); err != nil {
		return err
	}
	here := "linux/" + arch
	runs := func(p ocispec.Platform) bool { return runsOn(p, arch) }
	found, err := Pick(manifests, runs, here)
	if err != nil {
		return err
	}
	for _, i := range found {
		if others := docs.others(i.Manifest, runs, true); len(others) > 0 {
			return Refuse(isFor(i.Name, strings.Join(others, ", "), here))
		}
	}
	return nil
}

// boardOf are the architectures of boards that run another one too, or have more names.
var boardOf = map[string]string{
	"x86_64": "amd64", "x86-64": "amd64", "386": "amd64", "i386": "amd64",
	"aarch64": "arm64", "arm": "arm64", "armhf": "arm64", "armel": "arm64",
}

// runsOn says whether a board of the architecture runs what is for p, as its node will: by
// platforms.Only of containerd, but for the variants of arm, which are those of the board's
// processor.
func runsOn(p ocispec.Platform, arch string) bool {
	its := strings.ToLower(p.Architecture)
	board := cmp.Or(boardOf[its], its)
	newer := board == "amd64" && p.Variant != "" && p.Variant != "v1"
	return (p.OS == "" || strings.EqualFold(p.OS, "linux")) && (board == "" || board == arch && !newer)
}

// documents are those of a tar, by the name of their file and by their digest.
type documents map[string][]byte

// read keeps the documents of a tar.
func read(r io.Reader) (documents, error) {
	docs := make(documents)
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil:
			return nil, err
		case h.Typeflag != tar.TypeReg:
			continue
		}
		name := path.Clean(h.Name)
		if h.Size > MaxDocument {
			if name == ocispec.ImageIndexFile {
				return nil, Refuse(fmt.Errorf("%s has %w", name, Small(nil, h.Size)))
			}
			continue // a layer
		}
		text, err := io.ReadAll(t)
		if err != nil {
			return nil, err
		}
		if name == ocispec.ImageIndexFile {
			if err := Small(bytes.NewReader(text), h.Size); err != nil {
				return nil, Refuse(fmt.Errorf("%s has %w", name, err))
			}
		}
		if begin := bytes.TrimSpace(text); len(begin) > 0 && (begin[0] == '{' || begin[0] == '[') {
			docs[name], docs[digest.FromBytes(text).String()] = text, text
		}
	}
}

// manifests are those of the images in a tar, in its index or as docker save lists them.
func (d documents) manifests() ([]ocispec.Descriptor, error) {
	if d[ocispec.ImageLayoutFile] != nil {
		var index ocispec.Index
		if err := json.Unmarshal(d[ocispec.ImageIndexFile], &index); err != nil {
			return nil, Refuse(fmt.Errorf("index.json: %w", err))
		}
		return index.Manifests, nil
	}
	var list []struct {
		Config   string
		RepoTags []string
	}
	if err := json.Unmarshal(d["manifest.json"], &list); err != nil {
		return nil, Refuse(fmt.Errorf("manifest.json: %w", err))
	}
	var all []ocispec.Descriptor
	for _, one := range list {
		m := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest}
		var its ocispec.Platform
		if json.Unmarshal(d[path.Clean(one.Config)], &its) == nil && its.Architecture != "" {
			m.Platform = &its
		}
		for _, tag := range one.RepoTags {
			m.Annotations = map[string]string{nameKey: tag}
			all = append(all, m)
		}
	}
	return all, nil
}

// others are the platforms that an image is for, if the node runs none of them. deep follows
// an index.
func (d documents) others(m ocispec.Descriptor, runs func(ocispec.Platform) bool, deep bool) []string {
	var its struct {
		Config    ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if m.Platform == nil && json.Unmarshal(d[m.Digest.String()], &its) == nil && its.Config.Digest != "" {
		var p ocispec.Platform
		if json.Unmarshal(d[its.Config.Digest.String()], &p) == nil && p.Architecture != "" {
			m.Platform = &p
		}
	}
	if m.Platform != nil {
		if runs(*m.Platform) || m.Platform.OS == "unknown" {
			return nil
		}
		return []string{platformName(*m.Platform)}
	}
	var all []string
	for _, one := range its.Manifests {
		if one.Platform != nil && one.Platform.OS == "unknown" {
			continue // an attestation
		}
		other := []string(nil)
		if deep {
			other = d.others(one, runs, false)
		}
		if len(other) == 0 {
			return nil
		}
		if name := other[0]; !slices.Contains(all, name) && len(all) < 16 {
			all = append(all, name)
		}
	}
	return all
}
