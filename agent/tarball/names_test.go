package tarball

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/imageref"
)

func anything(ocispec.Platform) bool { return true }

// TestPick: an image of an archive has the full name that a Compose file means by what
// stands there, once, or is refused.
func TestPick(t *testing.T) {
	its := digest.FromString("its")
	named := func(name, ref string) ocispec.Descriptor {
		m := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: its, Annotations: map[string]string{}}
		for key, value := range map[string]string{nameKey: name, ocispec.AnnotationRefName: ref} {
			if value != "" {
				m.Annotations[key] = value
			}
		}
		return m
	}
	other := digest.FromString("another")
	pin := func(d digest.Digest) string { return "example.invalid/a:1@" + d.String() }
	const none = "it has no image with a name"
	for what, c := range map[string]struct {
		all  []ocispec.Descriptor
		want []string
		err  string
	}{
		"full":                  {[]ocispec.Descriptor{named("example.invalid/a:1", "1")}, []string{"example.invalid/a:1"}, ""},
		"short":                 {[]ocispec.Descriptor{named("short:1", "")}, []string{"docker.io/library/short:1"}, ""},
		"without a tag":         {[]ocispec.Descriptor{named("example.invalid/a", "")}, []string{"example.invalid/a:latest"}, ""},
		"in two ways":           {[]ocispec.Descriptor{named("short:1", ""), named("docker.io/short:1", ""), named("", "library/short:1")}, []string{"docker.io/library/short:1"}, ""},
		"two names":             {[]ocispec.Descriptor{named("b:1", ""), named("a:1", "")}, []string{"docker.io/library/b:1", "docker.io/library/a:1"}, ""},
		"by its ref":            {[]ocispec.Descriptor{named("", "hello:1")}, []string{"docker.io/library/hello:1"}, ""},
		"none, and a ref":       {[]ocispec.Descriptor{named("UPPER:1", "hello:1")}, []string{"docker.io/library/hello:1"}, ""},
		"none, and a bare tag":  {[]ocispec.Descriptor{named("UPPER:1", "1")}, nil, `image name "UPPER:1"`},
		"upper case":            {[]ocispec.Descriptor{named("Example.invalid/UPPER:1", "")}, nil, `image name "Example.invalid/UPPER:1": invalid reference format`},
		"lines":                 {[]ocispec.Descriptor{named("a b\x1b[31m\nc", "")}, nil, `image name "a b\x1b[31m\nc"`},
		"half a digest":         {[]ocispec.Descriptor{named("x@sha256:abc", "")}, nil, `image name "x@sha256:abc"`},
		"endless":               {[]ocispec.Descriptor{named(strings.Repeat("A", 8<<20), "")}, nil, "has 8388608 bytes"},
		"beside a good one":     {[]ocispec.Descriptor{named("good:1", ""), named("UPPER:1", "")}, nil, `image name "UPPER:1"`},
		"its digest":            {[]ocispec.Descriptor{named(pin(its), "")}, []string{"example.invalid/a@" + its.String()}, ""},
		"its digest, by ref":    {[]ocispec.Descriptor{named("", pin(its))}, []string{"example.invalid/a@" + its.String()}, ""},
		"another digest":        {[]ocispec.Descriptor{named(pin(other), "")}, nil, "image example.invalid/a@" + other.String() + ": it is another one, " + its.String()},
		"another one, by ref":   {[]ocispec.Descriptor{named("", pin(other))}, nil, "it is another one"},
		"another digest, short": {[]ocispec.Descriptor{named("good:1", ""), named("a@"+other.String(), "")}, nil, "image docker.io/library/a@" + other.String() + ": it is another one"},
		"no name":               {[]ocispec.Descriptor{named("", "")}, nil, none},
		"a bare tag":            {[]ocispec.Descriptor{named("", "1.0")}, nil, none},
		"nothing":               {nil, nil, none},
	} {
		found, err := Pick(c.all, anything, "linux/amd64")
		var got []string
		for _, i := range found {
			got = append(got, i.Name)
		}
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %.300v, want %q, %q", what, got, err, c.want, c.err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: an error of %d bytes", what, len(err.Error()))
		}
	}
}

// FuzzPick: no words of an archive make it panic, and what it finds has a full name.
func FuzzPick(f *testing.F) {
	for _, s := range []string{"", "short:1", "UPPER:1", "x@sha256:abc", "1.0", "a b\x1b[31m\nc"} {
		f.Add(s, "hello:1")
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, name, ref string) {
		found, _ := Pick([]ocispec.Descriptor{{Annotations: map[string]string{nameKey: name, ocispec.AnnotationRefName: ref}}}, anything, "linux/amd64")
		for _, i := range found {
			if full, err := imageref.Full(i.Name); err != nil || full != i.Name {
				t.Errorf("%q, %q: the image has the name %q, and in full %q, %v", name, ref, i.Name, full, err)
			}
		}
	})
}

// TestBareTag: an archive that names its image by a tag alone names none.
func TestBareTag(t *testing.T) {
	if got := fullName("1.0"); got != "" {
		t.Errorf("a bare tag became the image %q", got)
	}
}
