// Package operate is what an operator does to the nodes of a fleet: adopt them, call them,
// renew their certificates, revoke an operator or a node on all of them, follow one through an
// update. It needs no terminal: a command line, a script and a page can use it alike.
//
// In come an operator's keyring and the name or address of a node; out go calls of the
// API, entries in nodes.json (what this computer remembers of nodes, in the fleet's
// folder), and values that say what happened. What happens by the way is told to a
// function of the caller.
//
// The package prints nothing, asks nobody, reads no flag and gives no hints. What may be
// signed is the keyring's to decide, and who may call what is the node's.
package operate

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/api"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// Limits of what is answered at once, and of a renewal that comes before a call.
const (
	callLimit  = 30 * time.Second
	renewLimit = 10 * time.Second
)

// Notice is what happens by the way of a call and fails nothing of what was asked.
type Notice struct {
	Node  string
	Until time.Time // the node's certificate is good; zero: it is not about that
	Over  bool      // that it had expired, and now is good again
	Err   error     // why it was not renewed, or not noted; nil: it was renewed
}

// Remote is a node as an operator calls it.
type Remote struct {
	Keys          *keyring.Keyring // the operator's, for the node's fleet
	Name, Address string           // in the fleet; host:port
	Via           string           // the node through which it is called; "": none
	Tell          func(Notice)     // hears what happens by the way, from any goroutine
}

// Call has do call the node.
//
// This is the one place where a certificate of a node is renewed without being asked for:
// before the call, if the node's certificate is in the last third of its life or over, and
// this computer can sign the next one ([CanRenew]). Tell hears that it was renewed, or why
// it could not be. In the latter case the call goes on with the certificate that there is,
// unless that is over. Where nobody here can renew it and it is over, the error wraps
// [fleet.ErrExpired].
//
// Whether it is time is looked up in nodes.json, which has the date that the node showed
// last: a certificate is only ever followed by one that is good for longer, so the node is
// asked for it once a year and not before each call.
func (r Remote) Call(ctx context.Context, do func(context.Context, *api.Client) error) error {
	if err := r.renewFirst(ctx); err != nil {
		return err
	}
	client, err := r.Dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	err = do(ctx, client)
	if shown := client.Shown(); shown != nil && ctx.Err() == nil {
		if failed := r.noteUntil(shown); failed != nil {
			r.Tell(Notice{Node: r.Name, Err: failed})
		}
	}
	return err
}

// Dial makes a client for the node called name at address. It turns away a node whose key was
// revoked in the fleet's folder, and in a founded fleet everybody whose key the node's seat has
// not certified: a CA makes connections, and no node. The seat is asked once; where it does not
// answer as that the error is an [OtherSeat]. Whoever shows another key later is
// [api.ErrOtherKey]. It renews nothing; see [api.Dial].
func Dial(ctx context.Context, k *keyring.Keyring, address, name string) (*api.Client, error) {
	return dialBy(ctx, k, address, name, api.Direct(address))
}

func dialBy(ctx context.Context, k *keyring.Keyring, address, name string, way api.Way) (*api.Client, error) {
	nodes, err := Nodes(k)
	if err != nil {
		return nil, err
	}
	n, known := nodes[name]
	if !known { // it is called through another one
		l, _, err := Ledger(k)
		if err != nil {
			return nil, err
		}
		seat, _ := l.State().Roster.ByName(name)
		n.Seat = seat.Key
		lost, err := k.RevokedNodes()
		if err != nil {
			return nil, err
		}
		if n.Seat != "" && slices.ContainsFunc(lost, func(r keyring.RevokedNode) bool { return r.Name == name }) { // its seat's key may be another's, too
			return nil, fmt.Errorf("%w: %s was revoked here, and not adopted since", api.ErrNodeRevoked, name)
		}
	}
	if n.Seat != "" && n.Certified == "" {
		if n.Certified, err = certify(ctx, k, address, name, n.Seat, false, way); err != nil {
			return nil, err
		}
	}
	c, err := dialAny(k, address, name)
	if err == nil {
		c.Go(way)
		c.SetKey(n.Certified)
	}
	return c, err
}

// Dial makes a client for the node that r names, as [Dial], or through another node: then that one
// carries bytes, and all that is checked of the node is checked as ever.
func (r Remote) Dial(ctx context.Context) (*api.Client, error) {
	if r.Via == "" {
		return Dial(ctx, r.Keys, r.Address, r.Name)
	}
	by, err := r.carrier(ctx)
	if err != nil {
		return nil, err
	}
	c, err := dialBy(ctx, r.Keys, r.Address, r.Name, by.Relay(r.Name))
	if err != nil {
		by.Close()
		return nil, err
	}
	c.Through(by, by.Relay(r.Name))
	return c, nil
}

// carrier is a client of the node through which r is called.
func (r Remote) carrier(ctx context.Context) (*api.Client, error) {
	nodes, err := Nodes(r.Keys)
	if err != nil {
		return nil, err
	}
	n, known := nodes[r.Via]
	if !known {
		return nil, fmt.Errorf("node %s, through which %s is to be called: %w", r.Via, r.Name, keyring.ErrNoNode)
	}
	by, err := Dial(ctx, r.Keys, n.Address, r.Via)
	if err != nil {
		return nil, fmt.Errorf("node %s, through which %s is to be called: %w", r.Via, r.Name, err)
	}
	return by, nil
}

func dialAny(k *keyring.Keyring, address, name string) (*api.Client, error) {
	revoked, err := revokedNodes(k)
	if err != nil {
		return nil, err
	}
	c := api.Dial(address, name, k.Genesis, k.Certificate())
	c.SetRevoked(revoked)
	return c, nil
}

