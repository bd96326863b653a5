package enrol

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Member is the side that lets nodes in, and renews them.
type Member struct {
	Ledger Ledger
	Papers Papers
	// Word is the envelope of this seat's word for its TLS key.
	Word func() (signed.Envelope, error)
	// Sign makes the certificate of a node for a key, in DER. The error wraps [ErrCannotSign]
	// where this node cannot: it does not hold the CA's key, or does not know the time.
	Sign func(name string, key *ecdsa.PublicKey) ([]byte, error)
	// CanSign says why it would not.
	CanSign func() error
	// TLSKey is the TLS key that a seat calls its own; false: nobody has told this node.
	TLSKey func(seat signed.Key) (document.Hash, bool)
	// Refuse says why there is to be nothing to do with a seat now, as with one that is isolated.
	Refuse func(roster.Seat) error
	// Revoked says whether a TLS key or an operator's was withdrawn, as in fleet.Peer.Key.
	Revoked func(key string) bool
	// RevokedKeys are all of these, for nodes that come in, and Told those that another member alone has
	// called so, when this node came in.
	RevokedKeys, Told func() []string
	// Now is the earliest that the time can be, or the time if it is known.
	Now func() time.Time

	mu       sync.Mutex // guards what follows
	visitors room       // who has a name in the fleet, by key
	guests   room       // who wants in, or is new, by network
	counts   map[string]uint64
	said     time.Time // a refusal, in the log
}

// Ledger is the member's ledger. agent/pinned's fits.
type Ledger interface {
	State() ledger.State
	Entry(height int64) (ledger.Entry, error)
}

// Papers are what operators and nodes have signed besides. agent/papers' Store fits.
type Papers interface {
	Admit(u token.Use, now time.Time) error
	Opens(r token.Record, tlsKey document.Hash, now time.Time) error
	Take(raw []byte) (news bool, err error)
	Accepted(node signed.Key) (a token.Accept, paper []byte, ok bool)
	CameBy(node signed.Key) (token.Use, bool)
	Refused() map[string]uint64
}

// Why a member refuses. What is about a token has the errors of update/fleet/token.
var (
	ErrCannotSign = errors.New("this node signs no certificates now")
	ErrStranger   = errors.New("the key has no seat, and nobody has accepted it")
	ErrOtherKey   = errors.New("the fleet knows the node by another TLS key")
	errUnheard    = errors.New("this node has not heard yet which TLS key is that node's own: try again")
	errBusy       = errors.New("too many nodes come at once: try again")
	errBehind     = errors.New("this node has fewer records than the token's checkpoint: ask another one")
)

// Limits of what strangers use up.
const (
	maxVisitors = 8                // connections at a time of nodes that are in
	maxGuests   = 8                // and of others, who have shown a token's record
	maxOfNet    = 4                // of those, of one network
	firstLimit  = 10 * time.Second // until somebody has said who it is
	mostAsked   = 8                // questions on one
	logBetween  = time.Minute      // two refusals in the log
)

// Serve takes a connection whose handshake is over, and returns when it is. known is called once
// the caller has shown that it knows the record of a token that still lets somebody in, or has a key
// of this fleet: from then on this bounds what it uses up, and no longer the door. Until then it takes
// nobody's place here.
func (m *Member) Serve(ctx context.Context, conn *tls.Conn, known func()) {
	end := func() { conn.NetConn().Close() }
	defer end()
	stop := context.AfterFunc(ctx, end)
	defer stop()
	first := time.AfterFunc(firstLimit, end)
	defer first.Stop()
	w := newWire(conn)
	err := m.attend(w, end, func() {
		first.Stop()
		known()
	})
	if err != nil {
		m.refuse(w, err)
	}
}

// attend hears who somebody is, gives him a place, and serves him there. end is called to end that.
func (m *Member) attend(w *wire, end, known func()) error {
	g, err := m.welcome(w)
	if err != nil {
		return err
	}
	leave, ok := m.enter(g, netOf(w.conn.RemoteAddr()), end)
	if !ok {
		return errBusy
	}
	defer leave()
	known()
	whole := time.AfterFunc(wholeLimit, end)
	defer whole.Stop()
	return m.serve(w, g)
}

