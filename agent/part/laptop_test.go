package part

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/api/kogge/v1/apiv1connect"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

// TestWithoutLaptop founds a fleet of three with an operator's computer, which then is put away with
// all its keys but one: a node comes in by a token, and the computer that is left, of another admin,
// accepts it.
func TestWithoutLaptop(t *testing.T) {
	k, err := keyring.Create("hanse", "ada", time.Now())
	must(t, err)
	must(t, k.Save(filepath.Join(t.TempDir(), "hanse"), ""))
	where, nodes := make(map[string]netip.AddrPort), []*Talk(nil)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	talkOf := func(p *Part) *Talk {
		one := NewTalk(p, machine.Machine{Run: p.run, State: p.state, Control: filepath.Join(p.run, "none.sock")}, nobody)
		one.clock = clock{func() bool { return true }, func() time.Time { return time.Time{} }}
		one.reach = func(_ *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
			return []netip.AddrPort{where[seat.Name]}
		}
		return one
	}
	serves := func(p *Part, one *Talk, number int) netip.AddrPort {
		records := one.Records()
		records.Addresses = func() []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(number)})} }
		server, err := serve.Listen("127.0.0.1:0", serve.Config{
			Node: p.node, ClockSure: one.clock.sure, Known: p.Known, Machine: one.machine,
			Records: records, Protocols: one.Protocols(),
		})
		must(t, err)
		running.Go(func() { _ = server.Serve(ctx) })
		return netip.MustParseAddrPort(server.Address().String())
	}
	var names []string
	for number := 1; number <= 3; number++ {
		name, p := fmt.Sprintf("n%d", number), opened(t)
		must(t, p.node.Join(&fleet.JoinFile{Genesis: k.Genesis, Token: fleet.NewToken()}))
		csr, err := p.node.Request()
		must(t, err)
		der, err := k.SignNode(csr, name, time.Now())
		must(t, err)
		must(t, p.node.Adopt(der))
		one := talkOf(p)
		where[name] = serves(p, one, number)
		must(t, operate.RememberNode(k, name, operate.Node{Address: where[name].String(), Adopted: time.Now(), Until: p.node.Certificate().Leaf.NotAfter}))
		nodes, names = append(nodes, one), append(names, name)
	}
	for i, one := range nodes {
		running.Go(func() { one.Run(ctx, int(where[names[i]].Port())) })
	}
	tell := func(n operate.Notice) { t.Errorf("%+v", n) }
	applicants, err := operate.Applicants(t.Context(), k, names, tell)
	must(t, err)
	operators, err := operate.Operators(k)
	must(t, err)
	value, err := operate.Plan(k.Genesis, operators, applicants, operate.Wish{})
	must(t, err)
	sheet, err := os.ReadFile(k.Sheets()[0])
	must(t, err)
	owner, err := k.OwnerKeys(nil, sheet)
	must(t, err)
	draft, err := operate.Draft(k.Genesis, value)
	must(t, err)
	draft, err = operate.SignDraft(k, draft, owner, document.Hash{})
	must(t, err)
	first, err := operate.Begin(k, draft)
	must(t, err)
	told, err := operate.Give(t.Context(), k, names, []ledger.Entry{first}, tell)
	must(t, err)
	l, _, err := operate.Ledger(k)
	must(t, err)
	handed, err := admission.Hand(t.Context(), k, l.State(), tell)
	must(t, err)
	for _, n := range append(told, handed...) {
		if n.Err != nil {
			t.Error(n.Node, n.Err)
		}
	}
	if len(handed) != 3 {
		t.Errorf("%+v", handed)
	}
	// The keys of the CAs and the owner go into a drawer.
	for _, name := range []string{"node-ca.key", "operator-ca.key", "owner-1.key", "tokens.json"} {
		if err := os.Remove(filepath.Join(k.Dir, name)); err != nil && name != "tokens.json" {
			t.Fatal(err)
		}
	}
	k, err = keyring.Load(k.Dir)
	must(t, err)
	j, issued, err := admission.Invite(k, keyring.Terms{Node: "n9", Labels: map[string]string{"region": "eu"}}, time.Now())
	must(t, err)
	if len(j.Members) != 3 || j.Members[0] != netip.MustParseAddrPort("192.0.2.1:7443") {
		t.Errorf("members at %v", j.Members)
	}
	j.Members = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1"), where["n2"]} // where they are in this test; one is off
	parsed, err := identity.ParseJoinFile("join.yaml", fleet.MarshalJoinFile(j))
	must(t, err)
	p := opened(t)
	must(t, p.node.Join(parsed))
	one := talkOf(p)
	n := newcomer{one.Comer(func() string { return "kogge-000000" }), p}
	within(t, "n9 is let in", func() bool { _, ok := n.Step(t.Context(), 5); return ok })
	if p.node.Name() != "n9" || !p.isNew() {
		t.Fatalf("%s", p.node)
	}
	// It is seen, and counted nowhere; then it is accepted by what n1 and n3 tell of it.
	survey := func() (operate.Health, admission.Arrivals) {
		s, seen, err := operate.Survey(t.Context(), k, tell)
		must(t, err)
		h := operate.Judge(s, seen, time.Now())
		a, err := admission.Papers(t.Context(), k, []string{"n1", "n3"}, tell)
		must(t, err)
		a.Note(&h)
		return h, a
	}
	var h operate.Health
	var a admission.Arrivals
	within(t, "n9 is seen", func() bool { h, a = survey(); return len(h.Nodes) == 4 })
	if fmt.Sprint(admission.Waits(h)) != "[n9]" || h.Votes != 3 || h.Answering != 3 {
		t.Errorf("%+v", h)
	}
	u, err := a.Waiting("n9")
	must(t, err)
	key, labels := u.Node, u.Record.Labels
	if key != n.key(t) || labels["region"] != "eu" {
		t.Errorf("%s, %v", key.ID().Short(), labels)
	}
	paper, err := k.AcceptNode(key, u.TLSKey, "n9", labels, time.Now())
	must(t, err)
	told, err = admission.GivePapers(t.Context(), k, []string{"n1"}, [][]byte{paper.Bytes()}, tell)
	must(t, err)
	must(t, told[0].Err)
	within(t, "n9 hears of it at n2", func() bool { n.Step(t.Context(), 0); return !p.isNew() })
	if err := p.mayServe(apiv1connect.WorkloadServiceApplyProcedure); err != nil {
		t.Error(err)
	}
	if h, _ = survey(); len(admission.Waits(h)) > 0 || h.Nodes[3].Admitted != admission.Accepted {
		t.Errorf("%+v", h.Nodes)
	}
	// It answers as a node of the fleet, and this computer remembers it; the token is of no use.
	adopted, err := operate.Adopt(t.Context(), k, serves(p, one, 9).String(), "", tell)
	if err != nil || adopted.Name != "n9" || !adopted.Before {
		t.Errorf("%+v, %v", adopted, err)
	}
	public, err := issued.Key()
	must(t, err)
	if uses := a.Set.Uses(public); len(uses) != 1 || uses[0].Name != "n9" {
		t.Errorf("%+v", uses)
	}
}
