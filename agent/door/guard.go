// Package door decides who comes in to the node's API: which connection is served next,
// which call its caller may make, and how many calls run at a time.
//
// In come connections of whoever finds the port; out come calls whose caller is known by
// a certificate of the fleet and has the role that the contract wants. It looks at nothing
// but the path and the certificate, so what a stranger sends is never read. What a call
// does is package serve's.
package door

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/order"
)

// Guard lets a call through if its caller may make it. It looks at nothing but the
// path and the certificate, so what a stranger sends is never read.
type Guard struct {
	methods map[string]method
	node    *identity.Node
	// clockSure says whether the node's clock may refuse a certificate.
	clockSure func() bool
	// Now is the node's clock. Default: time.Now.
	Now func() time.Time
	// Floor is the earliest that the time can be: a clock that is behind it is not right,
	// however sure it is. Default: none is known.
	Floor func() time.Time
	// Known is what the fleet's ledger makes of a caller whose certificate is in order: the
	// CAs make connections, and no authority. Default: what the certificate says.
	Known func(fleet.Peer) (fleet.Peer, error)
	// Refuses says why a call that changes something is not answered now, whoever makes it: the
	// node may be new in its fleet. Default: nothing is refused.
	Refuses func(procedure string) error
	// Seen hears since when callers' certificates count, of those that the fleet signed,
	// knows and has not revoked. It returns at once. Default: nobody listens.
	Seen func(notBefore time.Time)

	identify  func(*fleet.Genesis, []*x509.Certificate) (fleet.Identity, error)
	lookAgain time.Duration
	errors    *connect.ErrorWriter
	calls     calls
}

func NewGuard(node *identity.Node, clockSure func() bool) *Guard {
	return &Guard{methods: Methods(), node: node, clockSure: clockSure, Now: time.Now, lookAgain: lookAgain, errors: connect.NewErrorWriter(),
		Floor: func() time.Time { return time.Time{} }, Seen: func(time.Time) {}, Known: func(p fleet.Peer) (fleet.Peer, error) { return p, nil },
		Refuses: func(string) error { return nil }, identify: identify,
		calls: calls{turns: make(chan struct{}, MaxCalls+adminCalls), common: make(chan struct{}, MaxCalls), running: map[*call]bool{}, own: map[string]*line{}}}
}

// errNotAdopted is the answer of a node that belongs to no fleet yet.
var errNotAdopted = errors.New("this node is not in a fleet yet")

// errNoJoinFile is the answer of a node that could not even be adopted.
var errNoJoinFile = errors.New("this node has no join.yaml, and trusts nobody yet")

// errNoCertificate is the answer to a caller without one.
var errNoCertificate = errors.New("a client certificate is required, signed by the fleet's operator CA")

// errRevoked is the answer to a caller whose key is revoked.
var errRevoked = api.RefuseCertificate(fmt.Errorf("your certificate: %w", fleet.ErrRevoked))

func identify(genesis *fleet.Genesis, certificates []*x509.Certificate) (fleet.Identity, error) {
	return genesis.Identify(certificates[0], certificates[1:])
}

// peer is whom the certificates of a connection are of, as the fleet knows him, and whether
// they count now. Their signatures are verified once for a connection; what may change is asked
// every time. The error wraps [fleet.ErrExpired] only where nothing else is wrong.
func (g *Guard) peer(conn *guest, genesis *fleet.Genesis, certificates []*x509.Certificate) (fleet.Peer, error) {
	ask := func() (fleet.Identity, error) { return g.identify(genesis, certificates) }
	var who fleet.Identity
	var err error
	if conn == nil {
		who, err = ask()
	} else {
		who, err = conn.identity.ask(genesis, ask)
	}
	if err != nil {
		return fleet.Peer{}, err
	}
	sure := g.clockSure()
	now := g.Floor()
	if at := g.Now(); sure && at.After(now) {
		now = at
	}
	peer, over := who.Check(now, sure, g.node.TurnsAway)
	if over != nil && !errors.Is(over, fleet.ErrExpired) {
		return peer, over
	}
	peer, err = g.Known(peer)
	switch {
	case err != nil:
		return peer, err
	case over != nil:
		return peer, over
	}
	if peer.Kind == fleet.KindOperator { // a member's key of the node CA signs whom it likes
		g.Seen(who.NotBefore)
	}
	return peer, nil
}

