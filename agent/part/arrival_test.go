package part

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/agent/enrol"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
	"kogge.example/update/memory"
)

// arrived wants that a node has the fleet's ledger, that PID 1 knows how many votes decide, and that
// nothing lies apart any more.
func (v *village) arrived(t *testing.T, what string, p *Part) {
	t.Helper()
	taken, err := p.Ledger()
	must(t, err)
	if taken.State().Height != v.Log.State().Height || taken.Problem() != nil {
		t.Errorf("%s: height %d, %v", what, taken.State().Height, taken.Problem())
	}
	if votes, err := memory.ReadVotes(p.memory()); err != nil || int(votes) != v.Log.State().Roster.Votes() {
		t.Errorf("%s: PID 1 knows of %d votes, %v", what, votes, err)
	}
	if _, err := os.Stat(p.arriving()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: what members have shown is still there: %v", what, err)
	}
}

// TestArrival: what a member has shown before a try to come in failed is not fetched again, what
// another fleet's have shown is forgotten, and it all becomes the node's ledger with the certificate.
func TestArrival(t *testing.T) {
	v, other := live(t, 4), ledgertest.Founded(t, 3, 3)
	v.hand(t, 1)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	comes := func() newcomer {
		seed := fleet.NewToken()
		return v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "kogge-"+seed.Text()[6:12], 1)
	}
	n := comes()
	l, err := n.part.seen(false)
	must(t, err)
	must(t, l.Take(1, v.Entries[0]))
	if l, err = n.part.seen(false); err != nil || l.State().Height != 1 {
		t.Errorf("the next try begins at %d, %v", l.State().Height, err)
	}
	if _, ok := n.Step(t.Context(), 0); !ok {
		t.Error("it does not come in")
	}
	v.arrived(t, "the second try", n.part)

	n = comes()
	must(t, os.MkdirAll(filepath.Dir(n.part.arriving()), 0o700))
	alien := New(n.part.node, t.TempDir(), t.TempDir(), func() {})
	l, err = alien.seen(true)
	must(t, err)
	if l.Take(1, other.Entries[0]) == nil {
		t.Error("another fleet's record is taken")
	}
	must(t, os.MkdirAll(n.part.arriving(), 0o700))
	must(t, os.WriteFile(filepath.Join(n.part.arriving(), "1"), []byte("junk"), 0o600))
	if _, ok := n.Step(t.Context(), 0); !ok {
		t.Error("it does not come in over what is damaged")
	}
	v.arrived(t, "over what was damaged", n.part)
	// Its own use is among its papers, and in its identity.
	if u, ok := n.part.papers().CameBy(n.key(t)); !ok || string(u.Bytes()) != string(n.part.node.Use()) {
		t.Error("it has not kept the proof that it came")
	}

	// A cut between the certificate and the ledger; then somebody has put files into its folder.
	for what, before := range map[string]func(p *Part){
		"a cut":                      func(*Part) {},
		"a cut, and an empty folder": func(p *Part) { must(t, os.MkdirAll(filepath.Join(p.state, "kogge", "ledger"), 0o700)) },
		"a cut, and a file half written": func(p *Part) {
			must(t, os.MkdirAll(filepath.Join(p.state, "kogge", "ledger"), 0o700))
			must(t, os.WriteFile(filepath.Join(p.state, "kogge", "ledger", ".1.tmp"), nil, 0o600))
		},
	} {
		n = comes()
		l, err = n.part.seen(false)
		must(t, err)
		for i, e := range v.Entries {
			must(t, l.Take(int64(i+1), e))
		}
		v.enrol(t, n, n.part.node.Name())
		before(n.part)
		again := New(n.part.node, n.part.state, n.part.run, func() {})
		must(t, again.SettleVotes())
		v.arrived(t, what, again)
	}
	// Not in yet, nothing becomes of it.
	n = comes()
	l, err = n.part.seen(false)
	must(t, err)
	must(t, l.Take(1, v.Entries[0]))
	if err := n.part.arrive(); err != nil || n.part.opened().State().Height != 0 {
		t.Errorf("it has a ledger before it is in: %v", err)
	}
}

