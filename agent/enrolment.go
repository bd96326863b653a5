package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/enrol"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/pinned"
	"kogge.example/agent/speaker"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// clock is what a node knows of the time.
type clock struct {
	sure  func() bool
	floor func() time.Time
}

// now is the earliest that the time can be, or the time if it is known.
func (c clock) now() time.Time {
	now := c.floor()
	if at := time.Now(); c.sure() && at.After(now) {
		now = at
	}
	return now
}

// unsureAhead is how far beyond what has passed for sure the clock may be of a node that signs
// certificates, and whose clock follows no servers: a certificate that begins too late is refused
// by everybody, and one that begins early only ends early.
const unsureAhead = 366 * 24 * time.Hour

// signs is the time by which a certificate is signed; false: this node does not know it.
func (c clock) signs() (time.Time, bool) {
	now, floor := time.Now(), c.floor()
	if now.Before(floor) {
		return floor, true
	}
	return now, c.sure() || now.Sub(floor) <= unsureAhead
}

// memberFor is this node's side for nodes that come, while it has a seat and gossips.
func memberFor(p *part, c clock, engine *gossip.Engine, taken *pinned.Ledger, seat *identity.Seat, held *identity.Custody) *enrol.Member {
	ca := func() (*ecdsa.PrivateKey, time.Time, error) {
		genesis := taken.State().Genesis
		key := held.CA(genesis.NodeCA)
		now, known := c.signs()
		switch {
		case key == nil:
			return nil, now, fmt.Errorf("%w: it does not hold the key of the node CA", enrol.ErrCannotSign)
		case !known:
			return nil, now, fmt.Errorf("%w: its clock is not set", enrol.ErrCannotSign)
		case now.Before(genesis.NodeCA.NotBefore) || now.After(genesis.NodeCA.NotAfter):
			return nil, now, fmt.Errorf("%w: the node CA is not valid now", enrol.ErrCannotSign)
		}
		return key, now, nil
	}
	return &enrol.Member{
		Ledger: taken, Papers: p.papers(), Revoked: p.node.Revoked, Now: c.now,
		Word:    func() (signed.Envelope, error) { return word(engine, seat.Key) },
		CanSign: func() error { _, _, err := ca(); return err },
		Sign: func(name string, key *ecdsa.PublicKey) ([]byte, error) {
			by, now, err := ca()
			if err != nil {
				return nil, err
			}
			genesis := taken.State().Genesis
			return fleet.SignPeer(fleet.Peer{Kind: fleet.KindNode, Name: name, Fleet: genesis.ID()}, key, genesis.NodeCA, by, now)
		},
	}
}

// sayCustody says to which key secrets for this seat are encrypted, and gives the CA's key to
// seats that lack it.
func (t *talk) sayCustody(says *speaker.Speaker, engine *gossip.Engine, held *identity.Custody, state ledger.State, self signed.Key) {
	seat, _ := state.Roster.ByKey(self)
	if held == nil || !seat.Member && !seat.Spare {
		says.Quiet(notice.WrapKeyKind)
		says.Quiet(notice.CAKeyKind)
		if held != nil {
			if err := held.Forget(); err != nil {
				log.Printf("agent: %v", err)
			}
		}
		return
	}
	if held.TakeShare(state, engine.Objects(notice.CAKeyKind)) {
		log.Printf("agent: this node holds the key of the node CA now")
	}
	says.Say(notice.WrapKeyKind, held.Says(seat.Number).Encode())
	k, gives := t.shares.Give(held, state, func(by signed.Key) (notice.WrapKey, bool) {
		e, ok := engine.Object(notice.WrapKeyKind, by)
		if !ok {
			return notice.WrapKey{}, false
		}
		w, err := notice.OpenWrapKey(e)
		return w, err == nil
	})
	if _, before := engine.Object(notice.CAKeyKind, self); gives || before && !k.CA.IsZero() {
		says.Say(notice.CAKeyKind, k.Encode())
	}
}

// newcomer is a node that comes into its fleet by a token, or that visits members of it: for its
// acceptance, for records if it has no seat, and for its next certificate.
type newcomer struct {
	part  *part
	talk  *talk
	clock clock
	name  func() string // the machine's
	// meet says when something has changed that may be a reason to look again.
	meet chan struct{}
}

// Times of a newcomer.
const (
	soonest, seldom = 5 * time.Second, 5 * time.Minute // between two tries to come in
	askFirst        = time.Minute                      // after which one that is new asks again whether it is accepted
	askLast         = 15 * time.Minute
	checkEvery      = time.Hour     // whether a certificate is to be renewed
	followEvery     = 6 * time.Hour // for records, without a seat
)

// run comes in, and visits, until ctx ends.
func (n *newcomer) run(ctx context.Context) {
	tries := 0
	for ctx.Err() == nil {
		wait, ok := n.step(ctx, tries)
		if tries++; ok {
			tries = 0
		}
		select {
		case <-ctx.Done():
		case <-n.meet:
		case <-time.After(wait/2 + mathrand.N(wait/2+1)):
		}
	}
}

