package enrol

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// Node is the side that wants in, or that visits.
type Node struct {
	Genesis *fleet.Genesis
	// Certificate is what this node shows: any one of its key.
	Certificate tls.Certificate
	Key         signed.Key // that it has for its seat
	Seal        token.Seal // signs with it
	// Revoked says whether a TLS key was withdrawn, as in fleet.Peer.Key: who shows one is no member.
	Revoked func(key string) bool
	// Ledger takes what members have. agent/pinned's fits.
	Ledger interface {
		State() ledger.State
		Take(height int64, e ledger.Entry) error
	}
	// Refuse says why a member is not to be asked. nil: all may be.
	Refuse func(roster.Seat) error
	// Seen keeps aside what members have shown that is verified, until one has let the node in: the
	// ledger of an old fleet takes more than one try. agent/pinned's fits.
	Seen interface {
		State() ledger.State
		Log() *ledger.Log
		Take(height int64, e ledger.Entry) error
	}
	// Came is the use of a token by which the node came, while it is new; nil: there is none.
	Came []byte
}

// Answer is what a member had for the node.
type Answer struct {
	Seat        roster.Seat // the member's
	Certificate []byte      // in DER; nil: the node asked for none
	Paper       []byte      // the node's acceptance; nil: there is none
}

// ErrNotAMember is of somebody who answers at a member's address, and has not shown to be one.
var ErrNotAMember = errors.New("who answers there is no seat of the fleet")

// Limits of an enrolment.
const (
	dialLimit  = 10 * time.Second
	wholeLimit = 10 * time.Minute // with the ledger of a fleet that is old
)

// Enrol has a member let this node in by a token, as name. Before the token is proved, the member
// has shown the ledger of the token's checkpoint, verified from the genesis on, and that its TLS
// key is that of a seat there. What was verified stays in Seen. adopt keeps the certificate, in DER, the
// use of the token, and the keys that the member has as revoked, as in fleet.Peer.Key. Nobody
// has signed that list: it never has the token's issuer in it, so that he can tell his own, which
// takes its place ([identity.Node.Told]). The error wraps [ErrRefused], [ErrNotAMember],
// [token.ErrCheckpoint] or one of the ledger's, or is adopt's.
func (n *Node) Enrol(ctx context.Context, address netip.AddrPort, t fleet.Token, record token.Paper, name string, adopt func(der, use []byte, revoked []string) error) (Answer, error) {
	a, err := n.enrol(ctx, address, t, record, name, adopt)
	if err != nil {
		return Answer{}, fmt.Errorf("enrol at %s: %w", address, err)
	}
	return a, nil
}