// enter takes a place: those who have a name in the fleet do not wait for those who want in.
func (m *Member) enter(g *guest, from string, end func()) (leave func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.guests.most == 0 {
		m.visitors, m.guests = room{most: maxVisitors, ofOne: 1, keyed: true}, room{most: maxGuests, ofOne: maxOfNet}
	}
	in, p := &m.guests, &place{of: from, end: end}
	if g.name != "" {
		in, p.of = &m.visitors, string(g.key)
	}
	out, ok := in.enter(p, time.Now())
	if out != nil {
		out.end()
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		in.leave(p)
	}, ok
}

// refuse counts it, and says why to whoever is there: so it is counted by the time that is heard. A
// connection that has ended is no refusal.
func (m *Member) refuse(w *wire, why error) {
	if errors.Is(why, errEnded) {
		return
	}
	m.count(w.conn.RemoteAddr(), why)
	_ = w.send(isRefusal, []byte(notice.Text(why.Error())))
}

// count counts a refusal, and logs one now and then.
func (m *Member) count(from net.Addr, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = make(map[string]uint64)
	}
	m.counts[word(why)]++
	if now := time.Now(); now.Sub(m.said) >= logBetween {
		m.said = now
		log.Printf("agent: enrolment: %s is refused: %v", from, why)
	}
}

// errEnded is of a caller who has all that it wants.
var errEnded = errors.New("the caller has gone")

// word is what a refusal is counted as.
func word(why error) string {
	for _, c := range []struct {
		is   error
		word string
	}{
		{errBusy, "busy"}, {ErrStranger, "stranger"}, {errFrame, "not the protocol"}, {ErrCannotSign, "cannot sign"}, {errBehind, "behind"},
		{ErrOtherKey, "another TLS key"}, {errUnheard, "TLS key not known"}, {order.ErrIsolated, "isolated"},
		{fleet.ErrRevoked, "revoked"}, {ledger.ErrWithdrawn, "token by a revoked operator"}, {token.ErrRevoked, "token revoked"}, {token.ErrUsed, "token used up"}, {token.ErrExpired, "token expired"},
		{token.ErrOther, "token for another node"}, {token.ErrName, "name of another node"}, {token.ErrPaper, "not signed by an operator"}, {token.ErrUse, "not a use of a token"},
	} {
		if errors.Is(why, c.is) {
			return c.word
		}
	}
	return "other"
}

// Refused is how often which refusal was given.
func (m *Member) Refused() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]uint64, len(m.counts))
	for why, n := range m.counts {
		all[why] = n
	}
	return all
}

// guest is who is at the other end.
type guest struct {
	tlsKey document.Hash
	record token.Paper // of the token that it has; none: it has said who it is
	key    signed.Key
	name   string // that it may have a certificate for; "": none
	not    error  // why it gets none for the TLS key of this connection
}

// welcome hears who somebody is.
func (m *Member) welcome(w *wire) (*guest, error) {
	tlsKey, err := tlsKeyOf(w.state)
	if err != nil {
		return nil, err
	}
	if m.Revoked(tlsKey.String()) || slices.Contains(m.Told(), tlsKey.String()) { // it may ask another member
		return nil, fmt.Errorf("TLS key %s: %w", tlsKey.Short(), fleet.ErrRevoked)
	}
	kind, content, err := w.receive(maxSaid)
	if err != nil {
		return nil, ended(err)
	}
	g := &guest{tlsKey: tlsKey}
	switch kind {
	case sayRecord:
		g.record, err = m.hearRecord(content, tlsKey)
	case sayVisit:
		err = m.hearVisit(g, content, nil, w.state)
	case sayCame:
		var visit, use []byte
		if visit, use, err = parseCame(content); err == nil {
			err = m.hearVisit(g, visit, use, w.state)
		}
	default:
		err = fmt.Errorf("%w: kind %d", errFrame, kind)
	}
	return g, err
}

