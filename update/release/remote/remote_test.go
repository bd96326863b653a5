package remote

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	ggcr "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"kogge.example/update/release"
	"kogge.example/update/verity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made is a release for two boards, without signatures.
func made(t *testing.T) *release.Bundle {
	t.Helper()
	part := func(name string, content []byte) release.File {
		return release.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
	}
	var contents []release.Content
	for _, board := range []string{"pc-x86_64", "qemu-arm64"} {
		contents = append(contents, release.Content{
			Facts: release.Facts{Version: "1.1", Counter: 7, Board: board, Arch: "amd64", Schema: release.StateSchema, Verity: verity.Params{Blocks: 1}.String()},
			Parts: []release.File{part("uki", []byte("boots "+board)), part(release.RootPart, bytes.Repeat([]byte(board[:1]), verity.BlockSize))},
		})
	}
	b, err := release.New(contents)
	must(t, err)
	must(t, b.Prepare(time.Now(), nil))
	return b
}

// serve is a registry in memory.
func serve(t *testing.T, start func(*httptest.Server)) *httptest.Server {
	t.Helper()
	quiet := log.New(io.Discard, "", 0)
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(quiet)))
	server.Config.ErrorLog = quiet
	start(server)
	t.Cleanup(server.Close)
	return server
}

// tar is a release as the bytes that a tar of it has.
func tar(t *testing.T, b *release.Bundle) []byte {
	t.Helper()
	var buf bytes.Buffer
	must(t, b.WriteTar(t.Context(), &buf))
	return buf.Bytes()
}

// TestRoundTrip sends a release to a registry with a CA of its own, twice, and gets
// the same bytes back.
func TestRoundTrip(t *testing.T) {
	server := serve(t, (*httptest.Server).StartTLS)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	place := server.Listener.Addr().String() + "/os:1.1"
	b := made(t)
	r, err := Open(place, ca)
	must(t, err)
	if _, err := release.Read(t.Context(), r); err == nil {
		t.Error("a release is there before it was sent")
	}
	must(t, r.Push(t.Context(), b))
	must(t, r.Push(t.Context(), b))
	back, err := release.Read(t.Context(), r)
	must(t, err)
	if !bytes.Equal(tar(t, back), tar(t, b)) {
		t.Error("another release comes back")
	}
	stranger, err := Open(place, nil)
	must(t, err)
	if err := stranger.Push(t.Context(), b); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the CA: %v", err)
	}
	for _, reference := range []string{"", "os", "registry.example/os", "Registry.Example/OS:1.1", "https://registry.example/os:1.1"} {
		if _, err := Open(reference, nil); err == nil {
			t.Errorf("%q is a reference", reference)
		}
	}
	if _, err := Open(place, []byte("hello")); err == nil {
		t.Error("any text is a CA")
	}
}

// TestOtherTools has tools that we did not write read a layout, and carry it to a
// registry and back: the manifests stay the same. skopeo writes the index anew.
func TestOtherTools(t *testing.T) {
	b := made(t)
	dir := filepath.Join(t.TempDir(), "release")
	must(t, b.Write(t.Context(), dir))

	index, err := ggcr.ImageIndexFromPath(dir)
	must(t, err)
	must(t, validate.Index(index, validate.Fast)) // slow is to unpack layers, which are no tars
	outer, err := index.IndexManifest()
	must(t, err)
	inner, err := index.ImageIndex(outer.Manifests[0].Digest)
	must(t, err)
	manifests, err := partial.Manifests(inner)
	must(t, err)
	for _, m := range manifests {
		if kind, err := m.MediaType(); err != nil || kind != types.OCIManifestSchema1 {
			t.Errorf("manifest of type %s, %v", kind, err)
		}
	}
	if len(manifests) != 3 {
		t.Errorf("%d manifests", len(manifests))
	}

	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Fatalf("%v (make test-deps installs it)", err)
	}
	server := serve(t, (*httptest.Server).Start)
	place := "docker://" + server.Listener.Addr().String() + "/os:1.1"
	back := filepath.Join(t.TempDir(), "back")
	policy := filepath.Join(t.TempDir(), "policy.json")
	must(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	skopeo := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "skopeo", append([]string{"--policy", policy}, args...)...).Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, exit.Stderr)
			}
			t.Fatalf("skopeo %s: %v", strings.Join(args, " "), err)
		}
		return string(out)
	}
	skopeo("copy", "--all", "--dest-tls-verify=false", "oci:"+dir, place)
	if raw := skopeo("inspect", "--raw", "--tls-verify=false", place); !strings.Contains(raw, b.Digest("qemu-arm64")) {
		t.Errorf("skopeo shows another index: %s", raw)
	}
	r, err := Open(server.Listener.Addr().String()+"/os:1.1", nil)
	must(t, err)
	from, err := release.Read(t.Context(), r)
	must(t, err)
	if !bytes.Equal(tar(t, from), tar(t, b)) {
		t.Error("what skopeo sent is another release")
	}
	skopeo("copy", "--all", "--src-tls-verify=false", place, "oci:"+back)
	src, err := release.Open(back)
	must(t, err)
	defer src.Close()
	read, err := release.Read(t.Context(), src)
	must(t, err)
	if !bytes.Equal(tar(t, read), tar(t, b)) {
		t.Error("what skopeo brought is another release")
	}
}

// TestPlainHTTP: neither a release nor a password goes over plain HTTP to another computer.
func TestPlainHTTP(t *testing.T) {
	asked := false
	g := guarded{trip(func(r *http.Request) (*http.Response, error) {
		asked = true
		return nil, errors.New("asked")
	})}
	for url, goes := range map[string]bool{
		"http://10.0.0.1:5000/v2/": false, "http://192.168.1.9/v2/": false, "http://x.localhost/v2/": false, "http://registry.example/v2/": false,
		"http://127.0.0.1:5000/v2/": true, "http://[::1]:5000/v2/": true, "http://localhost:5000/v2/": true, "https://10.0.0.1:5000/v2/": true,
	} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		must(t, err)
		asked = false
		if _, err := g.RoundTrip(r); asked != goes || err == nil {
			t.Errorf("%s: asked %v, %v", url, asked, err)
		}
	}
}

type trip func(*http.Request) (*http.Response, error)

func (t trip) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }
