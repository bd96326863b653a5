package part

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/enrol"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
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

// newMember is this node's side for nodes that come.
func (s *session) newMember() *enrol.Member {
	return &enrol.Member{
		Ledger: s.taken, Papers: s.part.papers(), Revoked: s.part.node.Revoked, Now: s.talk.clock.now, Word: s.ownWord,
		RevokedKeys: s.part.node.RevokedKeys, Told: s.part.node.Told, TLSKey: s.tlsKey, Refuse: refuse(s.part.book()),
		CanSign: func() error { _, _, err := s.nodeCA(); return err },
		Sign: func(name string, key *ecdsa.PublicKey) ([]byte, error) {
			by, now, err := s.nodeCA()
			if err != nil {
				return nil, err
			}
			genesis := s.taken.State().Genesis
			return fleet.SignPeer(fleet.Peer{Kind: fleet.KindNode, Name: name, Fleet: genesis.ID()}, key, genesis.NodeCA, by, now)
		},
	}
}

// nodeCA is the key of the fleet's node CA, and the time by which it signs. The error wraps
// [enrol.ErrCannotSign].
func (s *session) nodeCA() (*ecdsa.PrivateKey, time.Time, error) {
	ca := s.taken.State().Genesis.NodeCA
	key := s.held.CA(ca)
	now, known := s.talk.clock.signs()
	switch {
	case s.part.node.Forgets():
		return nil, now, fmt.Errorf("%w: it cannot read any more which keys are revoked", enrol.ErrCannotSign)
	case key == nil:
		return nil, now, fmt.Errorf("%w: it does not hold the key of the node CA", enrol.ErrCannotSign)
	case !known:
		return nil, now, fmt.Errorf("%w: its clock is not set", enrol.ErrCannotSign)
	case now.Before(ca.NotBefore) || now.After(ca.NotAfter):
		return nil, now, fmt.Errorf("%w: the node CA is not valid now", enrol.ErrCannotSign)
	}
	return key, now, nil
}

// sayCustody says to which key secrets for this seat are encrypted, and gives the CA's key to
// seats that lack it.
func (s *session) sayCustody() {
	state := s.taken.State()
	seat, _ := state.Roster.ByKey(s.seat.Key)
	if s.held == nil || !seat.Member && !seat.Spare {
		s.says.Quiet(notice.WrapKeyKind)
		s.says.Quiet(notice.CAKeyKind)
		if s.held != nil {
			if err := s.held.Forget(); err != nil {
				log.Printf("agent: %v", err)
			}
		}
		return
	}
	if s.held.TakeShare(state, s.engine.Objects(notice.CAKeyKind)) {
		log.Printf("agent: this node holds the key of the node CA now")
	}
	s.says.Say(notice.WrapKeyKind, s.held.Says(seat.Number).Encode())
	k, gives := s.talk.shares.Give(s.held, state, s.wrapKey, refuse(s.part.book()), time.Now())
	if _, before := s.engine.Object(notice.CAKeyKind, s.seat.Key); gives || before && !k.CA.IsZero() {
		s.says.Say(notice.CAKeyKind, k.Encode())
	}
}

// wrapKey is the key to which a seat wants its secrets encrypted, once it has said so.
func (s *session) wrapKey(by signed.Key) (notice.WrapKey, bool) {
	e, ok := s.engine.Object(notice.WrapKeyKind, by)
	if !ok {
		return notice.WrapKey{}, false
	}
	w, err := notice.OpenWrapKey(e)
	return w, err == nil
}

// Comer is the side of this node that comes into its fleet, or visits members of it. name is what
// the machine is called.
func (t *Talk) Comer(name func() string) *enrol.Comer {
	p := t.part
	return &enrol.Comer{
		Identity: p.node, Open: p.before, Seen: p.seen, Settle: p.arrive, New: p.isNew, Accepted: p.accepted, Name: name, Now: t.clock.now,
		Seated:  func() bool { return p.number() != 0 },
		Take:    func(paper []byte) (bool, error) { return p.papers().Take(paper) },
		Changed: func() { t.Look(); p.Tell() }, Waits: p.wait, Again: make(chan struct{}, 1),
		Contacts: t.contacts, Refuse: func(seat roster.Seat) error { return refuse(p.book())(seat) },
		Find: t.findMembers, Own: t.ownCertificate,
	}
}

// ownCertificate is the next certificate of a node that holds the key of the node CA, in DER. The
// error may wrap [enrol.ErrCannotSign].
func (t *Talk) ownCertificate() ([]byte, error) {
	s := t.session.Load()
	if s == nil {
		return nil, errNoSeat
	}
	seat, ok := s.taken.State().Roster.ByKey(s.seat.Key)
	if !ok {
		return nil, errNoSeat
	}
	if err := refuse(t.part.book())(seat); err != nil {
		return nil, err
	}
	key, err := fleet.P256(t.part.node.Certificate().Leaf.PublicKey)
	if err != nil {
		return nil, err
	}
	return s.member.Sign(seat.Name, key)
}

// errNew is the answer of a node that nobody has accepted.
var errNew = errors.New("this node came by a token, and no operator has accepted it: it gets no containers, no secrets and no volumes")

// mayServe says why a call is not answered yet, by a node that is new in its fleet.
func (p *Part) mayServe(procedure string) error {
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
