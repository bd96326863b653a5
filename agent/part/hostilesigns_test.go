package part

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"kogge.example/update/fleet"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// This file is what the hostile member says, and what it signs with the keys that it has.

func (h *hostile) id() document.Hash         { return h.Log.State().Fleet() }
func (h *hostile) keyOf(seat int) signed.Key { return keyOf(h.t, seat) }
func (h *hostile) tlsKey() *ecdsa.PrivateKey { return h.certificate.PrivateKey.(*ecdsa.PrivateKey) }

func (h *hostile) seal(kind string, number uint64, body []byte) signed.Envelope {
	e, err := signed.Seal(kind, h.id(), h.key, number, body)
	must(h.t, err)
	return e
}

// inTheNameOf is an object of another seat with its own signature.
func (h *hostile) inTheNameOf(seat int, kind string, number uint64, body []byte) []byte {
	return bytes.Replace(h.seal(kind, number, body).Bytes(), []byte(h.keyOf(3)), []byte(h.keyOf(seat)), 1)
}

func (h *hostile) record(name string) []byte {
	return notice.Node{
		Version: 1, Name: name, Arch: "amd64", Board: "qemu-x86_64", Kernel: "6", Capacity: notice.Capacity{CPUs: 1, Memory: 1, Disk: 1},
		Addresses: []netip.AddrPort{h.where[3]},
	}.Encode()
}

func (h *hostile) status(why string) []byte {
	return notice.Status{Version: 1, Height: 9, Head: document.HashOf([]byte(why)), Wrong: []notice.Fault{{What: "node", Why: why}}}.Encode()
}

func place(h *hostile, seat int, kind string) string {
	return board.Place{Topic: board.Nodes, Node: h.keyOf(seat).ID(), Kind: kind}.Key()
}

// signs is an entry with a certificate that its key alone has signed, for all others.
func (h *hostile) signs(l *ledger.Log, v ledger.Value) ledger.Entry {
	r, err := l.State().Next(v)
	must(h.t, err)
	c := ledger.Certificate{Version: 1}
	for seat := 1; seat <= 4 && r.Height > 1; seat++ {
		c.Seats = append(c.Seats, signed.Sign(seat, h.key, ledger.PrecommitBytes(r, c.Round, l.State().Tree)))
	}
	for owner := 1; owner <= 2 && r.Height == 1; owner++ {
		c.Owners = append(c.Owners, signed.Sign(owner, h.key, ledger.FoundingBytes(r)))
	}
	return ledger.Entry{Record: r.Encode(), Value: v.Encode(), Certificate: c.Encode()}
}

// foundedAnew is a record 1 in which its seat is the only one.
func (h *hostile) foundedAnew() ledger.Entry {
	v := h.Founding(h.t)
	own := v.Founding.Roster.Seats[2]
	own.Number = 1
	v.Founding.Roster.Seats, v.Founding.Roster.Given, v.Founding.Roster.Rule = []roster.Seat{own}, 1, roster.RuleFor(1)
	v.Founding.Cluster = v.Founding.Cluster[:1]
	return h.signs(ledger.New(h.Genesis), v)
}

// undecided is a record 4 by which its TLS key is an admin's.
func (h *hostile) undecided() ledger.Entry {
	l := ledger.New(h.Genesis)
	for _, e := range h.story.Entries[:3] {
		must(h.t, l.Append(e))
	}
	own, err := document.ParseHash(h.part.node.Key())
	must(h.t, err)
	return h.signs(l, ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{Name: "eve", Role: fleet.RoleAdmin, Key: own}}}})
}

func (h *hostile) accepts(name string) []byte {
	p, err := token.SignAccept(h.id(), token.Accept{Version: 1, Node: ledgertest.Key(h.t, name), Name: name, Number: 1 << 40}, h.tlsKey())
	must(h.t, err)
	return p.Bytes()
}

func (h *hostile) endsToken() []byte {
	r, err := token.OpenRecord(h.story.record)
	must(h.t, err)
	p, err := token.Revoke(h.id(), r.Key, r.Expires, h.tlsKey())
	must(h.t, err)
	return p.Bytes()
}

// ownToken is a token that it gives out itself.
func (h *hostile) ownToken() (fleet.Token, token.Paper) {
	seed := fleet.NewToken()
	key, err := token.KeyOf(seed)
	must(h.t, err)
	s := h.Log.State()
	p, err := token.Issue(h.id(), token.Record{Version: 1, Key: key, Count: 1, Height: s.Height, Root: s.Tree, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}, h.tlsKey())
	must(h.t, err)
	return seed, p
}

func (h *hostile) usesOwnToken(name string) []byte {
	seed, record := h.ownToken()
	u, err := token.NewUse(seed, record, ledgertest.Key(h.t, "eve"), document.HashOf(nil), name, sealer(ledgertest.Private("eve")))
	must(h.t, err)
	return u.Bytes()
}

func sealer(key ed25519.PrivateKey) token.Seal {
	return func(kind string, id document.Hash, number uint64, body []byte) (signed.Envelope, error) {
		return signed.Seal(kind, id, key, number, body)
	}
}

// mint signs a key as that of a peer, with the CA of its kind.
func mint(t testing.TB, f *ledgertest.Fleet, p fleet.Peer, key *ecdsa.PrivateKey) tls.Certificate {
	der := f.SignAt(t, p.Kind, p.Name, p.Role, &key.PublicKey, ledgertest.Today)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// mints is a certificate of a node for a new key.
func (h *hostile) mints(name string) tls.Certificate {
	key, err := fleet.NewKey()
	must(h.t, err)
	return mint(h.t, h.Fleet, fleet.Peer{Kind: fleet.KindNode, Name: name}, key)
}

// mintsOperator is one of an operator, by the key that it has: that of the node CA.
func (h *hostile) mintsOperator(name string) tls.Certificate {
	key, err := fleet.NewKey()
	must(h.t, err)
	der, err := fleet.SignPeer(fleet.Peer{Kind: fleet.KindOperator, Name: name, Role: fleet.RoleAdmin, Fleet: h.Genesis.ID()}, &key.PublicKey, h.Genesis.NodeCA, h.CA(fleet.KindNode), ledgertest.Today)
	must(h.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
