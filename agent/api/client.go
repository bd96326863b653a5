package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/mdns"
	"kogge.example/update/download"
	"kogge.example/update/fleet"
)

// Client is one operator's way to one node.
type Client struct {
	apiv1connect.NodeServiceClient
	apiv1connect.WorkloadServiceClient
	apiv1connect.ImageServiceClient
	apiv1connect.RegistryServiceClient
	apiv1connect.VolumeServiceClient
	apiv1connect.ConfigServiceClient
	apiv1connect.UpkeepServiceClient
	apiv1connect.ObserveServiceClient
	apiv1connect.UpdateServiceClient
	apiv1connect.FleetServiceClient
	apiv1connect.CareServiceClient
	apiv1connect.VoteServiceClient
	transport *http.Transport
	under     *Client // by which this one goes; nil: none that is its own
	shown     atomic.Pointer[x509.Certificate]
	revoked   func(key string) bool
	only      string // "": any key that the fleet's CA has signed for the node
	expired   bool   // a certificate that is over does
}

// ErrOtherNode means that another node of the fleet answered than the one asked for.
var ErrOtherNode = errors.New("another node answers there")

// dialLimit bounds connection and handshake: a node that is off answers never.
const dialLimit = 10 * time.Second

// pingLimit is how long a node may be silent before it is asked whether it is there, and
// then before it is not: what is followed may have nothing to say for days.
const pingLimit = 30 * time.Second

// maxReceived is how far a node may be ahead of the reader of a stream, in bytes: what
// somebody has just interrupted goes on for as long.
const maxReceived = 512 << 10

// lookupLimit is for a question to the local network: who is there answers at once.
const lookupLimit = 5 * time.Second

// Dial makes a client for the node called name at address ("192.0.2.7:7443"), as
// the operator whom certificate names. The node is known by its certificate, not by
// its address. Nothing is sent before the first call. Where the node's certificate is
// over, the error of a call wraps [fleet.ErrExpired]: [Renew].
func Dial(address, name string, genesis *fleet.Genesis, certificate tls.Certificate) *Client {
	var c *Client
	c = newClient(address, certificate, func(state tls.ConnectionState) error {
		err := verifyNode(state.PeerCertificates, name, genesis, c.revoked)
		if key := keyOf(state.PeerCertificates); c.only != "" && key != "" && key != c.only {
			return fmt.Errorf("%w: key %s, and the node's seat has certified key %s", ErrOtherKey, fleet.Short(key), fleet.Short(c.only))
		}
		if err == nil || errors.Is(err, fleet.ErrExpired) {
			c.shown.Store(state.PeerCertificates[0])
		}
		if c.expired && errors.Is(err, fleet.ErrExpired) {
			return nil
		}
		return err
	})
	return c
}

// ErrNodeRevoked means that the key of the node that answered was revoked.
var ErrNodeRevoked = errors.New("the node's key was revoked, and it is not called")

// SetRevoked has c turn away a node whose key revoked says was withdrawn, as in
// fleet.Peer.Key. It comes before the first call.
func (c *Client) SetRevoked(revoked func(key string) bool) { c.revoked = revoked }

// SetExpired has c call the node with a certificate that is over, too: before it is renewed. It
// comes before the first call.
func (c *Client) SetExpired() { c.expired = true }

// ErrOtherKey means that somebody answered under the node's name who has not its key. Whoever has
// a key of the node CA can sign such certificates.
var ErrOtherKey = errors.New("somebody else answers in the node's name")

// SetKey has c turn away whoever shows another key than this, as in fleet.Peer.Key. It comes
// before the first call.
func (c *Client) SetKey(key string) { c.only = key }

func keyOf(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	return fleet.KeyID(chain[0].RawSubjectPublicKeyInfo)
}

