// Package identity says who a node is and whom it believes: its key, its certificate, the
// genesis that it pins and the keys that were revoked.
//
// In come a join.yaml, certificates that somebody else signed, and the folder on STATE that
// holds the one key that the node made for itself; out go that folder's files, and answers
// to "who am I?". The key never leaves the folder, and a token is proved, never sent.
//
// The package opens no connection, reads no clock and no environment. What a certificate
// has to say is update/fleet's; who signs it is an operator's keyring.
package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/update/durable"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

// Why a node does not do what was asked.
var (
	ErrNoJoin     = errors.New("node has no token: it needs a join.yaml")
	ErrAdopted    = errors.New("node is already adopted")
	ErrOtherFleet = errors.New("node belongs to another fleet")
)

// Node is who this node is. It begins with a key that it makes itself, and goes
//
//	new ─Join─▶ invited ─Adopt, or Enrol─▶ adopted ─Renew─▶ adopted (for longer)
//	              └─Join─▶ invited (another token, or another fleet)
//
// and never back: leaving a fleet is a reset of STATE. A fleet of version 1 may become another,
// once, and takes its nodes along ([Node.Succeed]). Its methods may be called from
// any goroutine.
type Node struct {
	files keeping
	key   *ecdsa.PrivateKey
	spki  []byte
	self  tls.Certificate // signed by itself, until the node is adopted

	// revoked are keys, as in Peer.Key. Whoever asks for them does not wait for the disk; mu is held
	// to change them.
	revoked atomic.Pointer[map[string]bool]
	told    atomic.Pointer[map[string]bool] // those that a member has called revoked

	mu        sync.RWMutex // guards what follows
	m         membership
	enrolment enrolmentFile // version 0: there is none
	cert      tls.Certificate
	damaged   damage
}

// membership is a node's place in a fleet.
type membership struct {
	genesis *fleet.Genesis
	token   fleet.Token // until the node is adopted
	chain   [][]byte    // the node's certificate in DER, and intermediates; nil until adopted
}

// The files of a node's folder: the key, which is written once, and the rest, which
// is always replaced as a whole.
const (
	nodeKeyName       = "node.key"
	membershipName    = "membership.json"
	membershipVersion = 1
)

type membershipFile struct {
	Version      int      `json:"version"`
	Genesis      []byte   `json:"genesis"`
	Token        string   `json:"token,omitempty"`
	Certificates [][]byte `json:"certificates,omitempty"`
}

// OpenNode reads who this node is from a folder, which it makes if need be. A node that
// has no key yet makes one: after a power cut there is none or a whole one, and the one
// that OpenNode returned with is there for good. A file that cannot be read is left as it is, and the
// node does without ([Node.Problem]). The key, and the fleet, that the disk does not give may be given a
// moment later: then [Node.Unread] says so, and whoever can wait opens the node again.
func OpenNode(dir string) (*Node, error) {
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("identity of this node: %w", err)
	}
	n, err := openNode(folder(dir))
	if err != nil {
		return nil, fmt.Errorf("identity of this node: %s: %w", dir, err)
	}
	return n, nil
}

func openNode(files keeping) (*Node, error) {
	n := &Node{files: files, damaged: make(damage)}
	if err := n.readKey(); err != nil {
		return nil, err
	}
	n.readMembership()
	n.readEnrolment()
	n.readRevoked()
	return n, nil
}

// read has parse read a file, if there is one, and notes what is wrong with it.
func (n *Node) read(name string, parse func(raw []byte) error) {
	raw, err := n.files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	unread := err != nil && !errors.Is(err, durable.ErrTooLarge)
	if err == nil {
		err = parse(raw)
	}
	if err != nil {
		n.damaged[name] = broken{err, unread}
	}
}

// readKey reads the node's key. In the place of one that cannot be read stands one that is not
// written: the port of the API needs one.
func (n *Node) readKey() error {
	n.read(nodeKeyName, func(text []byte) (err error) {
		n.key, err = document.DecodeKey[*ecdsa.PrivateKey](text)
		if err == nil {
			_, err = fleet.P256(&n.key.PublicKey)
		}
		return err
	})
	switch {
	case n.damaged.has(nodeKeyName):
		key, err := fleet.NewKey()
		if err != nil {
			return err
		}
		n.key = key
	case n.key == nil:
		if err := n.makeKey(); err != nil {
			return err
		}
	}
	return n.wear()
}

