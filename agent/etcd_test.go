package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger/ledgertest"
)

// TestEtcdFacts: what the service etcd goes by is the ledger's, with what the agent knows of the
// nodes; where that cannot be read it is told so.
func TestEtcdFacts(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	own := adopted(t, f)
	p := &participant{state: own.state, run: t.TempDir(), node: own.node}
	if _, err := p.facts(); err == nil {
		t.Error("facts before the founding")
	}
	taken := pinned.Open(ledgerOf(p.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	facts, err := p.facts()
	must(t, err)
	founded := netip.MustParseAddrPort("192.0.2.2:7444")
	if got := fmt.Sprint(facts.Founders, len(facts.Seats), facts.Addresses[2], facts.Grace); got != fmt.Sprint([]int{1, 2, 3}, 3, []netip.AddrPort{founded}, 5*time.Minute) {
		t.Errorf("founded: %s", got)
	}
	moved := netip.MustParseAddrPort("192.0.2.99:7444")
	must(t, control.Seats{Seats: []control.Seat{{Number: 2, Addresses: []netip.AddrPort{moved}, Away: true}}}.Write(p.run))
	facts, err = p.facts()
	must(t, err)
	if got := fmt.Sprint(facts.Addresses[2], facts.Addresses[3], facts.Away[2], facts.Away[3]); got != fmt.Sprint([]netip.AddrPort{moved, founded}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.3:7444")}, true, false) {
		t.Errorf("moved: %s", got)
	}
	must(t, os.WriteFile(filepath.Join(p.run, control.SeatsFile), []byte("{"), 0o600))
	if _, err := p.facts(); err == nil {
		t.Error("facts of a file that cannot be read")
	}
}

// TestEtcdPeer is the table of who is a member at the other end.
func TestEtcdPeer(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	own := adopted(t, f)
	p := &participant{state: own.state, run: t.TempDir(), node: own.node}
	taken := pinned.Open(ledgerOf(p.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	if _, err := p.facts(); err != nil {
		t.Fatal(err)
	}
	connection := func(name string) (tls.ConnectionState, string) {
		key, err := fleet.NewKey()
		must(t, err)
		cert, err := x509.ParseCertificate(f.Sign(t, fleet.KindNode, name, "", &key.PublicKey))
		must(t, err)
		return tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, fleet.KeyID(cert.RawSubjectPublicKeyInfo)
	}
	member, memberKey := connection("n2")
	follower, followerKey := connection("n4")
	forged, _ := connection("n2") // of a stolen CA, for a name that is listed
	if _, err := p.verify(member); err == nil {
		t.Error("a member before any key is known")
	}
	must(t, control.Seats{Seats: []control.Seat{{Number: 1}, {Number: 2, TLSKey: memberKey}, {Number: 4, TLSKey: followerKey}}}.Write(p.run))
	for name, c := range map[string]struct {
		state tls.ConnectionState
		seat  int
	}{
		"member": {member, 2}, "follower": {follower, 0}, "listed name, foreign key": {forged, 0}, "no certificate": {tls.ConnectionState{}, 0},
	} {
		if seat, err := p.verify(c.state); seat != c.seat || (err == nil) != (c.seat != 0) {
			t.Errorf("%s: seat %d, %v", name, seat, err)
		}
	}
}

// TestEtcdOnDemand: a node is a member by the ledger's word alone, and asks nothing while it has
// none.
func TestEtcdOnDemand(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	own := adopted(t, f)
	var now parts
	at := paths{state: own.state}
	ask := func(when string, is, known bool) {
		t.Helper()
		if gotIs, gotKnown := isMember(at, &now); gotIs != is || gotKnown != known {
			t.Errorf("%s: member %v, known %v", when, gotIs, gotKnown)
		}
	}
	ask("no ledger", false, true)
	taken := pinned.Open(ledgerOf(at.state), f.Genesis)
	must(t, taken.Take(1, f.Entries[0]))
	ask("a ledger that nobody has opened", false, false)
	now.part.Store(own)
	ask("no seat", false, true)
	must(t, os.WriteFile(filepath.Join(ledgerOf(at.state), "1"), []byte("x"), 0o600))
	now.part.Store(&part{node: own.node, state: own.state})
	ask("a damaged ledger", false, false)
}

// TestEtcdFact: what other programs are told is what a member said.
func TestEtcdFact(t *testing.T) {
	e := factOf(etcd.Status{Seat: 2, Running: true, Leader: 1, Doing: "at rest", Snapshots: []etcd.Snapshot{{Revision: 3}, {Revision: 9}}, Probe: etcd.Probe{Writes: 64, P99: 20 * time.Millisecond}})
	dir := t.TempDir()
	must(t, e.Write(dir))
	again, err := control.ReadEtcd(dir)
	must(t, err)
	if fmt.Sprint(again) != fmt.Sprint(e) || again.Newest != 9 || again.Fsync != "20ms" || again.Snapshots != 2 {
		t.Errorf("%+v", again)
	}
}
