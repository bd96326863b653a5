package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"

	"kogge.example/agent/tarball"
	"kogge.example/update/download"
)

// MaxDocument is the size of the largest manifest, configuration or token, in bytes.
const MaxDocument = tarball.MaxDocument

// MaxParts is how many commas one may have, and so parts: each is two bytes, and a hundred
// and more once it is read.
const MaxParts = tarball.MaxParts

var (
	errPlain   = errors.New("plain HTTP is allowed only where the settings say insecure")
	errInside  = errors.New("leads to this node's own loopback, which its name does not say")
	errEndless = fmt.Errorf("answer is longer than %d bytes", MaxDocument)
	errMany    = fmt.Errorf("answer has more than %d parts", MaxParts)
)

// guard lets nobody but us decide what a registry's answer costs: it bounds every
// body that is not bounded by a digest's size, and follows no redirection to plain HTTP.
type guard struct {
	base  http.RoundTripper
	plain string                   // the host that plain HTTP is allowed to
	sends func(blob digest.Digest) // told of blobs that come; may be nil
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && req.URL.Host != g.plain {
		return nil, fmt.Errorf("%s: %w", req.URL.Host, errPlain)
	}
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if name, ok := blob(req); !ok {
		resp.Body = &document{resp.Body, MaxDocument, MaxParts}
	} else if g.sends != nil && resp.StatusCode < http.StatusMultipleChoices {
		g.sends(name)
	}
	return resp, nil
}

// blob returns which blob a request, or the first of those that were redirected to it,
// is for, if its reader knows the size. Where a name is looked up as a blob, which
// happens for digests, it is not known.
func blob(req *http.Request) (digest.Digest, bool) {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	ok := path.Base(path.Dir(req.URL.Path)) == "blobs" && !strings.Contains(req.Header.Get("Accept"), "manifest")
	return digest.Digest(path.Base(req.URL.Path)), ok
}

// document is an answer that may not be longer than left, nor have more commas than parts.
type document struct {
	io.ReadCloser
	left  int64
	parts int
}

func (d *document) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p[:min(int64(len(p)), d.left+1)])
	if int64(n) > d.left {
		return 0, errEndless
	}
	if d.parts -= bytes.Count(p[:n], []byte(",")); d.parts < 0 {
		return 0, errMany
	}
	d.left -= int64(n)
	return n, err
}

// servers are the servers of one registry, with the connections to them.
type servers struct {
	Hosts []docker.RegistryHost
	close []func()
}

// Open makes ready to speak to the servers of the registry host. sends is told which
// server sends a blob.
func (r Registries) Open(host string, mirrors bool, sends func(blob digest.Digest, host string)) (*servers, error) {
	endpoints, err := r.endpoints(host, mirrors)
	if err != nil {
		return nil, err
	}
	var s servers
	for _, e := range endpoints {
		pool, err := e.authorities()
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", e.host, err)
		}
		base := &http.Transport{
			DialContext:         download.Dial(&net.Dialer{Timeout: 10 * time.Second, Control: outside(e.host)}),
			TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 15 * time.Second,
			IdleConnTimeout:     30 * time.Second,
			// Layers come beside each other over HTTP/1.1, a connection for each: that
			// costs less than the frames of HTTP/2.
			MaxIdleConnsPerHost: MaxDownloads,
			ReadBufferSize:      64 << 10,
		}
		s.close = append(s.close, base.CloseIdleConnections)
		g := &guard{base: &download.Transport{Base: base, Stall: download.Stall}, sends: func(blob digest.Digest) { sends(blob, e.host) }}
		if e.scheme == "http" {
			g.plain = e.host
		}
		web := &http.Client{Transport: g, CheckRedirect: follow}
		s.Hosts = append(s.Hosts, docker.RegistryHost{
			Client: web, Host: e.host, Scheme: e.scheme, Path: e.path,
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(web), docker.WithAuthCreds(e.credentials)),
		})
	}
	return &s, nil
}

// outside keeps connections away from the node's own loopback, to which a name, or a
// redirection of somebody else's, may lead, unless host is there by its name.
func outside(host string) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		if to, err := netip.ParseAddrPort(address); err != nil || inside(to.Addr()) && !Loopback(host) {
			return errInside
		}
		return nil
	}
}

// maxRedirects is how often one request is sent elsewhere.
const maxRedirects = 10

var (
	errCircle = fmt.Errorf("redirects more than %d times", maxRedirects)
	errCarry  = errors.New("redirects a request with credentials to another server")
)

// follow goes where a redirection leads, and shows credentials to the server that they
// are for and to no other: neither to a part of its domain, nor to another of its ports.
func follow(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("%s %w", via[0].URL.Host, errCircle)
	}
	if first := via[0].URL; req.URL.Scheme == first.Scheme && req.URL.Host == first.Host {
		return nil
	}
	req.Header.Del("Authorization")
	if req.Body != nil {
		return fmt.Errorf("%s %w", via[0].URL.Host, errCarry) // a password is exchanged for a token in a body
	}
	return nil
}

// Check asks the registry host, and not its mirrors, whether it lets in who comes with
// this access.
func (a Access) Check(ctx context.Context, host string) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrSettings, err)
	}
	servers, err := Registries{host: {Access: a}}.Open(host, false, func(digest.Digest, string) {})
	if err != nil {
		return err
	}
	defer servers.Close()
	server := servers.Hosts[0]
	refused, err := knock(ctx, server)
	if err == nil && refused != nil { // it wants to see them first
		if err = server.Authorizer.AddResponses(ctx, []*http.Response{refused}); err == nil {
			refused, err = knock(ctx, server)
		}
	}
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return fmt.Errorf("%s: %w", server.Host, ErrDenied)
	case err != nil:
		return Explain(err)
	case refused != nil:
		return &answer{host: server.Host, code: refused.StatusCode}
	}
	return nil
}

// knock makes a request that means nothing, and returns the answer if that wants
// credentials, or other ones.
func knock(ctx context.Context, server docker.RegistryHost) (refused *http.Response, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.Scheme+"://"+server.Host+server.Path+"/", nil)
	if err != nil {
		return nil, err
	}
	if err := server.Authorizer.Authorize(ctx, req); err != nil {
		return nil, err
	}
	resp, err := server.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil, nil
	case http.StatusUnauthorized:
		return resp, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return nil, err
	}
	return nil, &answer{host: server.Host, code: resp.StatusCode, words: said(body)}
}

// credentials are for the endpoint itself; where it redirects to has none.
func (e endpoint) credentials(host string) (user, password string, err error) {
	if host != e.host {
		return "", "", nil
	}
	return e.User, string(e.Password), nil
}

// Close ends the connections that are not in use.
func (s *servers) Close() {
	for _, c := range s.close {
		c()
	}
}