// wear has the node show its key, with no fleet's certificate for it.
func (n *Node) wear() (err error) {
	if n.spki, err = x509.MarshalPKIXPublicKey(&n.key.PublicKey); err != nil {
		return err
	}
	n.self, err = selfSigned(n.key)
	n.cert = n.self
	return err
}

// readMembership reads which fleet the node is in. Of one that does not hold together the fleet
// stays known, if that can be read: the node goes into no other one.
func (n *Node) readMembership() {
	n.read(membershipName, func(raw []byte) error {
		m, err := parseMembership(raw)
		if err == nil {
			err = n.set(m)
		}
		if err != nil {
			n.m = membership{genesis: m.genesis}
		}
		return err
	})
}

func (n *Node) makeKey() error {
	key, err := fleet.NewKey()
	if err != nil {
		return err
	}
	text, err := document.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := n.files.Replace(nodeKeyName, text); err != nil {
		return err
	}
	n.key = key
	return nil
}

// selfSigned is what a node serves with that no fleet has signed: it says nothing but
// "I hold this key". Without dates worth the name, because the node may not know any.
func selfSigned(key *ecdsa.PrivateKey) (tls.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Kogge node, not adopted"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no end
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func parseMembership(raw []byte) (membership, error) {
	var m membership
	if len(raw) > 8*fleet.MaxGenesis {
		return m, fmt.Errorf("%d bytes: %d at most", len(raw), 8*fleet.MaxGenesis)
	}
	var f membershipFile
	err := document.Decode(raw, membershipVersion, &f)
	if err == nil {
		m.genesis, err = fleet.ParseGenesis(f.Genesis)
	}
	if err == nil && f.Token != "" {
		m.token, err = fleet.ParseToken(f.Token)
	}
	if len(f.Certificates) > 0 {
		m.chain = f.Certificates
	}
	return m, err
}

// set makes m the node's membership in memory, if it holds together.
func (n *Node) set(m membership) error {
	cert := n.self
	if m.chain != nil {
		leaf, err := n.verify(m)
		if err != nil {
			return err
		}
		cert = tls.Certificate{Certificate: m.chain, PrivateKey: n.key, Leaf: leaf}
	}
	n.m, n.cert = m, cert
	return nil
}

// verify wants that the certificate of m is for this node's key and from its fleet.
// The dates are for others to judge: this node's clock may be the worse one.
func (n *Node) verify(m membership) (*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, der := range m.chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		certs = append(certs, c)
	}
	peer, err := m.genesis.VerifyPeer(certs[0], certs[1:], time.Time{}, false, nil)
	if err != nil {
		return nil, err
	}
	if peer.Kind != fleet.KindNode {
		return nil, fmt.Errorf("%s: %w: expected that of a node", peer, fleet.ErrKind)
	}
	if peer.Key != fleet.KeyID(n.spki) {
		return nil, fmt.Errorf("%s: the certificate is for another key", peer)
	}
	return certs[0], nil
}

// change makes m the node's membership on disk, and then in memory; the key that it is for comes
// before it, if that of the disk could not be read. n.mu is held.
func (n *Node) change(m membership) error {
	before, cert := n.m, n.cert
	if err := n.set(m); err != nil {
		return err
	}
	f := membershipFile{Version: membershipVersion, Genesis: m.genesis.Bytes(), Token: m.token.Text(), Certificates: m.chain}
	text, err := document.Encode(f)
	if err == nil {
		err = n.renewKey()
	}
	if err == nil {
		err = n.damaged.aside(n.files, membershipName)
	}
	if err == nil {
		err = n.files.Replace(membershipName, text)
	}
	if err != nil {
		n.m, n.cert = before, cert
		return err
	}
	delete(n.damaged, membershipName)
	return nil
}

// renewKey has the node keep the key that it has in the place of one that cannot be read.
// n.mu is held.
func (n *Node) renewKey() error {
	if !n.damaged.has(nodeKeyName) {
		return nil
	}
	text, err := document.EncodeKey(n.key)
	if err == nil {
		err = n.damaged.aside(n.files, nodeKeyName)
	}
	if err == nil {
		err = n.files.Replace(nodeKeyName, text)
	}
	if err == nil {
		delete(n.damaged, nodeKeyName)
	}
	return err
}

