package registry

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"kogge.example/update/release"
	"kogge.example/update/release/remote"
	"kogge.example/update/verity"
)

// TestRelease reads a release from a registry as an update does, and goes on in the
// middle of a part by a range.
func TestRelease(t *testing.T) {
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var ranges atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "bytes=5-" {
			ranges.Add(1)
			r.Header.Set("Range", "bytes=5-8") // this registry wants an end
		}
		images.ServeHTTP(w, r)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")

	uki := []byte("boots 1.1")
	part := func(name string, content []byte) release.File {
		return release.File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
	}
	b, err := release.New([]release.Content{{
		Facts: release.Facts{Version: "1.1", Counter: 7, Board: "pc-x86_64", Arch: "amd64", Schema: release.StateSchema, Verity: verity.Params{Blocks: 1}.String()},
		Parts: []release.File{part("uki", uki), part(release.RootPart, make([]byte, verity.BlockSize))},
	}})
	if err == nil {
		err = b.Prepare(time.Now(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	to, err := remote.Open(host+"/os:1.1", nil)
	if err == nil {
		err = to.Push(t.Context(), b)
	}
	if err != nil {
		t.Fatal(err)
	}

	src, err := Registries{host: {Access: Access{Insecure: true}}}.OpenRelease(t.Context(), host+"/os:1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	read, err := release.Read(t.Context(), src)
	if err != nil || !bytes.Equal(read.Index, b.Index) {
		t.Fatalf("another release: %v", err)
	}
	body, err := src.Blob(t.Context(), read.Layers[0].Descriptor, 5)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, uki[5:]) || ranges.Load() != 1 {
		t.Errorf("from the middle: %q, %v, %d ranges", got, err, ranges.Load())
	}
	if _, err := (Registries{host: {Access: Access{Insecure: true}}}).OpenRelease(t.Context(), host+"/os:9.9"); !errors.Is(err, ErrMissing) {
		t.Errorf("a release that is not there: %v", err)
	}
}

// TestWebRelease: what is set for a host holds for its web server as well.
func TestWebRelease(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	host := strings.TrimPrefix(server.URL, "https://")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for _, test := range []struct {
		what, address string
		set           Registries
		want          string // in the error; all of them end without a release
	}{
		{"an authority that is set", server.URL + "/os", Registries{host: {Access: Access{CA: string(ca)}}}, "404"},
		{"one of another host", server.URL + "/os", Registries{"other:443": {Access: Access{CA: string(ca)}}}, "server is not trusted: x509"},
		{"none", server.URL + "/os", nil, "server is not trusted: x509"},
		{"plain HTTP", "http://192.0.2.1:1/os", nil, "server is not trusted: plain HTTP"},
		{"no address", "http://a b/", nil, "cannot be parsed"},
	} {
		src, err := test.set.OpenWebRelease(test.address)
		if err == nil {
			_, err = src.Index(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.what, err, test.want)
		}
	}
	if _, err := (Registries{"192.0.2.1:1": {Access: Access{Insecure: true}}}).OpenWebRelease("http://192.0.2.1:1/os"); err != nil {
		t.Errorf("plain HTTP of a host that is set to be insecure: %v", err)
	}
}
