package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/identity"
)

// guard lets a call through if its caller may make it. It looks at nothing but the
// path and the certificate, so what a stranger sends is never read.
type guard struct {
	methods map[string]method
	node    *identity.Node
	// clockSure says whether the node's clock may refuse a certificate.
	clockSure func() bool
	now       func() time.Time
	errors    *connect.ErrorWriter
	calls     calls
}

func newGuard(node *identity.Node, clockSure func() bool) *guard {
	return &guard{methods: methods(), node: node, clockSure: clockSure, now: time.Now, errors: connect.NewErrorWriter()}
}

// errNotAdopted is the answer of a node that belongs to no fleet yet.
var errNotAdopted = errors.New("this node belongs to no fleet yet: kogge node adopt")

// errNoCertificate is the answer to a caller without one.
var errNoCertificate = errors.New("a client certificate is required: the fleet's operator CA signs it")

// admit says why the caller may not make the call, or nil, and who it is.
func (g *guard) admit(path string, state *tls.ConnectionState) (identity.Peer, error) {
	m, known := g.methods[path]
	if !known {
		return identity.Peer{}, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("there is no method %s", path))
	}
	genesis := g.node.Genesis()
	switch {
	case genesis == nil:
		return identity.Peer{}, connect.NewError(connect.CodeFailedPrecondition, errors.New("this node has no join.yaml, so it knows nobody: kogge fleet token makes one"))
	case state == nil || len(state.PeerCertificates) == 0:
		return identity.Peer{}, connect.NewError(connect.CodeUnauthenticated, errNoCertificate)
	}
	certificates := state.PeerCertificates
	peer, err := genesis.VerifyPeer(certificates[0], certificates[1:], g.now(), g.clockSure(), g.node.Revoked)
	switch {
	case err != nil:
		return peer, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("your certificate: %w", err))
	case peer.Kind != identity.KindOperator:
		return peer, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s is a node: nodes do not operate each other", peer.Name))
	case !peer.Role.AtLeast(m.least):
		return peer, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s is %s: this needs %s", peer.Name, peer.Role, m.least))
	case !g.node.Adopted() && !m.beforeAdoption:
		return peer, connect.NewError(connect.CodeFailedPrecondition, errNotAdopted)
	}
	return peer, nil
}

// wrap puts the guard before next.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := g.admit(r.URL.Path, r.TLS)
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		if m := g.methods[r.URL.Path]; m.least != identity.RoleReader {
			log.Printf("api: %s (%s) from %s: %s", peer.Name, peer.Role, r.RemoteAddr, r.URL.Path)
		}
		ctx, done := g.calls.begin(context.WithValue(r.Context(), peerKey{}, peer), peer.Key)
		defer done()
		if g.node.Revoked(peer.Key) { // between the question and the entry in calls
			g.refuse(w, r, connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("your certificate: %w", identity.ErrRevoked)))
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// calls are the calls that run, so that those of a revoked key end: a log that is
// followed would go on for ever.
type calls struct {
	mu      sync.Mutex // guards running
	running map[*call]bool
}

// call is one of them, with the key of its caller as in identity.Peer.Key.
type call struct {
	key    string
	cancel context.CancelFunc
}

// begin enters a call, which done takes out again.
func (c *calls) begin(ctx context.Context, key string) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	one := &call{key, cancel}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		c.running = make(map[*call]bool)
	}
	c.running[one] = true
	return ctx, func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.running, one)
	}
}

// end ends the calls of keys.
func (c *calls) end(keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.running {
		if slices.Contains(keys, one.key) {
			one.cancel()
		}
	}
}

// peerKey finds the caller in a call's context.
type peerKey struct{}

// refuse answers in the caller's own dialect, and in plain HTTP where that is none.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if g.errors.IsSupported(r) {
		_ = g.errors.Write(w, r, err) // the caller has gone: nobody to tell
		return
	}
	status := map[connect.Code]int{
		connect.CodeUnauthenticated: http.StatusUnauthorized, connect.CodePermissionDenied: http.StatusForbidden,
		connect.CodeUnimplemented: http.StatusNotFound,
	}[connect.CodeOf(err)]
	if status == 0 {
		status = http.StatusPreconditionFailed
	}
	http.Error(w, err.Error(), status)
}
