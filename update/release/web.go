package release

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kogge.example/update/download"
)

// Layout is a release in an OCI image layout over any files. open opens one from
// offset on; its name is a path with slashes, and one that is not there is
// [fs.ErrNotExist].
func Layout(open func(ctx context.Context, name string, offset int64) (io.ReadCloser, error)) Source {
	return layout{open}
}

// Web is a layout in a folder of a web server.
type Web struct {
	layout
	base   *url.URL
	client *http.Client
}

const maxRedirects = 10

// ErrServer says that a web server is not trusted: its certificate is from nobody that is
// known, or it has none.
var ErrServer = errors.New("server is not trusted")

var (
	errPlain  = fmt.Errorf("%w: plain HTTP", ErrServer)
	errCircle = fmt.Errorf("redirects more than %d times", maxRedirects)
)

// Access is how a web server is spoken to.
type Access struct {
	CA    []byte // certificates in PEM that are believed beside the system's; nil for none
	Plain bool   // plain HTTP may be spoken to it
}

// OpenWeb names a layout by the URL of its folder: https; or http to this machine, or
// where access allows that. Nothing is asked of the server yet.
func OpenWeb(address string, access Access) (*Web, error) {
	base, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("release: %w", err)
	case base.Scheme != "https" && base.Scheme != "http" || base.Host == "":
		return nil, fmt.Errorf("release %s: want https://HOST/FOLDER", base.Redacted())
	case base.User != nil:
		return nil, fmt.Errorf("release %s: an address with a password is not accepted", base.Redacted())
	case base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("release %s: a folder has no ? and no #", base.Redacted())
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         download.Dial(&net.Dialer{Timeout: 10 * time.Second}),
		TLSHandshakeTimeout: 15 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if access.CA != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("release: authorities: %w", err)
		}
		if !pool.AppendCertsFromPEM(access.CA) {
			return nil, errors.New("release: the CA is not a certificate in PEM")
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	// Plain HTTP leads nowhere but to the server that was named: what else this machine
	// listens for is nobody's to call.
	check := func(u *url.URL) error {
		if u.Scheme == "http" && u.Host == base.Host && (access.Plain || loopback(u)) || u.Scheme == "https" {
			return nil
		}
		return fmt.Errorf("%s: %w", u.Redacted(), errPlain)
	}
	w := &Web{base: base}
	w.client = &http.Client{Transport: &download.Transport{Base: transport, Stall: download.Stall}, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return errCircle
		}
		return check(req.URL)
	}}
	w.layout = layout{w.get}
	return w, check(base)
}

// loopback says whether a URL is of this machine. Elsewhere anybody on the way could change
// what comes over plain HTTP: the signatures would show it, but an update could be held
// back for ever.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip.IsLoopback()
}

// Close ends the connections that are not in use.
func (w *Web) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

// get asks for a file of the layout. A server that knows no ranges sends it whole, and
// what comes before offset is thrown away.
func (w *Web) get(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	at := w.base.JoinPath(strings.Split(name, "/")...)
	body, err := w.ask(ctx, at, offset)
	if err == nil {
		return body, nil
	}
	if by := (*url.Error)(nil); errors.As(err, &by) { // which repeats the address
		err = by.Err
	}
	if unknown := (*tls.CertificateVerificationError)(nil); errors.As(err, &unknown) {
		err = fmt.Errorf("%w: %w", ErrServer, unknown.Err)
	}
	return nil, fmt.Errorf("%s: %w", at.Redacted(), err)
}

func (w *Web) ask(ctx context.Context, at *url.URL, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	skip, err := begins(resp, offset)
	if err == nil {
		_, err = io.CopyN(io.Discard, resp.Body, skip)
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// begins says how many bytes of an answer come before those that were asked for.
func begins(resp *http.Response, offset int64) (int64, error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return offset, nil
	case http.StatusPartialContent:
		if want := fmt.Sprintf("bytes %d-", offset); !strings.HasPrefix(resp.Header.Get("Content-Range"), want) {
			return 0, fmt.Errorf("asked for %s, it sends %.40q", want, resp.Header.Get("Content-Range"))
		}
		return 0, nil
	case http.StatusNotFound, http.StatusGone:
		return 0, fmt.Errorf("%s: %w", resp.Status, fs.ErrNotExist)
	}
	return 0, errors.New(resp.Status)
}
