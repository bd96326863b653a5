package part

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/enrol"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
	"kogge.example/update/fleet/wrapped"
	"kogge.example/update/golden"
)

// village is a founded fleet whose nodes run, each behind the port of its API, and an admin of it.
type village struct {
	*ledgertest.Fleet
	admin *ecdsa.PrivateKey
	where map[int]netip.AddrPort
	nodes []*Talk
	now   clock
	later atomic.Int64 // since ledgertest.Today, nanoseconds
}

// live starts a fleet of so many seats, of which the first three are members.
func live(t *testing.T, seats int) *village {
	t.Helper()
	return liveTold(t, seats, nil)
}

// liveTold is live with a last node that has been told, as it came in, that some keys are revoked.
func liveTold(t *testing.T, seats int, told func(v *village) []string) *village {
	t.Helper()
	v := &village{Fleet: ledgertest.Founded(t, seats, 1), where: make(map[int]netip.AddrPort)}
	v.now = clock{func() bool { return true }, func() time.Time { return ledgertest.Today.Add(time.Duration(v.later.Load())) }}
	v.admin = v.lists(t, "cleo")
	t.TempDir() // before what stops the nodes: it is removed after that
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	for number := 1; number <= seats; number++ {
		p := adopted(t, v.Fleet)
		identitytest.Sit(t, p.state, number)
		if told != nil && number == seats {
			must(t, os.WriteFile(filepath.Join(p.state, "identity", "told.json"), []byte(`{"version": 1, "keys": ["`+strings.Join(told(v), `", "`)+`"]}`), 0o600))
			node, err := identity.OpenNode(filepath.Join(p.state, "identity"))
			must(t, err)
			p = New(node, p.state, p.run, func() {})
		}
		taken, err := p.Ledger()
		must(t, err)
		for i, e := range v.Entries {
			must(t, taken.Take(int64(i+1), e))
		}
		one := v.talkOf(p)
		server, err := serve.Listen("127.0.0.1:0", serve.Config{
			Node: p.node, ClockSure: v.now.sure, Known: p.Known, Machine: one.machine,
			Records: one.Records(), Protocols: one.Protocols(),
		})
		must(t, err)
		v.where[number] = netip.MustParseAddrPort(server.Address().String())
		running.Go(func() { _ = server.Serve(ctx) })
		v.nodes = append(v.nodes, one)
	}
	for i, one := range v.nodes {
		running.Go(func() { one.Run(ctx, int(v.where[i+1].Port())) })
	}
	return v
}

func (v *village) talkOf(p *Part) *Talk {
	one := NewTalk(p, machine.Machine{Run: p.run, State: p.state, Control: filepath.Join(p.run, "none.sock")}, nobody)
	one.clock = v.now
	one.reach = func(_ *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
		return []netip.AddrPort{v.where[seat.Number]}
	}
	return one
}

// lists has the ledger list an admin. It is for before the nodes run.
func (v *village) lists(t *testing.T, name string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := fleet.NewKey()
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	value := ledger.Value{Version: 1, Operators: &ledger.Operators{Set: []ledger.Operator{{Name: name, Role: fleet.RoleAdmin, Key: document.HashOf(spki)}}}}
	v.Take(t, v.Decided(t, value, v.Log.State().Roster.Quorum()))
	return key
}

// hand gives a member the key of the node CA, as the operator's computer does.
func (v *village) hand(t *testing.T, number int) {
	t.Helper()
	held, err := v.nodes[number-1].part.custody()
	must(t, err)
	ca := v.Genesis.NodeCA
	sealed, err := wrapped.Wrap(v.CA(fleet.KindNode), held.Says(number).Key, wrapped.For{Fleet: v.Log.State().Fleet(), Seat: keyOf(t, number), CA: wrapped.CAOf(ca)})
	must(t, err)
	must(t, held.Take(sealed, ca))
	v.nodes[number-1].Look()
}

func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within five minutes", what)
		}
	}
}

// holdsCA says whether a node holds the key of the node CA.
func (v *village) holdsCA(number int) bool {
	held, err := v.nodes[number-1].part.custody()
	return err == nil && held.CA(v.Genesis.NodeCA) != nil
}

// comer is a node with a join.yaml, that is no part of anything yet.
func (v *village) comer(t *testing.T, seed fleet.Token, record token.Paper, name string, members ...int) newcomer {
	t.Helper()
	p := opened(t)
	j := &fleet.JoinFile{Genesis: v.Genesis, Token: seed, Record: record.Bytes()}
	for _, m := range members {
		j.Members = append(j.Members, v.where[m])
	}
	parsed, err := identity.ParseJoinFile("join.yaml", fleet.MarshalJoinFile(j))
	must(t, err)
	must(t, p.node.Join(parsed))
	return newcomer{v.talkOf(p).Comer(func() string { return name }), p}
}