// serve answers him.
func (m *Member) serve(w *wire, g *guest) error {
	own, err := m.Word()
	if err != nil {
		return fmt.Errorf("%w: it has not said yet which TLS key is its own", ErrCannotSign)
	}
	if err := w.send(isWord, own.Bytes()); err != nil {
		return ended(err)
	}
	for range mostAsked {
		if err := m.hear(w, g); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d questions", errFrame, mostAsked)
}

// ended is the error of a connection, if there is one: nobody is there to be told.
func ended(err error) error {
	if err == nil || errors.Is(err, errFrame) {
		return err
	}
	return fmt.Errorf("%w: %w", errEnded, err)
}

// hearRecord wants the record of a token that a listed operator has signed, and that still lets
// somebody in: whoever holds the TLS key, if that has been let in by it, or anybody.
func (m *Member) hearRecord(content []byte, tlsKey document.Hash) (token.Paper, error) {
	p, err := token.ParsePaper(content)
	if err != nil {
		return p, err
	}
	r, err := token.OpenRecord(p)
	if err != nil {
		return p, err
	}
	state := m.Ledger.State().Without(m.Revoked)
	if _, err := p.Verify(state); err != nil {
		return p, err
	}
	if r.Height > state.Height {
		return p, errBehind
	}
	if err := m.Papers.Opens(r, tlsKey, m.Now()); err != nil {
		return p, err
	}
	return p, m.CanSign()
}

// hearVisit says who a node is that has a key in this fleet. use is that of the token by which it says
// that it came; nil: it says nothing of the kind.
func (m *Member) hearVisit(g *guest, content, use []byte, state tls.ConnectionState) error {
	ledger := m.Ledger.State()
	key, err := openVisit(content, ledger.Fleet(), state)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStranger, err)
	}
	g.key = key
	known, err := m.owns(key, g.tlsKey)
	switch {
	case err != nil && !errors.Is(err, ErrOtherKey):
		return err
	case err == nil && !known:
		err = errUnheard
	}
	g.not = err
	if seat, ok := ledger.Roster.ByKey(key); ok {
		g.name = seat.Name
		return nil
	}
	if a, _, ok := m.Papers.Accepted(key); ok {
		if seat, taken := ledger.Roster.ByName(a.Name); taken && seat.Key != key {
			return fmt.Errorf("%w: %s has seat %d", token.ErrName, a.Name, seat.Number)
		}
		g.name = a.Name
		return nil
	}
	_, came := m.Papers.CameBy(key)
	if !came && use != nil {
		if err := m.hearCame(key, g.tlsKey, use, state); err != nil {
			return err
		}
		came = true
	}
	if came {
		return nil // it may ask whether it is accepted
	}
	return fmt.Errorf("%w: key %s", ErrStranger, key.ID().Short())
}

// hearCame takes a use that this member has not heard of from whoever let the node in: with a
// certificate of the fleet, for the name and the key of the use, it was let in by somebody who may.
func (m *Member) hearCame(node signed.Key, tlsKey document.Hash, use []byte, state tls.ConnectionState) error {
	u, err := token.OpenUse(use)
	if err != nil {
		return err
	}
	certificates := state.PeerCertificates
	peer, err := m.Ledger.State().Genesis.VerifyPeer(certificates[0], certificates[1:], time.Time{}, false, m.Revoked)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStranger, err)
	}
	if u.Node != node || u.TLSKey != tlsKey || peer.Kind != fleet.KindNode || peer.Name != u.Name {
		return fmt.Errorf("%w: it is of another node than %s", token.ErrUse, peer.Name)
	}
	if _, err := m.Papers.Take(use); err != nil {
		return err
	}
	log.Printf("agent: node %s (key %s) shows that it came by token %s, of which this node had not heard", u.Name, u.Node.ID().Short(), u.Record.Key.ID().Short())
	return nil
}