// Join remembers the fleet and token of a join.yaml, durably: once it returns nil, the
// file on the boot partition may go. A node that is adopted keeps what it has; of
// another fleet's join.yaml it says [ErrOtherFleet]. One that is in no fleet any more because its
// files cannot be read begins anew with that, with the key that it has now. A cut between the
// writes leaves it damaged as before:
//
//  1. how the node is to come in
//  2. the key, if it could not be read
//  3. the fleet and the token
func (n *Node) Join(j *fleet.JoinFile) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m.chain != nil {
		if n.m.genesis.ID() != j.Genesis.ID() {
			return fmt.Errorf("join fleet %s (%s): %w, %s (%s)", j.Genesis.Name, fleet.Short(j.Genesis.ID()), ErrOtherFleet, n.m.genesis.Name, fleet.Short(n.m.genesis.ID()))
		}
		return nil
	}
	if n.lost() && n.m.genesis != nil && n.m.genesis.ID() != j.Genesis.ID() {
		return fmt.Errorf("join fleet %s: %w, %s (%s)", j.Genesis.Name, ErrOtherFleet, n.m.genesis.Name, fleet.Short(n.m.genesis.ID()))
	}
	err := n.enrols(enrolmentFile{Record: j.Record, Members: j.Members}) // without its token it is nothing
	if err == nil {
		err = n.change(membership{genesis: j.Genesis, token: j.Token})
	}
	if err != nil {
		return fmt.Errorf("join fleet %s: %w", j.Genesis.Name, err)
	}
	return nil
}

// Answer is what a node that wants in says to whoever may adopt it: a certificate
// request in DER for its key, and the proof of its token by [fleet.Mac]. Ask first whether
// the other one is an operator of [Node.Genesis]. The error wraps [ErrAdopted] or
// [ErrNoJoin], or is about the nonce.
func (n *Node) Answer(nonce []byte) (csr, mac []byte, err error) {
	n.mu.RLock()
	m := n.m
	n.mu.RUnlock()
	switch {
	case m.chain != nil:
		return nil, nil, fmt.Errorf("answer: %w", ErrAdopted)
	case m.token.IsZero():
		return nil, nil, fmt.Errorf("answer: %w", ErrNoJoin)
	case len(nonce) != fleet.NonceSize:
		return nil, nil, fmt.Errorf("answer: nonce has %d bytes, expected %d", len(nonce), fleet.NonceSize)
	}
	if csr, err = n.Request(); err != nil {
		return nil, nil, err
	}
	return csr, fleet.Mac(m.token, m.genesis.ID(), n.spki, nonce), nil
}

// Request is a certificate request in DER for the node's key, as a renewal needs it.
func (n *Node) Request() ([]byte, error) {
	csr, err := fleet.NewRequest(n.key)
	if err != nil {
		return nil, fmt.Errorf("certificate request of this node: %w", err)
	}
	return csr, nil
}

// Adopt takes the certificate that the fleet's node CA signed, in DER, and what
// certificates stand between the two, if any; then it forgets the token. After a power
// cut the node has the token or the certificate, and the certificate once Adopt
// returned nil. A node that is adopted takes the same certificate again, and says
// [ErrAdopted] to another one: [Node.Renew] is for that.
func (n *Node) Adopt(certDER []byte, chain ...[]byte) error {
	return n.AdoptKnowing(nil, certDER, chain...)
}

// AdoptKnowing is [Node.Adopt] by a fleet that has revoked keys already, as in
// [Node.Revoke]. No cut leaves a node that is adopted and does not know them; the one
// that comes between the two steps leaves a node that is as it was, but for the keys
// that it will turn away:
//
//  1. check the certificate, so that nothing is kept of a call that is refused
//  2. note the keys
//  3. take the certificate, and forget the token
func (n *Node) AdoptKnowing(revoked []string, certDER []byte, chain ...[]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m.genesis == nil {
		return fmt.Errorf("adopt: %w", ErrNoJoin)
	}
	if n.m.chain != nil && !bytes.Equal(n.m.chain[0], certDER) {
		return fmt.Errorf("adopt: %w", ErrAdopted)
	}
	m := n.m.with(certDER, chain)
	if _, err := n.verify(m); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	if err := n.revoke(revoked, false); err != nil {
		return fmt.Errorf("adopt: revoke %w", err)
	}
	if n.m.chain == nil { // an operator has it in hand, who need not accept it
		f := n.enrolment
		f.Came, f.Use = false, nil
		if err := n.enrols(f); err != nil {
			return fmt.Errorf("adopt: %w", err)
		}
	}
	if err := n.change(m); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	return nil
}

