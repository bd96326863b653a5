package part

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/etcd/etcdtest"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/agent/serve/records"
	"kogge.example/init/control"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestMain: the members of etcd are processes of this program.
func TestMain(m *testing.M) { etcdtest.Main(m) }

// TestNotices has four nodes of a founded fleet, three of which run etcd, reach it through each
// other's gateways behind the port of the API: all hold leases, what is decided comes to all of
// them, and when etcd is gone each still says what it knew, and that it is old.
func TestNotices(t *testing.T) {
	f := ledgertest.Founded(t, 4, 2)
	members := etcdtest.New(t, 3)
	where := make(map[int]netip.AddrPort)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var all []*Talk
	for number := 1; number <= 4; number++ {
		p := adopted(t, f)
		identitytest.Sit(t, p.state, number)
		taken, err := p.Ledger()
		must(t, err)
		must(t, taken.Take(1, f.Entries[0]))
		if number <= 3 {
			must(t, os.Symlink(filepath.Dir(members.Socket(number)), filepath.Join(p.run, "etcd")))
			must(t, control.Etcd{Seat: number, Running: true, Leader: 1, Members: []int{1, 2, 3}}.Write(p.run))
		}
		m := machine.Machine{Run: p.run, State: p.state, Control: filepath.Join(p.run, "none.sock")}
		one := NewTalk(p, m, nobody)
		one.reach = func(e *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
			return []netip.AddrPort{where[seat.Number]}
		}
		server, err := serve.Listen("127.0.0.1:0", serve.Config{
			Node: p.node, ClockSure: m.ClockSure, Machine: m, Records: one.Records(), Protocols: one.Protocols(),
		})
		must(t, err)
		if _, err := one.board(); err == nil {
			t.Error("a node that does not run yet knows others")
		}
		where[number] = netip.MustParseAddrPort(server.Address().String())
		running.Go(func() { _ = server.Serve(ctx) })
		all = append(all, one)
	}
	for i, one := range all {
		running.Go(func() { one.Run(ctx, int(where[i+1].Port())) })
	}
	each := func(what string, holds func(records.Board) bool) {
		t.Helper()
		for _, one := range all {
			members.Until(what, func() bool {
				b, err := one.board()
				return err == nil && holds(b)
			})
		}
	}
	leased := func(b records.Board) bool {
		count := make(map[string]int)
		for _, n := range b.Notices {
			e, err := signed.Open(n.Envelope)
			must(t, err)
			if n.Known && n.Leased && n.Age >= 0 {
				count[e.Kind]++
			}
		}
		return count[notice.NodeKind] == 4 && count[notice.StatusKind] == 4
	}
	each("all hold leases", func(b records.Board) bool { return b.Gateway != 0 && b.Listed == 0 && leased(b) })
	taken, err := all[3].part.Ledger()
	must(t, err)
	must(t, taken.Take(2, f.Entries[1])) // it goes to the members by gossip, and by etcd to the others
	all[3].Look()
	for _, one := range all {
		members.Until("record 2", func() bool {
			taken, err := one.part.Ledger()
			return err == nil && taken.State().Height == 2
		})
	}
	members.Kill(1, 2, 3)
	for number := 1; number <= 3; number++ {
		must(t, os.Remove(members.Socket(number)))
	}
	each("etcd is gone, and what was known is not", func(b records.Board) bool {
		return b.Gateway == 0 && b.Problem != "" && b.Heard > time.Millisecond && b.Listed > time.Millisecond && leased(b)
	})
}

// TestServes is the table of when a node's gateway runs.
func TestServes(t *testing.T) {
	members := []int{1, 2, 3}
	for _, c := range []struct {
		what    string
		etcd    control.Etcd
		already bool
		want    bool
	}{
		{"etcd does not run", control.Etcd{Seat: 1}, true, false},
		{"a member", control.Etcd{Seat: 1, Running: true, Leader: 2, Members: members}, false, true},
		{"a learner", control.Etcd{Seat: 4, Running: true, Leader: 2, Members: members, Learners: []int{4}}, false, false},
		{"without a leader since it was started", control.Etcd{Seat: 1, Running: true, Members: members}, false, false},
		{"without a leader for now", control.Etcd{Seat: 1, Running: true, Members: members}, true, true},
		{"taken out", control.Etcd{Seat: 1, Running: true, Leader: 2, Members: []int{2, 3, 4}}, true, false},
	} {
		if got := serves(c.etcd, c.already); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
