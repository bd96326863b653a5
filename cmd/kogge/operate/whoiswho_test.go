package operate

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/golden"
)

// caKey is the key of a CA, as it lies in the founder's folder.
func caKey(t *testing.T, k *keyring.Keyring, name string) *ecdsa.PrivateKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(k.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	key, err := document.DecodeKey[*ecdsa.PrivateKey](text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestWhoAnswers is the table of whom this computer calls, by real handshakes of TLS 1.3: whoever
// has a certificate in a node's name, and whoever is the node.
func TestWhoAnswers(t *testing.T) {
	k, s := founded(t, 2, 2) // n1 runs etcd, n2 does not
	nodes := s.nodes
	nodeCA, operatorCA := caKey(t, k, "node-ca.key"), caKey(t, k, "operator-ca.key")
	sign := func(kind fleet.PeerKind, name string, key *ecdsa.PrivateKey, ca *x509.Certificate, by *ecdsa.PrivateKey, at time.Time) tls.Certificate {
		p := fleet.Peer{Kind: kind, Name: name, Fleet: k.Genesis.ID()}
		if kind == fleet.KindOperator {
			p.Role = fleet.RoleAdmin
		}
		der, err := fleet.SignPeer(p, &key.PublicKey, ca, by, at)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	fresh := func() *ecdsa.PrivateKey {
		key, err := fleet.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	now, long := time.Now(), time.Now().AddDate(-5, 0, 0)
	ada, _ := k.Certificate().PrivateKey.(*ecdsa.PrivateKey)
	var out strings.Builder
	try := func(who, as, name string, cert tls.Certificate) {
		t.Helper()
		said := "called"
		if err := callAt(t, k, name, showing(t, cert)); err != nil {
			said = "refused: " + regexp.MustCompile(`\b[0-9a-f]{12}\b|\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?`).ReplaceAllString(err.Error(), "…")
		}
		fmt.Fprintf(&out, "%-8s  %-26s  %s\n", who, as, said)
	}
	op := func(key *ecdsa.PrivateKey, ca *x509.Certificate, by *ecdsa.PrivateKey, at time.Time) tls.Certificate {
		return sign(fleet.KindOperator, "ada", key, ca, by, at)
	}
	try("operator", "listed", "n1", op(ada, k.Genesis.OperatorCA, operatorCA, now))
	try("operator", "unlisted", "n1", sign(fleet.KindOperator, "eve", fresh(), k.Genesis.OperatorCA, operatorCA, now))
	try("operator", "listed name, foreign key", "n1", op(fresh(), k.Genesis.OperatorCA, operatorCA, now))
	try("operator", "minted by a former member", "n1", op(fresh(), k.Genesis.NodeCA, nodeCA, now))
	try("operator", "expired", "n1", op(ada, k.Genesis.OperatorCA, operatorCA, long))
	for i, who := range []string{"member", "node"} {
		name := fmt.Sprintf("n%d", i+1)
		own, _ := nodes[i].Certificate().PrivateKey.(*ecdsa.PrivateKey)
		node := func(name string, key *ecdsa.PrivateKey, at time.Time) tls.Certificate {
			return sign(fleet.KindNode, name, key, k.Genesis.NodeCA, nodeCA, at)
		}
		try(who, "listed", name, node(name, own, now))
		try(who, "unlisted", name, node("n9", fresh(), now))
		try(who, "listed name, foreign key", name, node(name, fresh(), now))
		try(who, "minted by a former member", name, node(name, fresh(), now))
		try(who, "expired", name, node(name, own, long))
	}
	golden.Compare(t, "whoanswers.txt", out.String())
}

// showing is the address of somebody who makes handshakes with a certificate, and no more.
func showing(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go func() { _ = conn.(*tls.Conn).Handshake(); conn.Close() }()
			}
		}
	}()
	return l.Addr().String()
}

// callAt calls a node at an address; nil: the handshake was good, and the call would have gone out.
func callAt(t *testing.T, k *keyring.Keyring, name, address string) error {
	t.Helper()
	c, err := Dial(t.Context(), k, address, name)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	for _, why := range []error{fleet.ErrForeign, fleet.ErrKind, fleet.ErrExpired, api.ErrOtherKey, api.ErrOtherNode, ErrNotTheSeat} {
		if errors.Is(err, why) {
			return why
		}
	}
	if c.Shown() == nil {
		return errors.New(strings.TrimPrefix(err.Error(), "unavailable: "))
	}
	return nil
}