func (v *village) issue(t *testing.T, seed fleet.Token, edit func(*token.Record)) token.Paper {
	t.Helper()
	key, err := token.KeyOf(seed)
	must(t, err)
	s := v.Log.State()
	r := token.Record{Version: 1, Key: key, Count: 1, Height: s.Height, Root: s.Tree, Expires: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}
	edit(&r)
	p, err := token.Issue(s.Fleet(), r, v.admin)
	must(t, err)
	return p
}

// TestEnrolment has a fleet pass the node CA's key to its members, let in a node that nobody has
// adopted, refuse what is to be refused, and accept the node; the laptop has no part in it.
func TestEnrolment(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 1)
	within(t, "all members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	if v.holdsCA(4) {
		t.Error("a seat that runs no etcd holds the CA's key")
	}
	seed := fleet.NewToken()
	record := v.issue(t, seed, func(r *token.Record) { r.Labels = notice.Labels{"region": "eu"} })
	n := v.comer(t, seed, record, "n9", 2)
	if n.part.isNew() {
		t.Error("it is new before it came")
	}
	if _, ok := n.Step(t.Context(), 0); !ok || !n.part.node.Adopted() || n.part.node.Name() != "n9" || !n.part.isNew() {
		t.Fatalf("%s", n.part.node)
	}
	if _, waits := n.part.node.Enrolment(); waits || strings.Contains(stateOf(t, n.part), seed.Text()) {
		t.Error("the token is still there")
	}
	// New: no containers, no secrets; what shows it, and what accepts it, is answered.
	for procedure, refused := range map[string]bool{
		apiv1connect.WorkloadServiceApplyProcedure: true, apiv1connect.RegistryServiceSetRegistryProcedure: true, apiv1connect.VolumeServiceRemoveVolumeProcedure: true,
		apiv1connect.FleetServiceGivePapersProcedure: false, apiv1connect.NodeServiceRebootProcedure: false,
	} {
		if err := n.part.mayServe(procedure); (err != nil) != refused || refused && api.ReasonOf(err) != apiv1.Reason_REASON_NEW {
			t.Errorf("%s: %v", procedure, err)
		}
	}
	// The use is known to all; a second node of the same token comes in nowhere.
	key := n.key(t)
	for _, one := range v.nodes {
		within(t, "the use travels", func() bool { _, ok := one.part.papers().CameBy(key); return ok })
	}
	for member := 1; member <= 3; member++ {
		late := v.comer(t, seed, record, "n8", member)
		if _, ok := late.Step(t.Context(), 5); ok || late.part.node.Adopted() {
			t.Errorf("a second node comes in at n%d", member)
		}
	}
	if got := v.nodes[1].refused(); got["token used up"] != 1 {
		t.Errorf("n2 has refused %v", got)
	}
	// It is accepted at a seat that is no member, and hears of it at another one.
	if wait, ok := n.Step(t.Context(), 0); ok || wait > time.Minute || !n.part.isNew() {
		t.Error("it is accepted by nobody")
	}
	attested, err := notice.Attest(v.Log.State().Fleet(), key, notice.Labels{"region": "eu"}, v.admin)
	must(t, err)
	paper, err := token.SignAccept(v.Log.State().Fleet(), token.Accept{Version: 1, Node: key, Name: "n9", Number: 1, Attested: attested}, v.admin)
	must(t, err)
	if _, err := v.nodes[3].part.papers().Take(paper.Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, one := range v.nodes {
		within(t, "the acceptance travels", func() bool { _, _, ok := one.part.papers().Accepted(key); return ok })
	}
	if _, ok := n.Step(t.Context(), 0); !ok || n.part.isNew() || n.part.mayServe(apiv1connect.WorkloadServiceApplyProcedure) != nil {
		t.Error("it is still new")
	}
	again := New(n.part.node, n.part.state, n.part.run, func() {})
	if again.isNew() || !again.accepted() {
		t.Error("after a restart it is new")
	}
}

// newcomer is a node that comes, and what it is in its fleet.
type newcomer struct {
	*enrol.Comer
	part *Part
}

// key is the key that the node has for its seat.
func (n newcomer) key(t *testing.T) signed.Key {
	t.Helper()
	seat, _, err := n.part.before()
	must(t, err)
	return seat.Key
}

// stateOf is all that lies in the folders of a node.
func stateOf(t *testing.T, p *Part) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(p.state, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		all.Write(text)
		return err
	}))
	return all.String()
}