// admit says why the caller may not make the call, or nil, and who it is. conn is his
// connection; nil: there is none to remember anything for.
func (g *Guard) admit(conn *guest, path string, state *tls.ConnectionState) (fleet.Peer, error) {
	m, known := g.methods[path]
	if !known {
		return fleet.Peer{}, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("there is no method %s", path))
	}
	genesis := g.node.Genesis()
	switch {
	case genesis == nil:
		return fleet.Peer{}, api.Refuse(connect.CodeFailedPrecondition, apiv1.Reason_REASON_NO_JOIN_FILE, cmp.Or(g.node.Problem(), errNoJoinFile))
	case state == nil || len(state.PeerCertificates) == 0:
		return fleet.Peer{}, connect.NewError(connect.CodeUnauthenticated, errNoCertificate)
	}
	peer, err := g.peer(conn, genesis, state.PeerCertificates)
	if m.expiredToo && errors.Is(err, fleet.ErrExpired) {
		err = nil
	}
	switch {
	case errors.Is(err, order.ErrIsolated):
		return peer, api.Refuse(connect.CodePermissionDenied, apiv1.Reason_REASON_ISOLATED, err)
	case errors.Is(err, ledger.ErrUnlisted):
		return peer, api.Refuse(connect.CodePermissionDenied, apiv1.Reason_REASON_UNLISTED, err)
	case err != nil:
		return peer, api.RefuseCertificate(fmt.Errorf("your certificate: %w", err))
	case peer.Kind != fleet.KindOperator:
		return peer, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s is a node: nodes do not operate each other", peer.Name))
	case !peer.Role.AtLeast(m.least):
		return peer, api.Refuse(connect.CodePermissionDenied, apiv1.Reason_REASON_ROLE, fmt.Errorf("%s has the role %s: this needs %s", peer.Name, peer.Role, m.least))
	case !g.node.Adopted() && !m.beforeAdoption:
		return peer, api.Refuse(connect.CodeFailedPrecondition, apiv1.Reason_REASON_NOT_ADOPTED, cmp.Or(g.node.Problem(), errNotAdopted))
	}
	if g.Changes(path) {
		return peer, g.Refuses(path)
	}
	return peer, nil
}

// Wrap puts the guard before next.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := connOf(r.Context())
		peer, err := g.admit(conn, r.URL.Path, r.TLS)
		if err != nil {
			if conn.refuse() {
				w.Header().Set("Connection", "close")
			}
			g.refuse(w, r, err)
			return
		}
		if err := conn.keepPlace(peer.Key, peer.Role.AtLeast(fleet.RoleAdmin)); err != nil {
			w.Header().Set("Connection", "close")
			g.refuse(w, r, connect.NewError(connect.CodeResourceExhausted, err))
			return
		}
		if g.Changes(r.URL.Path) {
			log.Printf("api: %s (%s) from %s: %s", peer.Name, peer.Role, r.RemoteAddr, r.URL.Path)
		}
		stream := g.methods[r.URL.Path].stream
		ctx, done, err := g.calls.begin(context.WithValue(r.Context(), peerKey{}, peer), peer, stream)
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		defer done()
		if g.node.TurnsAway(peer.Key) { // between the question and the entry in calls
			g.refuse(w, r, errRevoked)
			return
		}
		if stream {
			var over func()
			ctx, over = g.attend(ctx, http.NewResponseController(w), func() error {
				_, err := g.admit(conn, r.URL.Path, r.TLS)
				return err
			})
			defer over()
		}
		r = r.WithContext(ctx)
		if !stream {
			limitBody(w, r)
		}
		next.ServeHTTP(w, r)
	})
}

// Limits of a stream: how often its caller is looked at, and how long it may take to
// end once it has to.
const (
	lookAgain = 30 * time.Second
	lastWords = 2 * time.Second
)

// controlKey finds what a stream can be cut with in its context.
type controlKey struct{}

// StreamControl is what can cut the stream of that context off; nil for other calls.
func StreamControl(ctx context.Context) *http.ResponseController {
	control, _ := ctx.Value(controlKey{}).(*http.ResponseController)
	return control
}

// attend looks after a stream: its context ends when the caller may not make the call
// any more, as when his certificate is over, and what then still waits for him is cut
// off. The function it returns is for the end of the stream.
func (g *Guard) attend(ctx context.Context, control *http.ResponseController, admit func() error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, controlKey{}, control))
	returned, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(g.lookAgain)
		defer look.Stop()
		for ctx.Err() == nil {
			select {
			case <-returned:
				return
			case <-ctx.Done():
			case <-look.C:
				if err := admit(); err != nil {
					cancel(err)
				}
			}
		}
		select {
		case <-returned:
		case <-time.After(lastWords):
			_ = control.SetReadDeadline(time.Unix(1, 0))
			_ = control.SetWriteDeadline(time.Unix(1, 0))
		}
	}()
	return ctx, func() {
		close(returned)
		<-done
		cancel(nil)
	}
}

