package part

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"kogge.example/agent/enrol"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/token"
)

// TestEnrolmentCrowded: a stranger with two addresses, who has the record of a token besides, keeps
// nobody out, neither who comes nor who is in. A record that lets nobody in any more is no help to him.
func TestEnrolmentCrowded(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 1)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) })
	seeds := fleet.NewToken()
	public := v.issue(t, seeds, func(r *token.Record) { r.Count = 100 })
	over := v.issue(t, fleet.NewToken(), func(r *token.Record) { r.Expires = r.Expires.AddDate(-1, 0, 0) })
	stranger := func(from string, says []byte) *tls.Conn {
		key := v.comer(t, seeds, public, "x", 1).part.node.Certificate()
		dialer := tls.Dialer{
			NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second},
			Config:    &tls.Config{InsecureSkipVerify: true, NextProtos: []string{enrol.Protocol}, Certificates: []tls.Certificate{key}},
		}
		conn, err := dialer.DialContext(t.Context(), "tcp", v.where[1].String())
		if err != nil {
			return nil // the door keeps him out
		}
		t.Cleanup(func() { conn.Close() })
		if says != nil {
			_, _ = conn.Write(append(append(binary.AppendUvarint(nil, uint64(1+len(says))), 2), says...))
			_, _ = io.ReadFull(conn, make([]byte, 1)) // the answer begins: he has a place
		}
		return conn.(*tls.Conn)
	}
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		for range 4 {
			stranger(from, public.Bytes())
			stranger(from, nil)
		}
	}
	seed := fleet.NewToken()
	n := v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "n9", 1)
	if _, ok := n.Step(t.Context(), 0); !ok || !n.part.node.Adopted() {
		t.Error("a node that comes is kept out")
	}
	if err := n.Visit(t.Context(), false); err != nil {
		t.Errorf("one that is in is kept out: %v", err)
	}
	stranger("127.0.0.4", over.Bytes())
	if got := v.nodes[0].refused(); got["token expired"] != 1 || got["busy"] != 0 {
		t.Errorf("n1 has refused %v", got)
	}
}