// step does what is to be done now, and says when to look again; false: it did not succeed.
func (n *newcomer) step(ctx context.Context, tries int) (time.Duration, bool) {
	if e, waits := n.part.node.Enrolment(); waits {
		if err := n.enrol(ctx, e); err != nil {
			n.part.wait(err)
			if tries < 3 || tries%20 == 0 {
				log.Printf("agent: %v", err)
			}
			return min(soonest<<min(tries, 10), seldom), false
		}
		n.talk.look()
		n.part.tell()
		return soonest, true
	}
	taken, err := n.part.ledger()
	if err != nil || taken.State().Height == 0 && !n.part.node.Came() {
		return checkEvery, true
	}
	seated, fresh := n.part.seat0(taken) != 0, n.part.isNew()
	due := fleet.RenewDue(n.part.node.Certificate().Leaf, n.part.node.Genesis().NodeCA, n.clock.now())
	follows := fresh || n.part.accepted()
	if seated && !due || !seated && !follows {
		return checkEvery, true
	}
	err = n.visit(ctx, taken, due && !fresh)
	if err != nil {
		if tries < 3 || tries%20 == 0 {
			log.Printf("agent: %v", err)
		}
		return min(askFirst<<min(tries, 10), askLast), false
	}
	switch {
	case n.part.isNew():
		return min(askFirst<<min(tries, 10), askLast), false
	case seated || due:
		return checkEvery, true
	}
	return followEvery, true
}

// enrol comes in by a token, at the first member that lets this node in.
func (n *newcomer) enrol(ctx context.Context, e identity.Enrolment) error {
	seat, taken, err := n.part.before()
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	if len(e.Members) == 0 {
		return errors.New("enrol: join.yaml names no member's address: an operator can adopt this node")
	}
	says, err := token.OpenRecord(e.Record)
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	name := cmp.Or(says.Node, n.name())
	own := &enrol.Node{Genesis: n.part.node.Genesis(), Certificate: n.part.node.Certificate(), Key: seat.Key, Seal: seat.Seal, Ledger: taken}
	var all error
	for _, address := range e.Members { // in their order: so the console says the same as long as nothing changes
		answer, err := own.Enrol(ctx, address, e.Token, e.Record, name, func(der []byte) error { return n.part.node.Enrol(der) })
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		log.Printf("agent: %s let this node in: %s. It is new until an operator accepts it: kogge fleet accept %s", answer.Seat.Name, n.part.node, n.part.node.Name())
		return nil
	}
	return all
}

// visit asks members, until one has answered all.
func (n *newcomer) visit(ctx context.Context, taken *pinned.Ledger, renew bool) error {
	seat, _, err := n.part.whole()
	if err != nil {
		return err
	}
	own := &enrol.Node{Genesis: n.part.node.Genesis(), Certificate: n.part.node.Certificate(), Key: seat.Key, Seal: seat.Seal, Ledger: taken}
	all := errors.New("no member's address is known")
	for i, address := range shuffled(n.contacts(taken, seat.Key)) {
		if i == 0 {
			all = nil
		}
		before := taken.State().Height
		answer, err := own.Visit(ctx, address, renew)
		if taken.State().Height > before {
			n.talk.look()
		}
		if err == nil && answer.Paper != nil {
			_, err = n.part.papers().Take(answer.Paper)
			n.part.tell()
		}
		if err == nil && renew {
			if err = n.part.node.Renew(answer.Certificate); err == nil {
				log.Printf("agent: %s has renewed the certificate of this node: it is good until %s", answer.Seat.Name, n.part.node.Certificate().Leaf.NotAfter.UTC().Format(time.DateOnly))
			}
		}
		if err == nil {
			return nil
		}
		all = errors.Join(all, err)
	}
	return all
}

// contacts are where members may answer: by their own word, by the ledger, and by join.yaml.
func (n *newcomer) contacts(taken *pinned.Ledger, self signed.Key) (all []netip.AddrPort) {
	var engine *gossip.Engine
	if now := n.talk.session.Load(); now != nil {
		engine = now.engine
	}
	for _, seat := range taken.State().Roster.Custodians() {
		if seat.Key != self {
			all = append(all, n.talk.reach(engine, taken, seat)...)
		}
	}
	all = append(all, n.part.node.Members()...)
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

func shuffled(all []netip.AddrPort) []netip.AddrPort {
	all = slices.Clone(all)
	mathrand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// again has the newcomer look again.
func (n *newcomer) again() {
	select {
	case n.meet <- struct{}{}:
	default:
	}
}

// errNew is the answer of a node that nobody has accepted.
var errNew = errors.New("this node came by a token, and no operator has accepted it: it gets no containers, no secrets and no volumes")

// mayServe says why a call is not answered yet, by a node that is new in its fleet.
func (p *part) mayServe(procedure string) error {
	for _, service := range []string{apiv1connect.WorkloadServiceName, apiv1connect.RegistryServiceName, apiv1connect.VolumeServiceName} {
		if strings.HasPrefix(procedure, "/"+service+"/") && p.isNew() {
			return api.Refuse(rpc.CodeFailedPrecondition, apiv1.Reason_REASON_NEW, errNew)
		}
	}
	return nil
}