// limitBody gives the caller [bodyLimit] to send all of his request: until then it
// takes the turn of another one. What is too long ends here, since connect would read
// on to its end.
func limitBody(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, MaxRequest+4<<10)
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(bodyLimit)) == nil {
		r.Body = &timedBody{r.Body, control}
	}
}

// timedBody takes the limit back at its end, or a long call would end with it.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Limits of the calls that run. A request is in memory as a whole, so no more of them
// than maxCalls are there at a time, and of one caller than maxCallsOfKey; further
// ones wait for their turn. A stream costs some 150 KiB and lasts as long as its caller
// likes: one too many is refused. Admins have a few of both beyond those of everybody, so
// that nobody else keeps them from their work.
const (
	MaxCalls        = 32
	MaxCallsOfKey   = 8
	MaxStreamsOfAll = 128
	maxStreamsOfKey = 48
	adminCalls      = 8
	adminStreams    = 32
	bodyLimit       = 30 * time.Second

	MaxRequest = 2 << 20 // bytes; a Compose file with its secrets
)

// calls are the calls that run, so that those of a revoked key end: a log that is
// followed would go on for ever.
type calls struct {
	turns  chan struct{} // room for all that run
	common chan struct{} // for those of them whose callers are no admins

	mu      sync.Mutex // guards what follows
	running map[*call]bool
	own     map[string]*line
}

// line is what the calls of one key wait in; it is there while there are any.
type line struct {
	turns chan struct{} // room for maxCallsOfKey
	calls int
}

// call is one of them, with the key of its caller as in fleet.Peer.Key.
type call struct {
	key    string
	admin  bool
	stream bool
	cancel context.CancelCauseFunc
}

// begin enters a call, which done takes out again, once it is its turn.
func (c *calls) begin(ctx context.Context, caller fleet.Peer, stream bool) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	one := &call{caller.Key, caller.Role.AtLeast(fleet.RoleAdmin), stream, cancel}
	own, err := c.enter(one)
	if err != nil {
		cancel(nil)
		return nil, nil, connect.NewError(connect.CodeResourceExhausted, err)
	}
	var held []chan struct{}
	leave := func() {
		cancel(nil)
		for _, turns := range held {
			<-turns
		}
		c.leave(one)
	}
	if stream {
		return ctx, leave, nil
	}
	wanted := []chan struct{}{own, c.common, c.turns}
	if one.admin {
		wanted = []chan struct{}{own, c.turns}
	}
	for _, turns := range wanted {
		select {
		case turns <- struct{}{}:
			held = append(held, turns)
		case <-ctx.Done():
			leave()
			return nil, nil, connect.NewError(connect.CodeCanceled, ctx.Err())
		}
	}
	return ctx, leave, nil
}

// enter notes a call, unless there are too many streams, and returns the turns of its
// caller.
func (c *calls) enter(one *call) (chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, own, most := 0, 0, MaxStreamsOfAll
	if one.admin {
		most += adminStreams
	}
	for other := range c.running {
		if other.stream {
			all++
			if other.key == one.key {
				own++
			}
		}
	}
	switch {
	case one.stream && own >= maxStreamsOfKey:
		return nil, fmt.Errorf("%d logs and other streams are open with your certificate: end one of them", own)
	case one.stream && all >= most:
		return nil, fmt.Errorf("%d logs and other streams are open: the node accepts no more", all)
	}
	c.running[one] = true
	if c.own[one.key] == nil {
		c.own[one.key] = &line{turns: make(chan struct{}, MaxCallsOfKey)}
	}
	c.own[one.key].calls++
	return c.own[one.key].turns, nil
}

func (c *calls) leave(one *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, one)
	if o := c.own[one.key]; o.calls > 1 {
		o.calls--
		return
	}
	delete(c.own, one.key)
}

// end ends the calls of keys.
func (c *calls) end(keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.running {
		if slices.Contains(keys, one.key) {
			one.cancel(errRevoked)
		}
	}
}

// peerKey finds the caller in a call's context.
type peerKey struct{}

// Caller is who makes the call of that context; zero behind no guard.
func Caller(ctx context.Context) fleet.Peer {
	peer, _ := ctx.Value(peerKey{}).(fleet.Peer)
	return peer
}

// Changes says whether a method is for more than looking.
func (g *Guard) Changes(procedure string) bool {
	return g.methods[procedure].least != fleet.RoleReader
}

// End ends the calls of keys, which are revoked.
func (g *Guard) End(keys []string) { g.calls.end(keys) }

// refuse answers in the caller's own dialect, and in plain HTTP where that is none.
func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
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