// TestEnrolmentRefused shows who comes in nowhere, and in which words.
func TestEnrolmentRefused(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 2)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	later := v.Log.State().Height + 1
	var out strings.Builder
	for _, c := range []struct {
		what   string
		edit   func(*token.Record)
		name   string
		member int
	}{
		{"the name of a seat", func(*token.Record) {}, "n2", 1},
		{"over since a year", func(r *token.Record) { r.Expires = r.Expires.AddDate(-1, 0, 0) }, "n8", 1},
		{"a member that lacks records of the checkpoint", func(r *token.Record) { r.Height = later }, "n8", 1},
		{"another ledger's checkpoint", func(r *token.Record) { r.Root = document.HashOf(nil) }, "n8", 1},
		{"a seat that holds no key of the CA", func(*token.Record) {}, "n8", 4},
		{"nobody answers", func(*token.Record) {}, "n8", 9},
	} {
		seed := fleet.NewToken()
		v.where[9] = netip.MustParseAddrPort("127.0.0.1:1")
		n := v.comer(t, seed, v.issue(t, seed, c.edit), c.name, c.member)
		e, _ := n.part.node.Enrolment()
		err := n.Come(t.Context(), e)
		if err == nil || n.part.node.Adopted() {
			t.Errorf("%s: it comes in", c.what)
			continue
		}
		_, words, _ := strings.Cut(err.Error(), ": ")
		fmt.Fprintf(&out, "%s\n    %s\n", c.what, plainWords(words))
		if _, still := n.part.node.Enrolment(); !still {
			t.Errorf("%s: the token is gone", c.what)
		}
	}
	// A token for a node gives it its name, whatever the machine is called.
	named := fleet.NewToken()
	one := v.comer(t, named, v.issue(t, named, func(r *token.Record) { r.Node = "n7" }), "kogge-000000", 1)
	if _, ok := one.Step(t.Context(), 0); !ok || one.part.node.Name() != "n7" {
		t.Errorf("%s", one.part.node)
	}
	// Somebody else answers at the member's address: he gets no proof of the token.
	seed := fleet.NewToken()
	n := v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "n8", 1)
	v.nodes[0].session.Load().member.Word = func() (signed.Envelope, error) { return v.nodes[1].session.Load().word(keyOf(t, 2)) }
	e, _ := n.part.node.Enrolment()
	err := n.Come(t.Context(), e)
	if !errors.Is(err, enrol.ErrNotAMember) || len(v.nodes[0].part.papers().All()) > 1 {
		t.Errorf("an impostor: %v", err)
	}
	_, words, _ := strings.Cut(fmt.Sprint(err), ": ")
	fmt.Fprintf(&out, "somebody with another seat's word\n    %s\n", plainWords(words))
	golden.Compare(t, "enrolment.txt", out.String())
}

// plainWords are an error's, without what is another one each time.
func plainWords(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		bare := strings.Trim(w, ":,()")
		if len(bare) == 12 && strings.Trim(bare, "0123456789abcdef") == "" {
			words[i] = strings.Replace(w, bare, "…", 1)
		}
		if strings.Count(bare, "-") == 2 && len(bare) == 10 && strings.Trim(bare, "0123456789-") == "" {
			words[i] = strings.Replace(w, bare, "DATE", 1)
		}
		if strings.Count(bare, ":") == 2 && len(bare) == 8 && strings.Trim(bare, "0123456789:") == "" {
			words[i] = strings.Replace(w, bare, "TIME", 1)
		}
	}
	return strings.Join(words, " ")
}

// TestComerAtRest: a node that an operator has adopted, of a fleet that is not founded, asks nobody,
// and makes no key.
func TestComerAtRest(t *testing.T) {
	p := adopted(t, ledgertest.Begun(t, 3))
	one := NewTalk(p, machine.Machine{Run: p.run, State: p.state}, nobody)
	one.clock = clock{func() bool { return true }, func() time.Time { return ledgertest.Today }}
	if wait, ok := one.Comer(nil).Step(t.Context(), 0); !ok || wait != time.Hour {
		t.Errorf("it looks again after %s", wait)
	}
	if identity.HasSeat(filepath.Join(p.state, "identity")) {
		t.Error("it has made the key of a seat")
	}
}

// aged is the node of a seat, with its keys and a certificate that is over for years.
func (v *village) aged(t *testing.T, number int) newcomer {
	t.Helper()
	state := t.TempDir()
	must(t, os.Mkdir(filepath.Join(state, "identity"), 0o700))
	for _, name := range []string{"node.key", "seat.json"} {
		text, err := os.ReadFile(filepath.Join(v.nodes[number-1].part.state, "identity", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(state, "identity", name), text, 0o600))
	}
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	must(t, err)
	must(t, node.Join(&fleet.JoinFile{Genesis: v.Genesis, Token: fleet.NewToken()}))
	csr, err := node.Request()
	must(t, err)
	key, _, err := fleet.RequestKey(csr)
	must(t, err)
	must(t, node.Adopt(v.SignAt(t, fleet.KindNode, fmt.Sprintf("n%d", number), "", key, ledgertest.Today.AddDate(-5, 0, 0))))
	return v.in(t, New(node, state, t.TempDir(), func() {}))
}

