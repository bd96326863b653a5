package part

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/gossip"
	"kogge.example/agent/mdns"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/care"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// This file is where the node is, and where others may be.

// addressesOf are the machine's, IPv4 before IPv6.
func addressesOf(run string) (all []netip.Addr) {
	network, err := control.ReadNetwork(run)
	if err != nil {
		return nil // not up yet
	}
	for _, i := range network.Interfaces {
		for _, p := range i.Addresses {
			all = append(all, p.Addr())
		}
	}
	slices.SortStableFunc(all, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return all
}

// addressesFor are where a seat may answer: by its own word, and where it was founded.
func addressesFor(engine *gossip.Engine, taken *pinned.Ledger, seat roster.Seat) (all []netip.AddrPort) {
	if engine != nil { // else the node has no seat
		if object, ok := engine.Object(notice.NodeKind, seat.Key); ok {
			if n, err := notice.OpenNode(object); err == nil {
				all = n.Addresses
			}
		}
	}
	first, err := taken.Entry(1)
	if err != nil {
		return all
	}
	v, err := ledger.ParseValue(first.Value)
	if err != nil || v.Founding == nil {
		return all
	}
	for _, a := range v.Founding.Cluster {
		if at := netip.AddrPortFrom(a.Address.Addr(), api.Port); a.Seat == seat.Number && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}

// contacts are where members may answer that are not isolated: by their own word, by the ledger, and
// by join.yaml.
func (t *Talk) contacts(taken *pinned.Ledger, self signed.Key) (all []netip.AddrPort) {
	var engine *gossip.Engine
	if now := t.session.Load(); now != nil {
		engine = now.engine
	}
	for _, seat := range taken.State().Roster.Custodians() {
		if seat.Key != self && isolated(t.part.book(), seat.Key) == nil {
			all = append(all, t.reach(engine, taken, seat)...)
		}
	}
	all = append(all, t.part.node.Members()...)
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// findMembers looks for seats on the node's own links, of which some let nodes in.
func (t *Talk) findMembers(ctx context.Context, taken *pinned.Ledger, self signed.Key) (all []netip.AddrPort) {
	for _, seat := range taken.State().Roster.Custodians() {
		if seat.Key != self && isolated(t.part.book(), seat.Key) == nil && ctx.Err() == nil {
			all = append(all, t.find(ctx, seat)...)
		}
	}
	return all
}

// findLimit is how long a seat is looked for on the node's own links.
const findLimit = 3 * time.Second

// findOnLinks asks the machines on the node's own links for a seat, by its name: behind another
// router all of them may have other addresses, and none has told anybody. A node that says its
// own name nowhere asks for none.
func (t *Talk) findOnLinks(ctx context.Context, seat roster.Seat) (all []netip.AddrPort) {
	network, err := control.ReadNetwork(t.part.run)
	if err != nil || len(network.Named()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	found, err := mdns.Lookup(ctx, seat.Name+".local")
	if err != nil {
		return nil // nobody has the name, or there is no link: its session is tried again
	}
	for _, a := range found {
		all = append(all, netip.AddrPortFrom(a, api.Port))
	}
	return all
}

// Limits of a way to another node.
const (
	reachEach = 5 * time.Second // for one address
	reachMost = 4               // addresses
)

// reachNode opens a connection to the API of another node that has a seat, at the first of its
// addresses where its TLS key answers: behind routers of their own, machines have one address, and
// it may be this one's, too. Whose key that is, is for who speaks over it to find out.
func (t *Talk) reachNode(ctx context.Context, name string) (net.Conn, error) {
	now := t.session.Load()
	if now == nil {
		return nil, errNoSeat
	}
	seat, ok := now.taken.State().Roster.ByName(name)
	if !ok {
		return nil, care.ErrNoNode
	}
	if err := refuse(t.part.book())(seat); err != nil {
		return nil, err
	}
	addresses := t.reach(now.engine, now.taken, seat)
	if len(addresses) == 0 {
		return nil, errors.New("this node knows no address of it")
	}
	key, known := now.tlsKey(seat.Key)
	dialer := net.Dialer{Timeout: reachEach}
	var all error
	for _, a := range addresses[:min(len(addresses), reachMost)] {
		err := error(nil)
		if known {
			err = answers(ctx, &dialer, a.String(), key)
		}
		if err == nil {
			var conn net.Conn
			if conn, err = dialer.DialContext(ctx, "tcp", a.String()); err == nil {
				return now.ways.add(conn, seat, refuse(t.part.book()))
			}
		}
		all = errors.Join(all, err)
	}
	return nil, all
}

// ways are the connections to other seats that this node carries for operators.
type ways struct {
	mu   sync.Mutex // guards open
	open map[*way]roster.Seat
}

type way struct {
	net.Conn
	among *ways
}

func (w *way) Close() error {
	w.among.mu.Lock()
	delete(w.among.open, w)
	w.among.mu.Unlock()
	return w.Conn.Close()
}

// add notes a way to a seat, unless that is refused by now.
func (w *ways) add(conn net.Conn, to roster.Seat, refuse func(roster.Seat) error) (net.Conn, error) {
	one := &way{conn, w}
	w.mu.Lock()
	if w.open == nil {
		w.open = make(map[*way]roster.Seat)
	}
	w.open[one] = to
	w.mu.Unlock()
	if err := refuse(to); err != nil {
		_ = one.Close()
		return nil, err
	}
	return one, nil
}

// cut ends those to seats that are refused.
func (w *ways) cut(refuse func(roster.Seat) error) {
	var all []*way
	w.mu.Lock()
	for one, to := range w.open {
		if refuse(to) != nil {
			all = append(all, one)
		}
	}
	w.mu.Unlock()
	for _, one := range all {
		_ = one.Close()
	}
}

// answers says whether a machine with a TLS key answers at an address.
func answers(ctx context.Context, dialer *net.Dialer, address string, key document.Hash) error {
	conn, err := (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // the key is what counts
		VerifyConnection: func(c tls.ConnectionState) error {
			if got := document.HashOf(c.PeerCertificates[0].RawSubjectPublicKeyInfo); got != key {
				return fmt.Errorf("%s: another machine answers there, with key %s", address, got.Short())
			}
			return nil
		},
	}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
