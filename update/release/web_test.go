package release

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kogge.example/update/download"
)

// served is a release in a folder that a web server shows.
func served(t *testing.T, wrap func(http.Handler) http.Handler) (*httptest.Server, []byte) {
	t.Helper()
	dir := t.TempDir()
	must(t, bundle(t, "1.1", 7, "targets-1", "targets-2").Write(t.Context(), dir))
	server := httptest.NewTLSServer(wrap(http.StripPrefix("/os/1.1", http.FileServer(http.Dir(dir)))))
	t.Cleanup(server.Close)
	return server, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// TestWeb installs from a web server, and goes on in the middle, with a server that
// knows ranges and one that does not.
func TestWeb(t *testing.T) {
	for name, ranges := range map[string]bool{"with ranges": true, "without": false} {
		var sent atomic.Int64
		server, ca := served(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !ranges {
					r.Header.Del("Range")
				}
				if r.Header.Get("Range") != "" {
					sent.Add(1)
				}
				next.ServeHTTP(w, r)
			})
		})
		src, err := OpenWeb(server.URL+"/os/1.1", Access{CA: ca})
		must(t, err)
		defer src.Close()
		r, err := Verify(t.Context(), src, root(t), created, "qemu-x86_64")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := install(t, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		body, err := r.Open(t.Context(), RootPart, 5000)
		must(t, err)
		got, err := io.ReadAll(body)
		must(t, errors.Join(err, body.Close()))
		if int64(len(got)) != r.Facts.Parts[1].Size-5000 || (sent.Load() > 0) != ranges {
			t.Errorf("%s: %d bytes from the middle, %d ranges", name, len(got), sent.Load())
		}
	}
}

// TestBadServers has servers that lie, stall, or send without end.
func TestBadServers(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		line := bytes.Repeat([]byte(" "), 1<<16)
		for {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name, says string
		at         string // which file; "" is all
		answer     http.HandlerFunc
	}{
		{"nothing there", "not an OCI image layout", "", http.NotFound},
		{"server is sick", "500 Internal Server Error", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"endless layout", "more than 262144 bytes", "oci-layout", endless},
		{"endless index", "more than 262144 bytes", "index.json", endless},
		{"endless blob", "more than", "blobs", endless},
		{"stalls", "no data for a minute", "index.json", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"stalls before it answers", "no data for a minute", "index.json", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"circle", "redirects more than 10 times", "index.json", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}},
		{"to plain HTTP", "plain HTTP", "index.json", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}},
		{"to this machine", "plain HTTP", "index.json", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/admin?do=it", http.StatusFound)
		}},
		{"compressed", "encoding that was not asked for", "index.json", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(200)
		}},
		{"breaks off", "unexpected EOF", "index.json", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "700")
			_, _ = w.Write([]byte("{"))
		}},
	} {
		server, ca := served(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/os/1.1/"+c.at) {
					c.answer(w, r)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		src, err := OpenWeb(server.URL+"/os/1.1/", Access{CA: ca})
		must(t, err)
		if strings.HasPrefix(c.name, "stalls") {
			src.client.Transport.(*download.Transport).Stall = 300 * time.Millisecond
		}
		if _, err := Verify(t.Context(), src, root(t), created, "qemu-x86_64"); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		must(t, src.Close())
	}
}

// TestWrongRange sends another part of the file than was asked for.
func TestWrongRange(t *testing.T) {
	server, ca := served(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=1-")
			}
			next.ServeHTTP(w, r)
		})
	})
	src, err := OpenWeb(server.URL+"/os/1.1", Access{CA: ca})
	must(t, err)
	r, err := Verify(t.Context(), src, root(t), created, "qemu-x86_64")
	must(t, err)
	if _, err := r.Open(t.Context(), RootPart, 5000); err == nil || !strings.Contains(err.Error(), "asked for bytes 5000-") {
		t.Errorf("another range: %v", err)
	}
}

// TestAddresses opens what is no place of a release.
func TestAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://releases.example/os/1.1": true, "https://releases.example": true, "http://127.0.0.1:8080/x": true, "http://localhost/x": true, "http://[::1]/x": true,
		"http://releases.example/": false, "http://192.0.2.1/": false, "ftp://releases.example/": false, "releases.example/os": false, "https://": false,
		"https://releases.example/?q": false, "https://ada:secret@releases.example/os": false, "https://releases.example/#q": false, "://": false, "": false,
	} {
		if _, err := OpenWeb(address, Access{}); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
	for address, ok := range map[string]bool{"http://192.0.2.1/os": true, "https://192.0.2.1/os": true, "ftp://192.0.2.1/os": false} {
		if _, err := OpenWeb(address, Access{Plain: true}); (err == nil) != ok {
			t.Errorf("%q of an insecure host: %v", address, err)
		}
	}
	if _, err := OpenWeb("https://releases.example", Access{CA: []byte("hello")}); err == nil {
		t.Error("any text is a CA")
	}
	server, _ := served(t, func(next http.Handler) http.Handler { return next })
	server.Config.ErrorLog = nil
	src, err := OpenWeb(server.URL+"/os/1.1", Access{})
	must(t, err)
	if _, err := src.Index(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("server of an unknown CA: %v", err)
	}
}