// in is the side of a node that visits members, with the fleet's first record.
func (v *village) in(t *testing.T, p *Part) newcomer {
	t.Helper()
	taken, err := p.Ledger()
	must(t, err)
	must(t, taken.Take(1, v.Entries[0]))
	return newcomer{v.talkOf(p).Comer(func() string { return "x" }), p}
}

// heard says whether nodes have heard which TLS key a seat calls its own.
func (v *village) heard(t *testing.T, number int, nodes ...int) bool {
	for _, n := range nodes {
		now := v.nodes[n-1].session.Load()
		if now == nil {
			return false
		}
		if _, ok := now.tlsKey(keyOf(t, number)); !ok {
			return false
		}
	}
	return true
}

// TestRevokedOperator: whoever has the key of an operator that is revoked on the nodes lets in nobody,
// accepts nobody and orders nothing; what he had ordered ends, and whom he had accepted stays.
func TestRevokedOperator(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 1)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	id := v.Log.State().Fleet()
	accept := func(number int64, of, name string) []byte {
		paper, err := token.SignAccept(id, token.Accept{Version: 1, Node: ledgertest.Key(t, of), Name: name, Number: number}, v.admin)
		must(t, err)
		return paper.Bytes()
	}
	isolate := func(number uint64, seat int) signed.Envelope {
		e, err := order.Seal(id, v.admin, number, order.Isolation{Seat: seat, Key: keyOf(t, seat), Isolated: true})
		must(t, err)
		return e
	}
	isolated := func(seat int) func() bool {
		return func() bool {
			for _, one := range v.nodes[:2] {
				if _, is := one.part.book().Standing().Isolates(keyOf(t, seat)); !is {
					return false
				}
			}
			return true
		}
	}
	_, err := v.nodes[0].part.papers().Take(accept(1, "a", "a"))
	must(t, err)
	must(t, v.nodes[0].give(isolate(9, 4)))
	within(t, "n4 is isolated", isolated(4))

	spki, err := x509.MarshalPKIXPublicKey(&v.admin.PublicKey)
	must(t, err)
	for _, one := range v.nodes {
		must(t, one.part.node.Revoke(document.HashOf(spki).String()))
		one.Look()
	}
	within(t, "n4 is not isolated any more", func() bool { return !isolated(4)() })
	seed := fleet.NewToken()
	n := v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "n9", 1, 2, 3)
	e, _ := n.part.node.Enrolment()
	if err := n.Come(t.Context(), e); err == nil || strings.Count(err.Error(), ledger.ErrWithdrawn.Error()) != 3 {
		t.Errorf("a token: %v", err)
	}
	if _, err := v.nodes[0].part.papers().Take(accept(1, "b", "b")); !errors.Is(err, ledger.ErrWithdrawn) {
		t.Errorf("an acceptance: %v", err)
	}
	if _, _, ok := v.nodes[0].part.papers().Accepted(ledgertest.Key(t, "a")); !ok {
		t.Error("whom he had accepted is gone")
	}
	if err := v.nodes[0].give(isolate(10, 4)); !errors.Is(err, order.ErrOrder) || !errors.Is(err, ledger.ErrWithdrawn) {
		t.Errorf("an order: %v", err)
	}
}

// TestRenewsItself: the only node that holds the CA's key renews its own certificate, and that of a
// node without a seat which was adopted by hand, once an operator has accepted it by both its keys.
func TestRenewsItself(t *testing.T) {
	v := live(t, 1)
	v.hand(t, 1)
	within(t, "n1 answers", func() bool { return v.heard(t, 1, 1) })
	v.later.Store(int64(330 * 24 * time.Hour))
	own := newcomer{v.nodes[0].Comer(nil), v.nodes[0].part}
	renewed := func(n newcomer) bool {
		before := n.part.node.Certificate().Leaf.NotAfter
		_, ok := n.Step(t.Context(), 5)
		after := n.part.node.Certificate().Leaf.NotAfter
		if after.After(before) != ok && !ok {
			t.Errorf("%s: %v, until %s", n.part.node, ok, after)
		}
		return after.After(before)
	}
	if !renewed(own) {
		t.Error("it holds the CA's key, and does not renew itself")
	}
	node, state := identitytest.AdoptedAt(t, v.Fleet, "n5", ledgertest.Today.AddDate(-5, 0, 0))
	n := v.in(t, New(node, state, t.TempDir(), func() {}))
	taken, err := n.part.Ledger()
	must(t, err)
	must(t, taken.Take(2, v.Entries[1])) // which lists the operator
	key := n.key(t)
	if renewed(n) {
		t.Error("nobody has accepted it")
	}
	tlsKey, err := document.ParseHash(node.Key())
	must(t, err)
	accept := func(number int64, tlsKey document.Hash) {
		t.Helper()
		paper, err := token.SignAccept(v.Log.State().Fleet(), token.Accept{Version: 1, Node: key, Name: "n5", TLSKey: tlsKey, Number: number}, v.admin)
		must(t, err)
		for _, p := range []*Part{v.nodes[0].part, n.part} {
			_, err = p.papers().Take(paper.Bytes())
			must(t, err)
		}
	}
	accept(1, document.HashOf(nil))
	if err := n.Visit(t.Context(), true); !errors.Is(err, enrol.ErrRefused) || !strings.Contains(err.Error(), enrol.ErrOtherKey.Error()) {
		t.Errorf("accepted by another TLS key: %v", err)
	}
	accept(2, tlsKey)
	if !renewed(n) {
		t.Error("it is accepted, and not renewed")
	}
}

