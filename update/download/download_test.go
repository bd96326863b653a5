package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestTransport: what the other side sends is the bytes themselves, and keeps coming.
func TestTransport(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/encoding":
			fmt.Fprint(w, r.Header.Get("Accept-Encoding"))
		case "/encoded":
			w.Header().Set("Content-Encoding", "gzip")
		case "/stalls":
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-ctx.Done()
		case "/silent":
			<-ctx.Done()
		}
	}))
	defer server.Close()
	defer cancel() // before the server waits for its handlers
	for _, c := range []struct {
		path, body string
		stall      time.Duration
		want       error
	}{
		{"/encoding", "identity", time.Minute, nil},
		{"/encoded", "", time.Minute, ErrEncoding},
		{"/stalls", "half", time.Second, ErrStalled},
		{"/silent", "", time.Second, ErrStalled},
	} {
		web := &http.Client{Transport: &Transport{Base: &http.Transport{}, Stall: c.stall}}
		body, err := get(web, server.URL+c.path, 0)
		if body != c.body || !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %q, %v, want %q, %v", c.path, body, err, c.body, c.want)
		}
	}
}

// TestSlowReader: who reads slowly stalls nothing.
func TestSlowReader(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.CopyN(w, zeros{}, 4<<20)
	}))
	defer server.Close()
	const stall = 500 * time.Millisecond
	web := &http.Client{Transport: &Transport{Base: &http.Transport{}, Stall: stall}}
	body, err := get(web, server.URL, 2*stall)
	if len(body) != 4<<20 || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// get reads a body, and rests once before its first byte.
func get(web *http.Client, url string, rest time.Duration) (string, error) {
	resp, err := web.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	time.Sleep(rest) // the subject of TestSlowReader, no wait for a condition
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
