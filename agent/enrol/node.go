package enrol

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
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
	// Ledger takes what members have. agent/pinned's fits.
	Ledger interface {
		State() ledger.State
		Take(height int64, e ledger.Entry) error
	}
	// Refuse says why a member is not to be asked. nil: all may be.
	Refuse func(roster.Seat) error
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
// key is that of a seat there. adopt keeps the certificate, in DER; then what was verified is
// taken into the node's ledger. The error wraps [ErrRefused], [ErrNotAMember],
// [token.ErrCheckpoint] or one of the ledger's, or is adopt's.
func (n *Node) Enrol(ctx context.Context, address netip.AddrPort, t fleet.Token, record token.Paper, name string, adopt func(der []byte) error) (Answer, error) {
	a, err := n.enrol(ctx, address, t, record, name, adopt)
	if err != nil {
		return Answer{}, fmt.Errorf("enrol at %s: %w", address, err)
	}
	return a, nil
}

func (n *Node) enrol(ctx context.Context, address netip.AddrPort, t fleet.Token, record token.Paper, name string, adopt func(der []byte) error) (Answer, error) {
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
	// Once to see which ledger it is, and a second time below to take it: it may be large.
	seen := ledger.New(n.Genesis)
	if err := n.hearLedger(w, 1, func(_ int64, e ledger.Entry) error { return seen.Append(e) }); err != nil {
		return Answer{}, err
	}
	if err := says.Leads(seen); err != nil {
		return Answer{}, err
	}
	if _, err := record.Verify(seen.State()); err != nil {
		return Answer{}, err
	}
	seat, err := member(w, word, seen.State())
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
	if err == nil {
		err = adopt(der)
	}
	if err != nil {
		return Answer{}, err
	}
	// Only now: a node that comes in nowhere may still be given to another fleet.
	if err := n.hearLedger(w, n.Ledger.State().Height+1, n.takeAs(seen)); err != nil {
		log.Printf("agent: enrolment: the ledger comes with the next visit: %v", err)
	}
	return Answer{Seat: seat, Certificate: der}, nil
}

// takeAs takes entries into the node's ledger that are those of a log, as far as that goes.
func (n *Node) takeAs(seen *ledger.Log) func(height int64, e ledger.Entry) error {
	return func(height int64, e ledger.Entry) error {
		if height <= seen.State().Height {
			r, err := ledger.ParseRecord(e.Record)
			if err != nil {
				return err
			}
			if known, err := seen.Record(height); err != nil || r.Hash() != known {
				return fmt.Errorf("%w: record %d is another one than a moment ago", token.ErrCheckpoint, height)
			}
		}
		return n.Ledger.Take(height, e)
	}
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
	if err := w.send(sayVisit, who.Bytes()); err != nil {
		return a, err
	}
	_, word, err := w.answer(isWord)
	if err != nil {
		return a, err
	}
	if err := n.hearLedger(w, n.Ledger.State().Height+1, n.Ledger.Take); err != nil {
		return a, err
	}
	if a.Seat, err = member(w, word, n.Ledger.State()); err == nil && n.Refuse != nil {
		err = n.Refuse(a.Seat)
	}
	if err != nil {
		return a, err
	}
	if err := w.send(askPapers, nil); err != nil {
		return a, err
	}
	kind, paper, err := w.answer(isPaper, isNone)
	if err != nil {
		return a, err
	}
	if kind == isPaper {
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

// member wants that who answers is a seat, by its own word and the key of the handshake.
func member(w *wire, word []byte, s ledger.State) (roster.Seat, error) {
	key, err := tlsKeyOf(w.state)
	if err != nil {
		return roster.Seat{}, err
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