// TestFindsMembers: a node whose members have moved looks for them where nobody has said that they are.
func TestFindsMembers(t *testing.T) {
	v := live(t, 3)
	v.hand(t, 1)
	within(t, "the members have heard of n3's TLS key", func() bool { return v.holdsCA(1) && v.heard(t, 3, 1, 2) })
	n, where := v.aged(t, 3), v.where
	n.Contacts = func(*pinned.Ledger, signed.Key) []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	}
	if err := n.Visit(t.Context(), true); err == nil {
		t.Error("somebody answers at port 1")
	}
	n.Find = func(context.Context, *pinned.Ledger, signed.Key) []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), where[1]}
	}
	if err := n.Visit(t.Context(), true); err != nil {
		t.Error(err)
	}
}

// TestComesKnowing: a node that comes by a token turns away who was revoked before, and comes in by no
// member that has the key of the token's issuer as revoked.
func TestComesKnowing(t *testing.T) {
	v := live(t, 3)
	v.hand(t, 1)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) })
	spki, err := x509.MarshalPKIXPublicKey(&v.admin.PublicKey)
	must(t, err)
	key, err := fleet.NewKey()
	must(t, err)
	cert, err := x509.ParseCertificate(v.Sign(t, fleet.KindOperator, "bob", fleet.RoleAdmin, &key.PublicKey))
	must(t, err)
	issuer, bob := document.HashOf(spki).String(), document.HashOf(cert.RawSubjectPublicKeyInfo).String()
	for _, one := range v.nodes {
		must(t, one.part.node.Revoke(bob))
	}
	// n1 lies: it has the token's issuer as revoked, and lets in by the token all the same.
	v.nodes[0].session.Load().member.RevokedKeys = func() []string { return []string{bob, issuer} }
	seed := fleet.NewToken()
	n := v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "n9", 1)
	e, _ := n.part.node.Enrolment()
	if err := n.Come(t.Context(), e); !errors.Is(err, enrol.ErrNotAMember) || n.part.node.Adopted() || n.part.node.Revoked(issuer) {
		t.Errorf("at a member that lies: %v", err)
	}
	e.Members = append(e.Members, v.where[2])
	if err := n.Come(t.Context(), e); err != nil || !n.part.node.Adopted() {
		t.Fatal(err)
	}
	if !n.part.node.TurnsAway(bob) || n.part.node.TurnsAway(issuer) || n.part.node.Revoked(bob) {
		t.Errorf("it was told of %v", n.part.node.Told())
	}
	if _, err := v.Genesis.VerifyPeer(cert, nil, time.Now(), true, n.part.node.TurnsAway); !errors.Is(err, fleet.ErrRevoked) {
		t.Errorf("bob calls it: %v", err)
	}
	// A member that has come in like that passes on what it was told, and may let in by a token of whom it
	// was told: that member may have lied, and this one has not.
	told := v.nodes[0].session.Load().member
	told.RevokedKeys, told.Told = func() []string { return nil }, func() []string { return []string{bob, issuer} }
	seed = fleet.NewToken()
	next := v.comer(t, seed, v.issue(t, seed, func(*token.Record) {}), "n10", 1)
	e, _ = next.part.node.Enrolment()
	if err := next.Come(t.Context(), e); err != nil || !next.part.node.TurnsAway(bob) || next.part.node.Revoked(bob) {
		t.Errorf("at a member that was told: %v; it was told of %v", err, next.part.node.Told())
	}
}