// Renew takes the certificate that follows on the node's own: for the same name and
// key, and good for longer, or the error wraps [ErrNoRenewal]. Whether the own one is
// over by now does not count. After a power cut the node has the old or the new one,
// and the new one once Renew returned nil.
func (n *Node) Renew(certDER []byte, chain ...[]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m.chain == nil {
		return fmt.Errorf("renew: %w: the node is not adopted", fleet.ErrNoRenewal)
	}
	m := n.m.with(certDER, chain)
	next, err := n.verify(m)
	if err == nil {
		err = fleet.Follows(n.cert.Leaf, next)
	}
	if err == nil {
		err = n.change(m)
	}
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	return nil
}

// Succeed makes the node one of the fleet that its own, of version 1, has become: the owner of
// the old one has signed that. The node gets a certificate of the new fleet in the same step,
// for its name and its key. After a power cut it is of the old fleet or the new one, and of the
// new one once Succeed returned nil; then it goes nowhere else. It takes the same succession
// again, and writes nothing: the certificate that it has stays. The error wraps
// [fleet.ErrSuccession], or names both fleets and wraps [ErrOtherFleet].
func (n *Node) Succeed(succession []byte, certDER []byte, chain ...[]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m.chain == nil {
		return fmt.Errorf("succeed: %w", ErrNoJoin)
	}
	next, err := n.successor(succession)
	if err != nil {
		return fmt.Errorf("succeed: %w", err)
	}
	m := n.m.with(certDER, chain)
	m.genesis = next
	leaf, err := n.verify(m)
	if err != nil {
		return fmt.Errorf("succeed: %w", err)
	}
	before, err := fleet.PeerOf(n.cert.Leaf)
	if err != nil {
		return fmt.Errorf("succeed: %w", err)
	}
	if after, err := fleet.PeerOf(leaf); err != nil || after.Name != before.Name {
		return fmt.Errorf("succeed: the certificate is for %s, and this is %s", after, before)
	}
	if next == n.m.genesis {
		return nil
	}
	if err := n.change(m); err != nil {
		return fmt.Errorf("succeed: %w", err)
	}
	return nil
}

// successor is the fleet that a succession makes of the node's own: that itself, if it has become
// it already. n.mu is held.
func (n *Node) successor(succession []byte) (*fleet.Genesis, error) {
	own := n.m.genesis
	if own.Alone() {
		return own.Successor(succession)
	}
	next, err := fleet.SuccessorNamed(succession)
	if err != nil {
		return nil, err
	}
	if next.ID() != own.ID() {
		return nil, fmt.Errorf("to fleet %s (%s): %w, %s (%s)", next.Name, fleet.Short(next.ID()), ErrOtherFleet, own.Name, fleet.Short(own.ID()))
	}
	return own, nil
}

// with is m with another certificate, and without a token.
func (m membership) with(certDER []byte, chain [][]byte) membership {
	next := membership{genesis: m.genesis, chain: [][]byte{bytes.Clone(certDER)}}
	for _, c := range chain {
		next.chain = append(next.chain, bytes.Clone(c))
	}
	return next
}

// Certificate is what the node serves with and calls others with: its fleet's, or one
// signed by itself until it is adopted. Ask for it at each handshake.
func (n *Node) Certificate() tls.Certificate {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.cert
}

// Genesis is that of the fleet that the node joins or has joined; nil: of none.
func (n *Node) Genesis() *fleet.Genesis {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.m.genesis
}

// Adopted says whether the node has a certificate of its fleet.
func (n *Node) Adopted() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.m.chain != nil
}

// Name is what the node is called in its fleet; "" until it is adopted.
func (n *Node) Name() string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.m.chain == nil {
		return ""
	}
	peer, err := fleet.PeerOf(n.cert.Leaf)
	if err != nil {
		return "" // set has seen that there is one
	}
	return peer.Name
}

// String says who the node is, and nothing secret: "node n1 of fleet dev
// (0123456789ab), key ba9876543210".
func (n *Node) String() string {
	key := "key " + fleet.Short(n.Key())
	g := n.Genesis()
	switch {
	case g == nil:
		return "node of no fleet, " + key
	case !n.Adopted():
		return fmt.Sprintf("node that waits for fleet %s (%s) to adopt it, %s", g.Name, fleet.Short(g.ID()), key)
	}
	return fmt.Sprintf("node %s of fleet %s (%s), %s", n.Name(), g.Name, fleet.Short(g.ID()), key)
}

// Key is the node's key as in Peer.Key: what its owner compares by eye.
func (n *Node) Key() string { return fleet.KeyID(n.spki) }