// enrol lets a node in as a member does that tells nobody.
func (v *village) enrol(t *testing.T, n newcomer, name string) {
	t.Helper()
	e, waits := n.part.node.Enrolment()
	if !waits {
		t.Fatal("it does not wait")
	}
	seat, _, err := n.part.before()
	must(t, err)
	own, err := document.ParseHash(n.part.node.Key())
	must(t, err)
	if name == "" {
		name = "n9"
	}
	use, err := token.NewUse(e.Token, e.Record, seat.Key, own, name, func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
		return seat.Seal(kind, id, sequence, body)
	})
	must(t, err)
	csr, err := n.part.node.Request()
	must(t, err)
	key, _, err := fleet.RequestKey(csr)
	must(t, err)
	must(t, n.part.node.EnrolKnowing(nil, use.Bytes(), v.SignAt(t, fleet.KindNode, name, "", key, ledgertest.Today)))
}

// TestHiddenNode: a member lets a node in and tells nobody. The node shows to another one that it came,
// and is accepted; whoever has a token's seed alone, or another node's proof, shows nothing by that.
func TestHiddenNode(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 1)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	seed := fleet.NewToken()
	record := v.issue(t, seed, func(r *token.Record) { r.Count = 3 })
	n := v.comer(t, seed, record, "n9", 2)
	v.enrol(t, n, "n9")
	n.part = New(n.part.node, n.part.state, n.part.run, func() {}) // its papers are lost, too
	n.Comer = v.talkOf(n.part).Comer(func() string { return "n9" })
	if wait, ok := n.Step(t.Context(), 0); ok || wait == 0 || !n.part.isNew() {
		t.Error("it is accepted by nobody")
	}
	key := n.key(t)
	for _, one := range v.nodes {
		within(t, "all hear of it", func() bool { _, ok := one.part.papers().CameBy(key); return ok })
	}
	paper, err := token.SignAccept(v.Log.State().Fleet(), token.Accept{Version: 1, Node: key, Name: "n9", Number: 1}, v.admin)
	must(t, err)
	_, err = v.nodes[3].part.papers().Take(paper.Bytes())
	must(t, err)
	for _, one := range v.nodes {
		within(t, "the acceptance travels", func() bool { _, _, ok := one.part.papers().Accepted(key); return ok })
	}
	if _, ok := n.Step(t.Context(), 0); !ok || n.part.isNew() {
		t.Error("it is still new")
	}

	before := len(v.nodes[1].part.papers().All())
	proof := n.part.node.Use()
	for what, edit := range map[string]func(own *newcomer){
		"without a certificate of the fleet": func(own *newcomer) {},
		"with the proof of another node":     func(own *newcomer) { v.enrol(t, *own, "n8") },
	} {
		own := v.comer(t, seed, record, "n8", 2)
		edit(&own)
		side := v.side(t, own.part)
		side.Came = proof
		if what == "without a certificate of the fleet" {
			seat, _, err := own.part.before()
			must(t, err)
			tls, err := document.ParseHash(own.part.node.Key())
			must(t, err)
			use, err := token.NewUse(seed, record, seat.Key, tls, "n8", seat.Seal)
			must(t, err)
			side.Came = use.Bytes()
		}
		if _, err := side.Visit(t.Context(), v.where[2], false); err == nil || len(v.nodes[1].part.papers().All()) != before {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// side is a node's own side of a visit.
func (v *village) side(t *testing.T, p *Part) *enrol.Node {
	t.Helper()
	seat, taken, err := p.before()
	must(t, err)
	return &enrol.Node{Genesis: v.Genesis, Certificate: p.node.Certificate(), Key: seat.Key, Seal: seat.Seal, Ledger: taken, Revoked: p.node.Revoked}
}