// TestStolenSeat: whoever has the key of a seat, or of a node that was accepted, and makes a TLS key
// of his own gets no certificate for it: neither once the node's is revoked, nor before.
func TestStolenSeat(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 1)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	within(t, "the members have heard of its TLS key", func() bool { return v.heard(t, 4, 1, 2, 3) })
	// thief has what lies on STATE, but for the TLS key.
	thief := func(p *Part) newcomer {
		node, state := identitytest.AdoptedAt(t, v.Fleet, "n4", ledgertest.Today.AddDate(-5, 0, 0))
		text, err := os.ReadFile(filepath.Join(p.state, "identity", "seat.json"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(state, "identity", "seat.json"), text, 0o600))
		return v.in(t, New(node, state, t.TempDir(), func() {}))
	}
	refused := func(what string, n newcomer, is ...string) {
		t.Helper()
		err := n.Visit(t.Context(), true)
		if !errors.Is(err, enrol.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
		for _, words := range is {
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v: %q is not in it", what, err, words)
			}
		}
	}
	own, stolen := v.aged(t, 4), thief(v.nodes[3].part)
	if err := own.Visit(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	refused("another TLS key of a seat", stolen, enrol.ErrOtherKey.Error())
	if err := stolen.Visit(t.Context(), false); err != nil {
		t.Errorf("it hears of records: %v", err)
	}

	seed := fleet.NewToken()
	came := v.comer(t, seed, v.issue(t, seed, func(r *token.Record) { r.Count = 2 }), "n9", 1)
	if _, ok := came.Step(t.Context(), 0); !ok {
		t.Fatal("it does not come in")
	}
	key := came.key(t)
	paper, err := token.SignAccept(v.Log.State().Fleet(), token.Accept{Version: 1, Node: key, Name: "n9", Number: 1}, v.admin)
	must(t, err)
	_, err = v.nodes[0].part.papers().Take(paper.Bytes())
	must(t, err)
	for _, one := range v.nodes {
		within(t, "the acceptance travels", func() bool {
			_, _, ok := one.part.papers().Accepted(key)
			_, used := one.part.papers().CameBy(key)
			return ok && used
		})
	}
	if err := came.Visit(t.Context(), true); err != nil && !errors.Is(err, fleet.ErrNoRenewal) { // it came in this very second
		t.Errorf("it is accepted: %v", err)
	}
	refused("another TLS key of an accepted node", thief(came.part), enrol.ErrOtherKey.Error())

	for _, one := range v.nodes[:3] {
		must(t, one.part.node.Revoke(own.part.node.Key(), came.part.node.Key()))
	}
	for what, n := range map[string]newcomer{"a revoked seat": own, "its seat key with another TLS key": stolen, "a revoked node": came, "its key with another TLS key": thief(came.part)} {
		refused(what, n, fleet.ErrRevoked.Error())
	}
	// By a token the key of the seat comes in no more, either.
	again := v.comer(t, seed, v.issue(t, seed, func(r *token.Record) { r.Count = 2 }), "n4", 1, 2, 3)
	text, err := os.ReadFile(filepath.Join(v.nodes[3].part.state, "identity", "seat.json"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(again.part.state, "identity", "seat.json"), text, 0o600))
	e, _ := again.part.node.Enrolment()
	if err := again.Come(t.Context(), e); err == nil || !strings.Contains(err.Error(), fleet.ErrRevoked.Error()) {
		t.Errorf("by a token: %v", err)
	}
}

// TestRenewedByMember renews the certificate of a seat that is over for years, and of one that is
// nobody's not.
func TestRenewedByMember(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 3)
	within(t, "the members hold the CA's key", func() bool { return v.holdsCA(1) && v.holdsCA(2) && v.holdsCA(3) })
	old := func(number int, sits bool) newcomer {
		if sits {
			return v.aged(t, number)
		}
		node, state := identitytest.AdoptedAt(t, v.Fleet, fmt.Sprintf("n%d", number), ledgertest.Today.AddDate(-5, 0, 0))
		p := New(node, state, t.TempDir(), func() {})
		taken, err := p.Ledger()
		must(t, err)
		must(t, taken.Take(1, v.Entries[0]))
		return newcomer{v.talkOf(p).Comer(func() string { return "x" }), p}
	}
	n := old(4, true)
	within(t, "the members have heard of its TLS key", func() bool { return v.heard(t, 4, 1, 2, 3) })
	before := n.part.node.Certificate().Leaf.NotAfter
	if _, ok := n.Step(t.Context(), 0); !ok {
		t.Error("it is not renewed")
	}
	after := n.part.node.Certificate().Leaf.NotAfter
	if !before.Before(time.Now()) || !after.After(time.Now().AddDate(0, 11, 0)) || n.part.node.Name() != "n4" {
		t.Errorf("good until %s, before until %s", after, before)
	}
	stranger := old(4, false) // its key has no seat, though the CA has signed its name
	if err := stranger.Visit(t.Context(), true); !errors.Is(err, enrol.ErrRefused) || !strings.Contains(err.Error(), "has no seat") {
		t.Errorf("a stranger with the CA's signature: %v", err)
	}
}

