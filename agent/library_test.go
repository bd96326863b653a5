package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// library is a registry with a password, and what a test wants it to do wrong.
type library struct {
	host  string
	proxy http.Handler // the registry itself
	ca    string
	sizes sync.Map // of blobs by digest

	mu     sync.Mutex // guards what follows
	bend   func(w http.ResponseWriter, r *http.Request) bool
	bearer bool
	tokens string   // where requests for tokens are sent on to; "": nowhere
	ranges []string // of the requests for blobs
	asked  int
	sent   int64
}

func newLibrary(t *testing.T) *library {
	t.Helper()
	l := &library{proxy: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewUnstartedServer(l)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	must(t, err)
	l.host = u.Host
	l.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return l
}

func (l *library) access(user, password string) map[string]any {
	return map[string]any{"ca": l.ca, "user": user, "password": password}
}

func (l *library) reset() {
	l.forget()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bend, l.bearer = nil, false
}

// forget begins the counts anew.
func (l *library) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ranges, l.asked, l.sent = nil, 0, 0
}

// bends lets f answer instead; f returns false for what it leaves to the registry.
func (l *library) bends(f func(w http.ResponseWriter, r *http.Request) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bend = f
}

// seen returns how often it was asked, for which ranges, and how many bytes of blobs
// it sent.
func (l *library) seen() (int, []string, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked, append([]string(nil), l.ranges...), l.sent
}

func (l *library) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	bend, bearer, tokens := l.bend, l.bearer, l.tokens
	l.asked++
	l.mu.Unlock()
	if r.URL.Path == "/token" && tokens != "" {
		http.Redirect(w, r, tokens, http.StatusTemporaryRedirect)
		return
	}
	if r.URL.Path == "/token" {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			http.Error(w, "", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"token": "the-token"}`)
		return
	}
	u, p, ok := r.BasicAuth()
	switch {
	case bearer && r.Header.Get("Authorization") != "Bearer the-token":
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="test",scope="repository:a:pull"`, l.host))
		w.WriteHeader(http.StatusUnauthorized)
		return
	case !bearer && (!ok || u != user || p != password):
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		l.mu.Lock()
		l.ranges = append(l.ranges, r.Header.Get("Range"))
		l.mu.Unlock()
		w = &counted{w, l}
		l.whole(r)
	}
	if bend == nil || !bend(w, r) {
		l.proxy.ServeHTTP(w, r)
	}
}

// whole gives a range without an end the one that this registry asks for.
func (l *library) whole(r *http.Request) {
	if size, ok := l.sizes.Load(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]); ok && strings.HasSuffix(r.Header.Get("Range"), "-") {
		r.Header.Set("Range", fmt.Sprintf("%s%d", r.Header.Get("Range"), size.(int64)-1))
	}
}

type counted struct {
	http.ResponseWriter
	l *library
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.l.mu.Lock()
	c.l.sent += int64(n)
	c.l.mu.Unlock()
	return n, err
}

// limited is an answer that ends, with its connection, after so many bytes.
type limited struct {
	http.ResponseWriter
	left int
}

func (c *limited) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// push stores an image with these layers as ref and returns its digest and size.
func (l *library) push(t *testing.T, ref, arch string, layers ...v1.Layer) (v1.Hash, int64) {
	t.Helper()
	config := &v1.ConfigFile{OS: "linux", Architecture: arch, Config: v1.Config{Cmd: []string{"/app"}}}
	image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	must(t, err)
	image, err = mutate.AppendLayers(mutate.ConfigMediaType(image, types.OCIConfigJSON), layers...)
	must(t, err)
	var size int64
	for _, layer := range layers {
		data, err := layer.Compressed()
		must(t, err)
		size += l.store(t, ref, data)
	}
	raw, err := image.RawConfigFile()
	must(t, err)
	l.store(t, ref, io.NopCloser(bytes.NewReader(raw)))
	raw, err = image.RawManifest()
	must(t, err)
	l.put(t, ref, types.OCIManifestSchema1, raw)
	digest, err := image.Digest()
	must(t, err)
	return digest, size
}

// store puts a blob into the repository of ref and returns its size.
func (l *library) store(t *testing.T, ref string, data io.ReadCloser) int64 {
	t.Helper()
	blob, err := io.ReadAll(data)
	must(t, err)
	digest, size, err := v1.SHA256(bytes.NewReader(blob))
	must(t, err)
	repository, _, _ := strings.Cut(ref, ":")
	l.ask(t, httptest.NewRequest("POST", "/v2/"+repository+"/blobs/uploads/?digest="+digest.String(), bytes.NewReader(blob)))
	l.sizes.Store(digest.String(), size)
	return size
}

// put stores a manifest or an index as ref.
func (l *library) put(t *testing.T, ref string, kind types.MediaType, raw []byte) {
	t.Helper()
	repository, tag, _ := strings.Cut(ref, ":")
	req := httptest.NewRequest("PUT", "/v2/"+repository+"/manifests/"+tag, bytes.NewReader(raw))
	req.Header.Set("Content-Type", string(kind))
	l.ask(t, req)
}

func (l *library) ask(t *testing.T, req *http.Request) {
	t.Helper()
	w := httptest.NewRecorder()
	l.proxy.ServeHTTP(w, req)
	if w.Code != http.StatusCreated {
		t.Fatalf("%s %s: %d %s", req.Method, req.URL, w.Code, w.Body)
	}
}

// random is a layer of one file that cannot be compressed, and is not.
func random(t *testing.T, seed uint64, size int) v1.Layer {
	t.Helper()
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(size), byte(size >> 8), byte(size >> 16)})
	_, _ = source.Read(data)
	return static.NewLayer(tarOf(t, map[string][]byte{fmt.Sprintf("data%d", seed): data}), types.OCIUncompressedLayer)
}

// other is an architecture that no test runs on.
const other = "s390x"