// verifyNode wants the node called name at the other end, whose key is not revoked. The
// error wraps [fleet.ErrExpired] where nothing else is wrong.
func verifyNode(chain []*x509.Certificate, name string, genesis *fleet.Genesis, revoked func(key string) bool) error {
	if len(chain) == 0 {
		return errors.New("the node shows no certificate")
	}
	// The operator's clock is sure; that of a node was not when it was adopted.
	peer, err := genesis.VerifyPeer(chain[0], chain[1:], time.Now(), true, revoked)
	switch {
	case errors.Is(err, fleet.ErrRevoked):
		return fmt.Errorf("%w: %w", ErrNodeRevoked, err)
	case err != nil && !errors.Is(err, fleet.ErrExpired):
		return fmt.Errorf("the node's certificate: %w", err)
	case peer.Kind != fleet.KindNode:
		return errors.New("the other side is not a node")
	case peer.Name != name:
		return fmt.Errorf("%w: %s", ErrOtherNode, peer.Name)
	case err != nil:
		return fmt.Errorf("the node's certificate: %w", err)
	}
	return nil
}

// Shown is the certificate that the node has shown; nil before the first call, or if
// it was not that of the node.
func (c *Client) Shown() *x509.Certificate { return c.shown.Load() }

// PeerCertificates returns the certificates that whoever answers at address shows, its own
// first. It has the key of that one; whether it is a node, and of which fleet, is not
// looked at.
func PeerCertificates(ctx context.Context, address string) ([]*x509.Certificate, error) {
	return Direct(address).PeerCertificates(ctx)
}

// PeerCertificates is [PeerCertificates] of whoever answers at the end of the way.
func (w Way) PeerCertificates(ctx context.Context) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	raw, err := w(ctx)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return conn.ConnectionState().PeerCertificates, nil
}

// dial connects. A name below .local is looked for on this computer's own networks:
// not every resolver does.
func dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !strings.HasSuffix(strings.TrimSuffix(host, "."), ".local") {
		return download.Dial(&dialer)(ctx, "tcp", address)
	}
	limited, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	found, err := mdns.Lookup(limited, host)
	if err != nil {
		return nil, err
	}
	for _, ip := range found {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", host, err)
}

// Renew gives the node called name the certificate (DER) that sign makes to follow on
// its own, which may be over, and returns that.
func Renew(ctx context.Context, address, name string, genesis *fleet.Genesis, certificate tls.Certificate, sign func(old *x509.Certificate) ([]byte, error)) (*x509.Certificate, error) {
	return Direct(address).Renew(ctx, address, name, genesis, certificate, sign)
}

// Renew is [Renew] of a node at the end of the way.
func (w Way) Renew(ctx context.Context, address, name string, genesis *fleet.Genesis, certificate tls.Certificate, sign func(old *x509.Certificate) ([]byte, error)) (*x509.Certificate, error) {
	chain, err := w.PeerCertificates(ctx)
	if err != nil {
		return nil, err
	}
	verify := func(now []*x509.Certificate) error {
		err := verifyNode(now, name, genesis, nil) // sign knows who was revoked
		switch {
		case err != nil && !errors.Is(err, fleet.ErrExpired):
			return err
		case !bytes.Equal(now[0].RawSubjectPublicKeyInfo, chain[0].RawSubjectPublicKeyInfo):
			return errKeyChanged
		}
		return nil
	}
	if err := verify(chain); err != nil {
		return nil, err
	}
	der, err := sign(chain[0])
	if err != nil {
		return nil, err
	}
	next, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c := newClient(address, certificate, func(state tls.ConnectionState) error { return verify(state.PeerCertificates) })
	c.Go(w)
	defer c.Close()
	_, err = c.Renew(ctx, connect.NewRequest(&apiv1.RenewRequest{Certificate: der}))
	return next, err
}

// MaxEntry is the bytes of a message about the fleet's ledger, at most: of the largest entry
// that there can be, as a node takes requests.
const MaxEntry = 2 << 20

// maxAnswer is far above what a node answers with in one message, in bytes.
const maxAnswer = 32 << 20

// errKeyChanged means that not everything comes from the same node.
var errKeyChanged = errors.New("the node's key changed between two connections")