// TestWhoIsWho is the table of who is let in where, by real handshakes of TLS 1.3: whom a CA has
// signed is one thing, and whom the fleet knows another.
func TestWhoIsWho(t *testing.T) {
	v := live(t, 4)
	v.hand(t, 1)
	victim, state := v.nodes[0], v.Log.State()
	for _, number := range []int{2, 3, 4} {
		within(t, "n1 has heard of the TLS keys", func() bool {
			now := victim.session.Load()
			if now == nil {
				return false
			}
			_, ok := now.engine.Object(notice.TLSKeyKind, keyOf(t, number))
			return ok
		})
	}
	sign := func(kind fleet.PeerKind, by fleet.PeerKind, name string, role fleet.Role, key *ecdsa.PrivateKey, at time.Time) tls.Certificate {
		ca := v.Genesis.NodeCA
		if by == fleet.KindOperator {
			ca = v.Genesis.OperatorCA
		}
		der, err := fleet.SignPeer(fleet.Peer{Kind: kind, Name: name, Role: role, Fleet: v.Genesis.ID()}, &key.PublicKey, ca, v.CA(by), at)
		must(t, err)
		leaf, err := x509.ParseCertificate(der)
		must(t, err)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	fresh := func() *ecdsa.PrivateKey {
		key, err := fleet.NewKey()
		must(t, err)
		return key
	}
	today, long := ledgertest.Today, ledgertest.Today.AddDate(-5, 0, 0)
	type caller struct {
		who, as string
		cert    tls.Certificate
		seat    ed25519.PrivateKey // with which it says who it is, to nodes
		number  int                // of the seat that it says is its
		replay  bool               // it says what the seat has said
	}
	number := uint64(1) // of what callers say; above what their nodes said
	says := func(c caller) signed.Envelope {
		if c.replay {
			word, err := victim.session.Load().word(keyOf(t, c.number))
			must(t, err)
			return word
		}
		number++
		spki := document.HashOf(c.cert.Leaf.RawSubjectPublicKeyInfo)
		word, err := signed.Seal(notice.TLSKeyKind, state.Fleet(), c.seat, notice.MaxNumber-1000+number, notice.TLSKey{Version: 1, Seat: c.number, Key: spki}.Encode())
		must(t, err)
		return word
	}
	var all []caller
	op := func(as string, by fleet.PeerKind, name string, key *ecdsa.PrivateKey, at time.Time) {
		all = append(all, caller{"operator", as, sign(fleet.KindOperator, by, name, fleet.RoleAdmin, key, at), ledgertest.Private("operator"), 2, true})
	}
	op("listed", fleet.KindOperator, "cleo", v.admin, today)
	op("unlisted", fleet.KindOperator, "eve", fresh(), today)
	op("listed name, foreign key", fleet.KindOperator, "cleo", fresh(), today)
	op("minted by a former member", fleet.KindNode, "cleo", fresh(), today)
	op("expired", fleet.KindOperator, "cleo", v.admin, long)
	for _, kind := range []struct {
		who    string
		number int
	}{{"node", 4}, {"member", 2}} {
		own := v.nodes[kind.number-1].part.node.Certificate()
		ownKey, _ := own.PrivateKey.(*ecdsa.PrivateKey)
		name, seat := fmt.Sprintf("n%d", kind.number), ledgertest.Private(fmt.Sprintf("n%d", kind.number))
		node := func(name string, key *ecdsa.PrivateKey, at time.Time) tls.Certificate {
			return sign(fleet.KindNode, fleet.KindNode, name, "", key, at)
		}
		all = append(all,
			caller{kind.who, "listed", node(name, ownKey, today), seat, kind.number, true},
			caller{kind.who, "unlisted", node("n9", fresh(), today), ledgertest.Private("eve"), 9, false},
			caller{kind.who, "listed name, foreign key", node(name, fresh(), today), ledgertest.Private("eve"), kind.number, true},
			caller{kind.who, "minted by a former member", node(name, fresh(), today), ledgertest.Private("former member"), kind.number, false},
			caller{kind.who, "expired", node(name, ownKey, long), seat, kind.number, true},
		)
	}
	// What a member signs by the key of the node CA, which it holds: the CA asks for no more.
	within(t, "n2 holds the key of the CA", func() bool { return v.holdsCA(2) })
	held, err := v.nodes[1].part.custody()
	must(t, err)
	minted := func(as string, p fleet.Peer, seat string, number int, replay bool) {
		key := fresh()
		p.Fleet = v.Genesis.ID()
		der, err := fleet.SignPeer(p, &key.PublicKey, v.Genesis.NodeCA, held.CA(v.Genesis.NodeCA), today)
		must(t, err)
		leaf, err := x509.ParseCertificate(der)
		must(t, err)
		all = append(all, caller{"minted by a member", as, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, ledgertest.Private(seat), number, replay})
	}
	minted("a node of no seat", fleet.Peer{Kind: fleet.KindNode, Name: "n8"}, "eve", 8, false)
	minted("a node of a seat", fleet.Peer{Kind: fleet.KindNode, Name: "n4"}, "eve", 4, true)
	minted("an operator who is listed", fleet.Peer{Kind: fleet.KindOperator, Name: "cleo", Role: fleet.RoleAdmin}, "eve", 4, true)
	// And an operator has had n3 isolated.
	o, err := order.Seal(state.Fleet(), v.admin, 1, order.Isolation{Seat: 3, Key: keyOf(t, 3), Isolated: true})
	must(t, err)
	must(t, victim.give(o))
	within(t, "n3 is isolated", func() bool {
		return victim.part.outcasts.Load() != nil && isolated(victim.part.book(), keyOf(t, 3)) != nil
	})
	own := v.nodes[2].part.node.Certificate()
	all = append(all, caller{"isolated", "listed", own, ledgertest.Private("n3"), 3, true})
	minted("isolated, with another TLS key", fleet.Peer{Kind: fleet.KindNode, Name: "n3"}, "n3", 3, false)
	minted("isolated, under another name", fleet.Peer{Kind: fleet.KindNode, Name: "n8"}, "n3", 3, false)
	var out strings.Builder
	for _, c := range all {
		fmt.Fprintf(&out, "%s, %s\n", c.who, c.as)
		for _, way := range []struct {
			name string
			try  func() error
		}{
			{"API", func() error {
				client := api.Dial(v.where[1].String(), "n1", v.Genesis, c.cert)
				defer client.Close()
				_, err := client.Status(t.Context(), rpc.NewRequest(&apiv1.StatusRequest{}))
				return err
			}},
			{"gossip", func() error {
				others := func() uint64 { return victim.session.Load().engine.Stats().Dropped["there is another"] }
				before := others()
				s, err := v.comesTo(t, gossip.Protocol, c.cert, says(c))
				if err != nil {
					return err
				}
				defer s.Close()
				if _, err = s.Receive(); others() > before {
					err = nil // the seat's node has a session already
				}
				return err
			}},
			{"gateway", func() error {
				s, err := v.comesTo(t, wire.Protocol, c.cert, says(c))
				if err != nil {
					return err
				}
				defer s.Close()
				raw, err := s.Receive()
				must(t, err)
				f, err := wire.Decode(raw)
				must(t, err)
				if r, ok := f.(wire.Refuse); ok && r.Why != wire.NoEtcd { // of which there is none in this test
					return errors.New(r.Why.String())
				}
				return nil
			}},
			{"enrolment", func() error {
				key, err := signed.KeyOf(c.seat.Public().(ed25519.PublicKey))
				must(t, err)
				one := &enrol.Node{Genesis: v.Genesis, Certificate: c.cert, Key: key, Ledger: pinned.Open(t.TempDir(), v.Genesis), Seal: func(kind string, id document.Hash, sequence uint64, body []byte) (signed.Envelope, error) {
					return signed.Seal(kind, id, c.seat, sequence, body)
				}}
				_, err = one.Visit(t.Context(), v.where[1], true)
				return err
			}},
		} {
			said := "let in"
			if err := way.try(); err != nil {
				said = "refused"
				if way.name == "API" || way.name == "enrolment" { // the others say nothing to strangers
					said += ": " + plainWords(lastWords(err))
				}
			}
			fmt.Fprintf(&out, "    %-10s %s\n", way.name, said)
		}
	}
	golden.Compare(t, "whoiswho.txt", out.String())
}

// comesTo has somebody come to n1, with a certificate and a word.
func (v *village) comesTo(t *testing.T, protocol string, certificate tls.Certificate, word signed.Envelope) (gossip.Session, error) {
	first, _ := v.Log.State().Roster.Seat(1)
	peer := &gossip.TLS{
		Speaks: protocol, Certificate: func() tls.Certificate { return certificate }, Word: func() (signed.Envelope, error) { return word, nil },
		Admit:     func([]byte, document.Hash) (roster.Seat, error) { return first, nil },
		Addresses: func(roster.Seat) []netip.AddrPort { return []netip.AddrPort{v.where[1]} },
	}
	return peer.Dial(t.Context(), first)
}

// lastWords are what the other end has said, without where that was.
func lastWords(err error) string {
	var c *rpc.Error
	if errors.As(err, &c) {
		return c.Message()
	}
	text := err.Error()
	if at := strings.Index(text, "the member refuses"); at >= 0 {
		return text[at:]
	}
	return text
}
