package tarball

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/imageref"
)

// ErrPlatform means that an image is not for this node.
var ErrPlatform = errors.New("image is for another platform")

// nameKey is the annotation of a manifest with the name of its image.
//
// Source: AnnotationImageName in core/images of containerd.
const nameKey = "io.containerd.image.name"

// refusal is what is wrong with a tar, whenever it is looked at.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Refuse says of err that it is the fault of the tar: whoever reads it again finds the same.
func Refuse(err error) error { return refusal{err} }

// Refused says whether err is the fault of the tar.
func Refused(err error) bool { return errors.As(err, new(refusal)) }

// Image is one of a tar.
type Image struct {
	Name     string // in full
	Manifest ocispec.Descriptor
}

// Pick picks of the manifests in a tar those with a name, and of several with the same one the
// last that runs on the node, which is called here ("linux/arm64").
func Pick(manifests []ocispec.Descriptor, runs func(ocispec.Platform) bool, here string) ([]Image, error) {
	var found []Image
	other := make(map[string]string) // platform by name
	for _, m := range manifests {
		name, err := called(m)
		if err != nil {
			return nil, Refuse(err)
		}
		if name == "" {
			continue
		}
		if m.Platform != nil && !runs(*m.Platform) {
			other[name] = platformName(*m.Platform)
			continue
		}
		if pin := imageref.Pin(name); pin != "" && pin != m.Digest {
			return nil, Refuse(fmt.Errorf("image %s: it is another one, %s: give it a name with a tag, or save all that its digest stands for (skopeo copy --all)", name, m.Digest))
		}
		found = slices.DeleteFunc(found, func(i Image) bool { return i.Name == name })
		found = append(found, Image{name, m})
	}
	for _, i := range found {
		delete(other, i.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		return nil, Refuse(isFor(name, other[name], here))
	}
	if len(found) == 0 {
		return nil, Refuse(errors.New("it has no image with a name: save it by name and tag (docker save NAME:TAG), or give a manifest of its index.json the annotation " + nameKey))
	}
	return found, nil
}

func isFor(name, platforms, here string) error {
	return fmt.Errorf("image %s: %w: it is for %s, this node is %s", name, ErrPlatform, platforms, here)
}

// platformName is a platform in a line: "linux/arm/v7".
func platformName(p ocispec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return fmt.Sprintf("%.100s", name)
}

// called is the full name of the image that a manifest of a tar is: what a Compose file means
// by what stands there. "": it has none.
func called(m ocispec.Descriptor) (string, error) {
	ref := fullName(m.Annotations[ocispec.AnnotationRefName])
	name := m.Annotations[nameKey]
	if name == "" {
		return ref, nil
	}
	full, err := imageref.Full(name)
	if err != nil && ref != "" {
		return ref, nil
	}
	return full, err
}

// fullName makes the name of an image in a layout ("hello:1", or a bare tag) what
// a Compose file means by it; a name that is none is not imported.
func fullName(name string) string {
	if !strings.ContainsAny(name, ":/@") {
		return "" // a bare tag names no image
	}
	full, err := imageref.Full(name)
	if err != nil {
		return ""
	}
	return full
}