// lastThird is a little longer than a third of the life of a node's certificate, which is
// a year and a day: when its date says so, the certificate itself is looked at.
const lastThird = 123 * 24 * time.Hour

// renewFirst is what Call does before the call.
func (r Remote) renewFirst(ctx context.Context) error {
	if !CanRenew(r.Keys) {
		return nil
	}
	nodes, err := Nodes(r.Keys)
	if err != nil {
		return err
	}
	if time.Until(nodes[r.Name].Until) > lastThird {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	way, end, err := r.way(ctx)
	if err != nil {
		return nil // the call will say so, in its own words
	}
	defer end()
	chain, err := way.PeerCertificates(ctx)
	if err != nil {
		return nil // the call will say so, too
	}
	if is, ours := nodeOf(r.Keys.Genesis, chain); !ours || is.Name != r.Name || !fleet.RenewDue(chain[0], r.Keys.Genesis.NodeCA, time.Now()) {
		return nil
	}
	over := time.Now().After(chain[0].NotAfter)
	next, err := r.Renew(ctx)
	switch {
	case err == nil:
		r.Tell(Notice{Node: r.Name, Until: next.NotAfter, Over: over})
	case over:
		return err
	default:
		r.Tell(Notice{Node: r.Name, Until: chain[0].NotAfter, Err: err})
	}
	return nil
}

// CanRenew says whether this computer can give nodes their certificates: its operator is
// an admin, and the node CA's key is here.
func CanRenew(k *keyring.Keyring) bool {
	return k.HoldsCA(fleet.KindNode) == keyring.Open && k.Operator().Role == fleet.RoleAdmin
}

// Renew gives the node a new certificate, notes until when it is good, and returns it. Who has
// not shown the key of the node's seat gets none: the error is an [OtherSeat] or wraps
// [ErrNotTheSeat]. It wraps [fleet.ErrClock] where this computer's clock must be wrong.
func (r Remote) Renew(ctx context.Context) (*x509.Certificate, error) {
	nodes, err := Nodes(r.Keys)
	if err != nil {
		return nil, err
	}
	way, end, err := r.way(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	n := nodes[r.Name]
	if n.Seat != "" && n.Certified == "" {
		if n.Certified, err = certify(ctx, r.Keys, r.Address, r.Name, n.Seat, true, way); err != nil {
			return nil, err
		}
	}
	next, err := way.Renew(ctx, r.Address, r.Name, r.Keys.Genesis, r.Keys.Certificate(), func(old *x509.Certificate) ([]byte, error) {
		if n.Certified != "" && n.Certified != keyOf(old) {
			return nil, fmt.Errorf("%w: key %s", ErrNotTheSeat, fleet.Short(keyOf(old)))
		}
		return r.Keys.RenewNode(old, time.Now())
	})
	if err != nil {
		return nil, err
	}
	return next, r.noteUntil(next)
}

// way is the way to the node; end is for when it is not gone any more.
func (r Remote) way(ctx context.Context) (way api.Way, end func(), err error) {
	if r.Via == "" {
		return api.Direct(r.Address), func() {}, nil
	}
	by, err := r.carrier(ctx)
	if err != nil {
		return nil, nil, err
	}
	return by.Relay(r.Name), by.Close, nil
}

// Renewed is how the renewal of one node's certificate went.
type Renewed struct {
	Node  string
	Until time.Time // the new certificate is good
	Err   error     // nil: it has one
}

// RenewAll renews the certificates of nodes, a few at a time, through another node if via names
// one, and returns how it went, in the order of their names.
func RenewAll(ctx context.Context, k *keyring.Keyring, nodes map[string]Node, via string) []Renewed {
	names := sorted(nodes)
	all := make([]Renewed, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		next, err := Remote{Keys: k, Name: names[i], Address: nodes[names[i]].Address, Via: via}.Renew(limited)
		if all[i] = (Renewed{Node: names[i], Err: err}); err == nil {
			all[i].Until = next.NotAfter
		}
	})
	return all
}

// noteUntil remembers until when the node's certificate is good.
func (r Remote) noteUntil(shown *x509.Certificate) error {
	nodes, err := Nodes(r.Keys)
	key := fleet.KeyID(shown.RawSubjectPublicKeyInfo)
	if n := nodes[r.Name]; err != nil || n.Until.Equal(shown.NotAfter) && n.Key == key {
		return err
	}
	return ChangeNodes(r.Keys, func(nodes map[string]Node) {
		if n, known := nodes[r.Name]; known {
			n.Until, n.Key = shown.NotAfter.UTC(), key
			nodes[r.Name] = n
		}
	})
}

// nodeOf says whether who shows chain is a node of the fleet, and which. Its certificate
// may be over.
func nodeOf(genesis *fleet.Genesis, chain []*x509.Certificate) (fleet.Peer, bool) {
	if len(chain) == 0 {
		return fleet.Peer{}, false
	}
	peer, err := genesis.VerifyPeer(chain[0], chain[1:], time.Time{}, false, nil)
	return peer, err == nil && peer.Kind == fleet.KindNode
}

// each does something for every number below n, a few at a time.
func each(n int, do func(i int)) {
	const atOnce = 16
	limit := make(chan struct{}, atOnce)
	var done sync.WaitGroup
	for i := range n {
		limit <- struct{}{}
		done.Go(func() {
			defer func() { <-limit }()
			do(i)
		})
	}
	done.Wait()
}