// owns wants a TLS key to be the one that the fleet knows of a node, so that whoever has come by the
// node's key for its seat gets no certificate for another one: who revokes a node knows the TLS key
// alone. Where the operator was revoked whose word for a TLS key counts, nobody can tell whether he had seen
// it: the one by which the node came counts beside it, and fleet status wants the node to be accepted anew.
// known says that there is such a one. The error wraps [ErrOtherKey], [fleet.ErrRevoked] of
// any TLS key that counts as the node's, or says that its seat is isolated.
func (m *Member) owns(node signed.Key, tlsKey document.Hash) (known bool, err error) {
	var all []document.Hash
	if seat, ok := m.Ledger.State().Roster.ByKey(node); ok {
		if err := m.Refuse(seat); err != nil {
			return false, err
		}
		if own, ok := m.TLSKey(node); ok {
			all = append(all, own)
		}
	}
	u, came := m.Papers.CameBy(node)
	a, paper, accepted := m.Papers.Accepted(node)
	switch accepted = accepted && !a.TLSKey.IsZero(); {
	case accepted && came && tlsKey == u.TLSKey && m.withdrawn(paper): // a revoked operator's word locks nobody out
		all = append(all, u.TLSKey)
	case accepted:
		all = append(all, a.TLSKey) // an operator's word, after the use
	case came:
		all = append(all, u.TLSKey)
	}
	for _, one := range all {
		if m.Revoked(one.String()) {
			return true, fmt.Errorf("node of key %s: its TLS key %s: %w", node.ID().Short(), one.Short(), fleet.ErrRevoked)
		}
	}
	if len(all) > 0 && all[0] != tlsKey {
		return true, fmt.Errorf("node of key %s: %w, %s", node.ID().Short(), ErrOtherKey, all[0].Short())
	}
	return len(all) > 0, nil
}

// withdrawn says whether the key of who has signed a paper was revoked.
func (m *Member) withdrawn(paper []byte) bool {
	p, err := token.ParsePaper(paper)
	return err == nil && m.Revoked(document.HashOf(p.Issuer).String())
}

// hear answers one question.
func (m *Member) hear(w *wire, g *guest) error {
	kind, content, err := w.receive(maxSaid)
	if err != nil {
		return ended(err)
	}
	switch {
	case kind == askLedger:
		from, err := number(content)
		if err != nil {
			return err
		}
		return m.giveLedger(w, from)
	case kind == sayUse && g.record.Bytes() != nil:
		return m.hearUse(w, g, content)
	case kind == askSigned && g.key != "":
		if g.name == "" {
			return fmt.Errorf("%w: key %s came by a token and is new", ErrStranger, g.key.ID().Short())
		}
		if g.not != nil {
			return g.not
		}
		return m.giveSigned(w, g)
	case kind == askRevoked && g.key != "":
		return ended(w.send(isRevoked, revokedFrame(m.RevokedKeys(), m.Told())))
	case kind == askPapers && g.key != "":
		if _, paper, ok := m.Papers.Accepted(g.key); ok {
			return ended(w.send(isPaper, paper))
		}
		return ended(w.send(isNone, nil))
	}
	return fmt.Errorf("%w: kind %d", errFrame, kind)
}

func (m *Member) giveLedger(w *wire, from int64) error {
	height := m.Ledger.State().Height
	for h := max(1, from); h <= height; h++ {
		e, err := m.Ledger.Entry(h)
		if err != nil {
			return fmt.Errorf("%w: record %d cannot be read here", ErrCannotSign, h)
		}
		if err := w.send(isEntry, entryFrame(h, e)); err != nil {
			return ended(err)
		}
	}
	return ended(w.send(isEnd, binary.AppendUvarint(nil, uint64(height))))
}

// hearUse lets a node in. It is noted before the certificate is made: a member that is cut off
// between the two has used the token for this node, which may come again.
func (m *Member) hearUse(w *wire, g *guest, content []byte) error {
	u, err := token.OpenUse(content)
	if err != nil {
		return err
	}
	if u.TLSKey != g.tlsKey || u.Token.ID() != g.record.ID() {
		return fmt.Errorf("%w: it is of another connection", token.ErrUse)
	}
	if _, err := m.owns(u.Node, u.TLSKey); err != nil {
		return err
	}
	if err := m.CanSign(); err != nil {
		return err
	}
	if err := m.Papers.Admit(u, m.Now()); err != nil {
		return err
	}
	g.key, g.name = u.Node, u.Name
	log.Printf("agent: node %s (key %s, TLS key %s) came by token %s, and is new", u.Name, u.Node.ID().Short(), u.TLSKey.Short(), u.Record.Key.ID().Short())
	return m.giveSigned(w, g)
}

func (m *Member) giveSigned(w *wire, g *guest) error {
	key, err := fleet.P256(w.state.PeerCertificates[0].PublicKey)
	if err != nil {
		return fmt.Errorf("%w: %w", token.ErrUse, err)
	}
	der, err := m.Sign(g.name, key)
	if err != nil {
		return err
	}
	return ended(w.send(isSigned, der))
}
