package main

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log"
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
		case p.node.Forgets():
			return nil, now, fmt.Errorf("%w: it cannot read any more which keys are revoked", enrol.ErrCannotSign)
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

// comerOf is the side of this node that comes into its fleet, or visits members of it.
func comerOf(p *part, t *talk, name func() string) *enrol.Comer {
	return &enrol.Comer{
		Identity: p.node, Open: p.before, New: p.isNew, Accepted: p.accepted, Name: name, Now: t.clock.now,
		Seated:  func() bool { return p.number() != 0 },
		Take:    func(paper []byte) (bool, error) { return p.papers().Take(paper) },
		Changed: func() { t.look(); p.tell() }, Waits: p.wait, Again: make(chan struct{}, 1),
		Contacts: t.contacts,
	}
}

// contacts are where members may answer: by their own word, by the ledger, and by join.yaml.
func (t *talk) contacts(taken *pinned.Ledger, self signed.Key) (all []netip.AddrPort) {
	var engine *gossip.Engine
	if now := t.session.Load(); now != nil {
		engine = now.engine
	}
	for _, seat := range taken.State().Roster.Custodians() {
		if seat.Key != self {
			all = append(all, t.reach(engine, taken, seat)...)
		}
	}
	all = append(all, t.part.node.Members()...)
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// errNew is the answer of a node that nobody has accepted.
var errNew = errors.New("this node came by a token, and no operator has accepted it: it gets no containers, no secrets and no volumes")

// mayServe says why a call is not answered yet, by a node that is new in its fleet.
func (p *part) mayServe(procedure string) error {
	for _, service := range []string{apiv1connect.WorkloadServiceName, apiv1connect.RegistryServiceName, apiv1connect.VolumeServiceName} {
		if strings.HasPrefix(procedure, "/"+service+"/") && p.isNew() {
			if err := p.seatless(); err != nil { // somebody may have accepted it
				return api.Refuse(rpc.CodeFailedPrecondition, apiv1.Reason_REASON_NEW, fmt.Errorf("whether this node was accepted cannot be said: %w", err))
			}
			return api.Refuse(rpc.CodeFailedPrecondition, apiv1.Reason_REASON_NEW, errNew)
		}
	}
	return nil
}
