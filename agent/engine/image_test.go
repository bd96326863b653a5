package engine

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kogge.example/agent/workload"
)

// TestImageKeys: the table of an image's configuration has every key of the specification
// that this engine knows.
func TestImageKeys(t *testing.T) {
	var rows []string
	for _, k := range workload.ImageKeys() {
		if slices.Contains(rows, k.Path) || k.What == "" {
			t.Errorf("%+v", k)
		}
		rows = append(rows, k.Path)
	}
	var walk func(prefix string, of reflect.Type)
	walk = func(prefix string, of reflect.Type) {
		for i := range of.NumField() {
			field := of.Field(i)
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case field.Anonymous:
				walk(prefix, field.Type)
			case key == "config":
				walk("config.", field.Type)
			case !slices.Contains(rows, prefix+key):
				t.Errorf("the table lacks %s%s", prefix, key)
			}
		}
	}
	walk("", reflect.TypeFor[ocispec.Image]())
}

// TestImagesPage: kogge help image-keys names what is mounted, what is hidden and what can only
// be read in each container. What lies in /dev, and that all this is so in real ones, is in
// testdata of the agent.
func TestImagesPage(t *testing.T) {
	text, err := os.ReadFile("../../cmd/kogge/pages/image-keys.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	ctx := namespaces.WithNamespace(t.Context(), "kogge")
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: "web"}, oci.WithoutRunMount)
	if err != nil {
		t.Fatal(err)
	}
	named := func(what, path string) {
		t.Helper()
		if strings.HasPrefix(path, "/sys/devices/system/cpu/") {
			path = "/sys/devices/system/cpu/cpuN/thermal_throttle"
		}
		if !strings.Contains(page, "`"+path+"`") {
			t.Errorf("the page does not name %s, which is %s", path, what)
		}
	}
	for _, path := range s.Linux.MaskedPaths {
		named("hidden", path)
	}
	for _, path := range s.Linux.ReadonlyPaths {
		named("read-only", path)
	}
	e := &Engine{}
	for _, m := range append(s.Mounts, e.mounts(workload.Container{ID: "web"}, "web")...) {
		named("mounted", m.Destination)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr", "console"} {
		named("in every container", "/dev/"+name)
	}
}