func (n *Node) enrol(ctx context.Context, address netip.AddrPort, t fleet.Token, record token.Paper, name string, adopt func(der, use []byte, revoked []string) error) (Answer, error) {
	says, err := token.OpenRecord(record)
	if err != nil {
		return Answer{}, err
	}
	own, err := tlsKeyOfOwn(n.Certificate)
	if err != nil {
		return Answer{}, err
	}
	w, hangUp, err := n.dial(ctx, address)
	if err != nil {
		return Answer{}, err
	}
	defer hangUp()
	if err := w.send(sayRecord, record.Bytes()); err != nil {
		return Answer{}, err
	}
	_, word, err := w.answer(isWord)
	if err != nil {
		return Answer{}, err
	}
	if err := n.hearLedger(w, n.Seen.State().Height+1, n.Seen.Take); err != nil {
		return Answer{}, err
	}
	if err := says.Leads(n.Seen.Log()); err != nil {
		return Answer{}, err
	}
	if _, err := record.Verify(n.Seen.State()); err != nil {
		return Answer{}, err
	}
	seat, err := n.member(w, word, n.Seen.State())
	if err != nil {
		return Answer{}, err
	}
	use, err := token.NewUse(t, record, n.Key, own, name, n.Seal)
	if err != nil {
		return Answer{}, err
	}
	if err := w.send(sayUse, use.Bytes()); err != nil {
		return Answer{}, err
	}
	_, der, err := w.answer(isSigned)
	if err == nil && len(der) > maxDER {
		err = fmt.Errorf("%w: a certificate of %d bytes", errFrame, len(der))
	}
	var revoked []string
	if err == nil {
		revoked, err = n.hearRevoked(w, record)
	}
	if err == nil {
		err = adopt(der, use.Bytes(), revoked)
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{Seat: seat, Certificate: der}, nil
}

// Visit asks a member for records that this node lacks, for its acceptance, and, if renew says so,
// for a certificate that follows on its own, which may be over. The error wraps [ErrRefused],
// [ErrNotAMember] or one of the ledger's.
func (n *Node) Visit(ctx context.Context, address netip.AddrPort, renew bool) (Answer, error) {
	a, err := n.visit(ctx, address, renew)
	if err != nil {
		return Answer{}, fmt.Errorf("visit %s: %w", address, err)
	}
	return a, nil
}

func (n *Node) visit(ctx context.Context, address netip.AddrPort, renew bool) (a Answer, err error) {
	own, err := tlsKeyOfOwn(n.Certificate)
	if err != nil {
		return a, err
	}
	w, hangUp, err := n.dial(ctx, address)
	if err != nil {
		return a, err
	}
	defer hangUp()
	here, err := channel(w.state)
	if err != nil {
		return a, err
	}
	who, err := n.Seal(VisitKind, n.Ledger.State().Fleet(), 0, encode(visit{version, here, own}))
	if err != nil {
		return a, err
	}
	kind, says := byte(sayVisit), who.Bytes()
	if n.Came != nil {
		kind, says = sayCame, cameFrame(who.Bytes(), n.Came)
	}
	if err := w.send(kind, says); err != nil {
		return a, err
	}
	_, word, err := w.answer(isWord)
	if err != nil {
		return a, err
	}
	if err := n.hearLedger(w, n.Ledger.State().Height+1, n.Ledger.Take); err != nil {
		return a, err
	}
	if a.Seat, err = n.member(w, word, n.Ledger.State()); err == nil && n.Refuse != nil {
		err = n.Refuse(a.Seat)
	}
	if err != nil {
		return a, err
	}
	if err := w.send(askPapers, nil); err != nil {
		return a, err
	}
	is, paper, err := w.answer(isPaper, isNone)
	if err != nil {
		return a, err
	}
	if is == isPaper {
		a.Paper = paper
	}
	if !renew {
		return a, nil
	}
	if err := w.send(askSigned, nil); err != nil {
		return a, err
	}
	_, der, err := w.answer(isSigned)
	if err == nil && len(der) > maxDER {
		err = fmt.Errorf("%w: a certificate of %d bytes", errFrame, len(der))
	}
	a.Certificate = der
	return a, err
}

// hearLedger asks for the records from a height on.
func (n *Node) hearLedger(w *wire, from int64, take func(height int64, e ledger.Entry) error) error {
	if err := w.send(askLedger, binary.AppendUvarint(nil, uint64(from))); err != nil {
		return err
	}
	for want := from; ; want++ {
		kind, content, err := w.answer(isEntry, isEnd)
		if err != nil || kind == isEnd {
			return err
		}
		height, e, err := parseEntry(content)
		if err == nil && height != want {
			err = fmt.Errorf("%w: record %d, and %d is wanted", errFrame, height, want)
		}
		if err == nil {
			err = take(height, e)
		}
		if err != nil {
			return err
		}
	}
}

// hearRevoked asks for the keys that the member has as revoked. Those that it was told of itself come
// last: it may let in by the token of somebody of whom it knows no more than that.
func (n *Node) hearRevoked(w *wire, record token.Paper) ([]string, error) {
	if err := w.send(askRevoked, nil); err != nil {
		return nil, err
	}
	_, content, err := w.answer(isRevoked)
	if err != nil {
		return nil, err
	}
	keys, told, err := parseRevoked(content)
	if issuer := document.HashOf(record.Issuer); err == nil && slices.Contains(keys, issuer.String()) {
		err = fmt.Errorf("%w: it lets this node in by a token, and has the key of who gave it out, %s, as revoked", ErrNotAMember, issuer.Short())
	}
	return slices.Concat(keys, told), err
}

// member wants that who answers is a seat, by its own word and the key of the handshake, which was
// not revoked.
func (n *Node) member(w *wire, word []byte, s ledger.State) (roster.Seat, error) {
	key, err := tlsKeyOf(w.state)
	if err != nil {
		return roster.Seat{}, err
	}
	if n.Revoked != nil && n.Revoked(key.String()) {
		return roster.Seat{}, fmt.Errorf("%w: its TLS key %s: %w", ErrNotAMember, key.Short(), fleet.ErrRevoked)
	}
	e, err := signed.Open(word)
	if err != nil {
		return roster.Seat{}, fmt.Errorf("%w: %w", ErrNotAMember, err)
	}
	seat, err := notice.Bound(e, s, key)
	if err != nil {
		return roster.Seat{}, fmt.Errorf("%w: %w", ErrNotAMember, err)
	}
	return seat, nil
}

func (n *Node) dial(ctx context.Context, address netip.AddrPort) (*wire, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, wholeLimit)
	dialer := net.Dialer{Timeout: dialLimit}
	raw, err := dialer.DialContext(ctx, "tcp", address.String())
	if err != nil {
		cancel()
		return nil, nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol}, SessionTicketsDisabled: true,
		InsecureSkipVerify:   true, // the member's word proves more than a certificate could
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &n.Certificate, nil },
	})
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	hangUp := func() { stop(); cancel(); raw.Close() }
	limited, done := context.WithTimeout(ctx, dialLimit)
	defer done()
	if err := conn.HandshakeContext(limited); err != nil {
		hangUp()
		return nil, nil, err
	}
	return newWire(conn), hangUp, nil
}

// tlsKeyOfOwn is the fingerprint of the key of a certificate.
func tlsKeyOfOwn(c tls.Certificate) (document.Hash, error) {
	if c.Leaf == nil {
		return document.Hash{}, errors.New("this node has no certificate")
	}
	return document.HashOf(c.Leaf.RawSubjectPublicKeyInfo), nil
}

func encode(value any) []byte {
	raw, err := document.Encode(value)
	if err != nil {
		panic(err) // there is no value of these types that JSON cannot write
	}
	return raw
}
