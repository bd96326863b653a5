package registry

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"kogge.example/update/download"
	"kogge.example/update/golden"
)

// TestExplain prints what the operator reads of an error, whether it is tried again
// at once, and whether what came is thrown away.
func TestExplain(t *testing.T) {
	status := func(code int, body string) error {
		return fmt.Errorf("failed to resolve reference %q: %w", "r.example/a:1", remoteerrors.ErrUnexpectedStatus{
			StatusCode: code, Body: []byte(body), RequestMethod: "GET", RequestURL: "https://cdn.example/a?X-Signature=hunter2",
		})
	}
	web := func(err error) error {
		return fmt.Errorf("failed to do request: %w", &url.Error{Op: "Get", URL: "https://cdn.example/a?X-Signature=hunter2", Err: err})
	}
	dial := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, Err: syscall.ECONNREFUSED}
	var b strings.Builder
	for _, err := range []error{
		status(401, ""), status(403, `{"errors":[{"code":"DENIED","message":"quota of\tn07\u0007 used up"}]}`), status(404, "no such page"),
		status(429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`), status(500, "<html>\n"+strings.Repeat("long ", 100)), status(418, `{"details":"teapot"}`),
		web(dial), web(io.EOF), web(download.ErrStalled), web(errPlain), web(errEndless),
		web(&tls.CertificateVerificationError{Err: errors.New("x509: certificate signed by unknown authority")}),
		web(&net.OpError{Op: "remote error", Err: tls.AlertError(40)}),
		web(&net.DNSError{Err: "no such host", Name: "r.example", IsNotFound: true}),
		web(&net.DNSError{Err: "server misbehaving", Name: "r.example", IsTemporary: true}),
		fmt.Errorf("failed to copy: %w", io.ErrUnexpectedEOF),
		fmt.Errorf("read tcp: %w", syscall.ECONNRESET),
		fmt.Errorf("pull access denied: %w", docker.ErrInvalidAuthorization),
		fmt.Errorf("a:1: %w", errdefs.ErrNotFound),
		errors.New("rpc error: write /x: no space left on device"),
		fmt.Errorf("%w: linux/s390x", ErrPlatform),
		fmt.Errorf("containerd: %w", errdefs.ErrUnavailable),
	} {
		got := Explain(err)
		fmt.Fprintf(&b, "%v\n    again %t, keep %t\n", got, Transient(got), !Final(got))
	}
	golden.Compare(t, "explain.txt", b.String())
}

// FuzzSaid: what a registry says is one line for a terminal, and not long.
func FuzzSaid(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"DENIED","message":"quota\nof \u001b[31mn07"}],"details":"x"}`))
	f.Add([]byte("<html>\x1b]0;title\x07</html>"))
	f.Add([]byte("\xff\xfe\u202e"))
	f.Fuzz(func(t *testing.T, body []byte) {
		text := said(body)
		if n := utf8.RuneCountInString(text); n > 201 {
			t.Errorf("%d characters", n)
		}
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Errorf("%U in %q", r, text)
			}
		}
	})
}

// FuzzRegistryName: what a registry may be called names itself.
func FuzzRegistryName(f *testing.F) {
	for _, name := range []string{"docker.io", "r.example:5000", "[::1]:5000", "u:hunter2@r.example", "https://r.example", "localhost"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		host, err := Name(name)
		if err != nil {
			return
		}
		if again, err := Name(host); err != nil || again != host {
			t.Errorf("%q is %q, which is %q, %v", name, host, again, err)
		}
		if err := (Registry{}).check(host); err != nil {
			t.Errorf("%q is %q, which settings refuse: %v", name, host, err)
		}
	})
}

// TestGuard: what a registry may not do to us, beside what update/download sees to.
func TestGuard(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/a/blobs/1":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case "/v2/a/manifests/2":
			http.Redirect(w, r, "/v2/a/blobs/2", http.StatusTemporaryRedirect)
		case "/elsewhere", "/v2/a/manifests/1", "/v2/a/blobs/2":
			_, _ = io.CopyN(w, zeros{}, MaxDocument+1000)
		case "/v2/a/manifests/3", "/v2/a/blobs/3":
			_, _ = io.WriteString(w, strings.Repeat("{},", MaxParts+1000))
		case "/plain":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	web := &http.Client{Transport: &guard{base: &http.Transport{}, plain: strings.TrimPrefix(server.URL, "http://")}}
	for _, c := range []struct {
		path string
		size int
		want error
	}{
		{"/v2/a/blobs/1", MaxDocument + 1000, nil}, // its reader knows the size
		{"/v2/a/manifests/1", MaxDocument, errEndless},
		{"/v2/a/manifests/2", MaxDocument, errEndless},
		{"/v2/a/blobs/3", 3 * (MaxParts + 1000), nil},
		{"/v2/a/manifests/3", 3 * MaxParts, errMany},
		{"/plain", 0, errPlain},
	} {
		resp, err := web.Get(server.URL + c.path)
		n := int64(0)
		if err == nil {
			n, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if !errors.Is(err, c.want) || c.want == nil && n != int64(c.size) || n > int64(c.size) {
			t.Errorf("%s: %d bytes, %v, want %d, %v", c.path, n, err, c.size, c.want)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
