// Package operate is what an operator does to the nodes of a fleet: adopt them, call them,
// renew their certificates, revoke an operator on all of them, follow one through an
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

// Call has do call the node called name at address, as the operator of k.
//
// This is the one place where a certificate of a node is renewed without being asked for:
// before the call, if the node's certificate is in the last third of its life or over, and
// this computer can sign the next one ([CanRenew]). tell hears that it was renewed, or why
// it could not be. In the latter case the call goes on with the certificate that there is,
// unless that is over. Where nobody here can renew it and it is over, the error wraps
// [fleet.ErrExpired].
//
// Whether it is time is looked up in nodes.json, which has the date that the node showed
// last: a certificate is only ever followed by one that is good for longer, so the node is
// asked for it once a year and not before each call.
func Call(ctx context.Context, k *keyring.Keyring, name, address string, tell func(Notice), do func(context.Context, *api.Client) error) error {
	if err := renewFirst(ctx, k, name, address, tell); err != nil {
		return err
	}
	client := api.Dial(address, name, k.Genesis, k.Certificate())
	defer client.Close()
	err := do(ctx, client)
	if shown := client.Shown(); shown != nil && ctx.Err() == nil {
		if failed := noteUntil(k, name, shown); failed != nil {
			tell(Notice{Node: name, Err: failed})
		}
	}
	return err
}

// lastThird is a little longer than a third of the life of a node's certificate, which is
// a year and a day: when its date says so, the certificate itself is looked at.
const lastThird = 123 * 24 * time.Hour

// renewFirst is what Call does before the call.
func renewFirst(ctx context.Context, k *keyring.Keyring, name, address string, tell func(Notice)) error {
	if !CanRenew(k) {
		return nil
	}
	nodes, err := Nodes(k)
	if err != nil {
		return err
	}
	if time.Until(nodes[name].Until) > lastThird {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	chain, err := api.PeerCertificates(ctx, address)
	if err != nil {
		return nil // the call will say so, in its own words
	}
	if is, ours := nodeOf(k.Genesis, chain); !ours || is.Name != name || !fleet.RenewDue(chain[0], k.Genesis.NodeCA, time.Now()) {
		return nil
	}
	over := time.Now().After(chain[0].NotAfter)
	next, err := Renew(ctx, k, name, address)
	switch {
	case err == nil:
		tell(Notice{Node: name, Until: next.NotAfter, Over: over})
	case over:
		return err
	default:
		tell(Notice{Node: name, Until: chain[0].NotAfter, Err: err})
	}
	return nil
}

// CanRenew says whether this computer can give nodes their certificates: its operator is
// an admin, and the node CA's key is here.
func CanRenew(k *keyring.Keyring) bool {
	return k.HoldsCA(fleet.KindNode) == keyring.Open && k.Operator().Role == fleet.RoleAdmin
}

// Renew gives a node a new certificate, notes until when it is good, and returns it. The
// error wraps [fleet.ErrClock] where this computer's clock must be wrong.
func Renew(ctx context.Context, k *keyring.Keyring, name, address string) (*x509.Certificate, error) {
	next, err := api.Renew(ctx, address, name, k.Genesis, k.Certificate(), func(old *x509.Certificate) ([]byte, error) {
		return k.RenewNode(old, time.Now())
	})
	if err != nil {
		return nil, err
	}
	return next, noteUntil(k, name, next)
}

// Renewed is how the renewal of one node's certificate went.
type Renewed struct {
	Node  string
	Until time.Time // the new certificate is good
	Err   error     // nil: it has one
}

// RenewAll renews the certificates of nodes, a few at a time, and returns how it went, in
// the order of their names.
func RenewAll(ctx context.Context, k *keyring.Keyring, nodes map[string]Node) []Renewed {
	names := sorted(nodes)
	all := make([]Renewed, len(names))
	each(len(names), func(i int) {
		limited, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		next, err := Renew(limited, k, names[i], nodes[names[i]].Address)
		if all[i] = (Renewed{Node: names[i], Err: err}); err == nil {
			all[i].Until = next.NotAfter
		}
	})
	return all
}

// noteUntil remembers until when a node's certificate is good.
func noteUntil(k *keyring.Keyring, name string, shown *x509.Certificate) error {
	nodes, err := Nodes(k)
	if err != nil || nodes[name].Until.Equal(shown.NotAfter) {
		return err
	}
	return ChangeNodes(k, func(nodes map[string]Node) {
		if n, known := nodes[name]; known {
			n.Until = shown.NotAfter.UTC()
			nodes[name] = n
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