func newClient(address string, certificate tls.Certificate, verify func(tls.ConnectionState) error) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, address) },
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			Certificates:       []tls.Certificate{certificate},
			InsecureSkipVerify: true, // of the name in the address; verify does the rest
			VerifyConnection:   verify,
		},
		TLSHandshakeTimeout: dialLimit,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingLimit, PingTimeout: pingLimit, MaxReceiveBufferPerStream: maxReceived},
	}
	client := &http.Client{Transport: transport}
	// The name is what errors show; the transport dials the address in any case.
	url := (&url.URL{Scheme: "https", Host: address}).String() // an address may have a zone
	most := connect.WithReadMaxBytes(maxAnswer)                // a node may be somebody else by now
	return &Client{
		NodeServiceClient:     apiv1connect.NewNodeServiceClient(client, url, most),
		WorkloadServiceClient: apiv1connect.NewWorkloadServiceClient(client, url, most),
		ImageServiceClient:    apiv1connect.NewImageServiceClient(client, url, most),
		RegistryServiceClient: apiv1connect.NewRegistryServiceClient(client, url, most),
		VolumeServiceClient:   apiv1connect.NewVolumeServiceClient(client, url, most),
		ConfigServiceClient:   apiv1connect.NewConfigServiceClient(client, url, most),
		UpkeepServiceClient:   apiv1connect.NewUpkeepServiceClient(client, url, most),
		ObserveServiceClient:  apiv1connect.NewObserveServiceClient(client, url, most),
		UpdateServiceClient:   apiv1connect.NewUpdateServiceClient(client, url, most),
		FleetServiceClient:    apiv1connect.NewFleetServiceClient(client, url, connect.WithReadMaxBytes(MaxEntry)),
		CareServiceClient:     apiv1connect.NewCareServiceClient(client, url, most),
		VoteServiceClient:     apiv1connect.NewVoteServiceClient(client, url, most),
		transport:             transport,
	}
}

// SetHandshakeLimit has c wait for longer, or less, than usual until a node that is busy
// has taken its connection. It comes before the first call.
func (c *Client) SetHandshakeLimit(d time.Duration) { c.transport.TLSHandshakeTimeout = d }

// Close ends the connections.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	if c.under != nil {
		c.under.Close()
	}
}

// Adoption is what an operator needs to take a node into the fleet.
type Adoption struct {
	Genesis     *fleet.Genesis
	Certificate tls.Certificate
	// Sign checks that mac proves one of the fleet's tokens over the key of request
	// and nonce, and makes the node's certificate (DER).
	Sign func(request, nonce, mac []byte, hostname string) (certificate []byte, err error)
	// Revoked are the keys that the fleet has revoked, as in fleet.Peer.Key: a new
	// node knows them from its first day.
	Revoked []string
}

// ErrAdopted means that the node is one of the fleet already.
var ErrAdopted = errors.New("the node is already in the fleet")

// Adopt takes the node at address into the fleet. Before the node has proved its
// token nothing but a nonce was sent to it, and the token itself never is.
func Adopt(ctx context.Context, address string, a Adoption) error {
	var key []byte // of whoever answers there, SubjectPublicKeyInfo
	c := newClient(address, a.Certificate, func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the node shows no certificate")
		}
		now := state.PeerCertificates[0].RawSubjectPublicKeyInfo
		if key != nil && !bytes.Equal(key, now) {
			return errKeyChanged
		}
		key = now
		return nil
	})
	defer c.Close()
	nonce := make([]byte, NonceSize)
	rand.Read(nonce) // never fails: it ends the program instead
	answer, err := c.Adopt(ctx, connect.NewRequest(&apiv1.AdoptRequest{Nonce: nonce}))
	if connect.CodeOf(err) == connect.CodeAlreadyExists {
		return ErrAdopted
	}
	if err != nil {
		return err
	}
	// Who answers holds the key of the connection, asks for a certificate of the
	// same key, and knows a token: so nobody stands in between.
	_, asked, err := fleet.RequestKey(answer.Msg.Request)
	if err != nil {
		return err
	}
	if !bytes.Equal(asked, key) {
		return errors.New("the node asks for a certificate for a key that is not its own")
	}
	certificate, err := a.Sign(answer.Msg.Request, nonce, answer.Msg.Mac, answer.Msg.Hostname)
	if err != nil {
		return err
	}
	_, err = c.Adopt(ctx, connect.NewRequest(&apiv1.AdoptRequest{Nonce: nonce, Certificate: certificate, Revoked: a.Revoked}))
	return err
}
