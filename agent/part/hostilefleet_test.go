package part

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rpc "connectrpc.com/connect"
	"go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/etcd/etcdtest"
	"kogge.example/agent/events"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity/identitytest"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// story is what happens to a fleet of four: records are decided, operators give orders, a node
// comes in by a token. All that is signed for it is signed once, so that two runs can be compared.
type story struct {
	*ledgertest.Fleet                   // with all entries
	admin             *ecdsa.PrivateKey // cleo's
	orderly           []signed.Envelope // orders about seat 4, the later the newer, and the isolation of seat 3
	seed              fleet.Token       // of n9
	record, accept    token.Paper
}

func newStory(t *testing.T) *story {
	v := &village{Fleet: ledgertest.Founded(t, 4, 1)}
	s := &story{Fleet: v.Fleet, admin: v.lists(t, "cleo"), seed: fleet.NewToken()}
	v.admin = s.admin
	s.record = v.issue(t, s.seed, func(r *token.Record) { r.Labels = notice.Labels{"region": "eu"} })
	id := s.Log.State().Fleet()
	var err error
	s.accept, err = token.SignAccept(id, token.Accept{Version: 1, Node: ledgertest.Key(t, "n9"), Name: "n9", Number: 1}, s.admin)
	must(t, err)
	for i, o := range []order.Order{
		order.Absence{Seat: 4, Key: keyOf(t, 4), State: order.Cordoned}, order.Absence{Seat: 4, Key: keyOf(t, 4), State: order.Drained},
		order.Isolation{Seat: 3, Key: keyOf(t, 3), Isolated: true, Why: "it lies"},
	} {
		e, err := order.Seal(id, s.admin, uint64(11+i), o)
		must(t, err)
		s.orderly = append(s.orderly, e)
	}
	for _, name := range []string{"dora", "emil"} {
		s.Take(t, s.Decided(t, s.Operators(t, name), 3))
	}
	return s
}

// stage is the fleet of one run: real agents behind real ports, with an etcd of three.
type stage struct {
	*village
	story    *story
	orderly  []signed.Envelope
	t        *testing.T
	etcd     *etcdtest.Fleet
	events   map[int]*events.Ring
	ordered  int          // orders that were given
	restarts atomic.Int32 // of etcd, by order

	mu    sync.Mutex // guards given
	given []string   // certificates
}

// begin starts a run. With a hostile member seat 3 is its, else it is like the others.
func (s *story) begin(t *testing.T, h *hostile) *stage {
	g := &stage{
		village: &village{Fleet: s.Fleet, admin: s.admin, where: make(map[int]netip.AddrPort), nodes: make([]*Talk, 4)},
		story:   s, orderly: s.orderly, t: t, etcd: etcdtest.New(t, 3), events: make(map[int]*events.Ring),
	}
	g.now = clock{func() bool { return true }, func() time.Time { return ledgertest.Today }}
	t.TempDir() // before what stops the nodes: it is removed after that
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { stop(); running.Wait() })
	var servers []*serve.Server
	for number := 1; number <= 4; number++ {
		name := fmt.Sprintf("n%d", number)
		node, state := identitytest.AdoptedAt(t, s.Fleet, name, time.Now())
		identitytest.Sit(t, state, number)
		p := New(node, state, t.TempDir(), func() {})
		if number == 3 && h != nil {
			h.stage, h.part = g, p
			servers = append(servers, h.listen(ctx))
		} else {
			servers = append(servers, g.start(number, p))
		}
		g.where[number] = netip.MustParseAddrPort(servers[number-1].Address().String())
	}
	for i, server := range servers {
		running.Go(func() { _ = server.Serve(ctx) })
		if one := g.nodes[i]; one != nil {
			running.Go(func() { one.Run(ctx, server.Port()) })
		}
	}
	return g
}

// start makes an honest node, with the first two records.
func (g *stage) start(number int, p *Part) *serve.Server {
	taken, err := p.Ledger()
	must(g.t, err)
	for i, e := range g.story.Entries[:2] {
		must(g.t, taken.Take(int64(i+1), e))
	}
	if number <= 3 {
		must(g.t, os.Symlink(filepath.Dir(g.etcd.Socket(number)), filepath.Join(p.run, "etcd")))
		must(g.t, control.Etcd{Seat: number, Running: true, Leader: 1, Members: []int{1, 2, 3}}.Write(p.run))
	}
	must(g.t, control.Boot{Slot: "A", Version: "1.0", Board: "qemu-x86_64", RootHash: document.HashOf(nil).String()}.Write(p.run))
	ring := new(events.Ring)
	g.events[number] = ring
	m := machine.Machine{Run: p.run, State: p.state, Control: "/nobody.sock"}
	one := NewTalk(p, m, ring.Add)
	one.clock, one.find = g.now, nil
	one.reach = func(_ *gossip.Engine, _ *pinned.Ledger, seat roster.Seat) []netip.AddrPort {
		return []netip.AddrPort{g.where[seat.Number]}
	}
	g.nodes[number-1] = one
	server, err := serve.Listen("127.0.0.1:0", serve.Config{
		Node: p.node, ClockSure: g.now.sure, Known: p.Known, Machine: m, Records: one.Records(), Protocols: one.Protocols(), Events: ring,
		Care: one.Care(func(context.Context) error { g.restarts.Add(1); return nil }),
	})
	must(g.t, err)
	return server
}

// meet waits until the nodes know each other, and gives them the key of the CA.
func (g *stage) meet() {
	for _, seat := range honest {
		g.until("the nodes know each other", seat, func(s *session) bool {
			for _, other := range honest {
				for _, kind := range []string{notice.NodeKind, notice.StatusKind, notice.TLSKeyKind} {
					if _, ok := s.engine.Object(kind, keyOf(g.t, other)); !ok {
						return false
					}
				}
			}
			return s.board.client.Known().Gateway != 0 && (seat > 2 || s.board.gateway.Stats().Whole)
		})
	}
	for _, seat := range honest { // who signs what for whom is noted
		s := g.nodes[seat-1].session.Load()
		sign := s.member.Sign
		s.member.Sign = func(name string, key *ecdsa.PublicKey) ([]byte, error) {
			der, err := sign(name, key)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.given = append(g.given, fmt.Sprintf("n%d signs for %s: %v\n", seat, name, err == nil))
			return der, err
		}
	}
	g.hand(g.t, 1)
	within(g.t, "n2 holds the CA's key", func() bool { return g.holdsCA(1) && g.holdsCA(2) })
	g.goHome()
}

// goHome has each node go to the gateway that it prefers, if that was not there yet when the node
// began: n1 and n2 to their own, n4 to that of n3.
func (g *stage) goHome() {
	var told time.Time
	within(g.t, "all go to the gateways that they prefer", func() bool {
		if time.Since(told) > time.Second { // a gateway says it again when members come and go
			told = time.Now()
			for _, one := range g.nodes {
				if one != nil {
					one.session.Load().board.gateway.Members([]int{1, 2, 3})
				}
			}
		}
		for seat, home := range map[int]int{1: 1, 2: 2, 4: 3} {
			if g.nodes[seat-1].session.Load().board.client.Known().Gateway != home {
				return false
			}
		}
		return true
	})
}

// beginnings are the first things that happen, by which there are old records, statuses and orders.
func (g *stage) beginnings() {
	g.decide(3, 4)
	g.order(g.orderly[0], 1)
	g.order(g.orderly[1], 4)
}

// decide has a node take a record, which comes to all.
func (g *stage) decide(height int64, at int) {
	taken, err := g.nodes[at-1].part.Ledger()
	must(g.t, err)
	must(g.t, taken.Take(height, g.story.Entries[height-1]))
	g.nodes[at-1].Look()
	for _, seat := range honest {
		g.until("the record comes to all, and all say so", seat, func(s *session) bool {
			for _, other := range honest {
				if status, err := notice.OpenStatus(object(s, notice.StatusKind, other)); err != nil || status.Height != height {
					return false
				}
			}
			return s.taken.State().Height == height
		})
	}
}

// orders brings an order to a node, and it comes to all.
func (g *stage) order(e signed.Envelope, at int) {
	cleo := mint(g.t, g.Fleet, fleet.Peer{Kind: fleet.KindOperator, Name: "cleo", Role: fleet.RoleAdmin}, g.admin)
	client := api.Dial(g.where[at].String(), fmt.Sprintf("n%d", at), g.Genesis, cleo)
	defer client.Close()
	_, err := client.Order(g.t.Context(), rpc.NewRequest(&apiv1.OrderRequest{Envelope: e.Bytes()}))
	must(g.t, err)
	g.ordered++
	for _, seat := range honest {
		g.until("the order comes to all, and is followed", seat, func(s *session) bool {
			told, _, _ := g.events[seat].After(0)
			return len(told) == g.ordered && slices.ContainsFunc(s.part.book().All(), func(o signed.Envelope) bool { return o.Sequence == e.Sequence && o.Kind == e.Kind })
		})
	}
}

// end is the rest of the story.
func (g *stage) end() {
	n := g.comer(g.t, g.story.seed, g.story.record, "kogge-000009", 2)
	identitytest.Sit(g.t, n.part.state, 9)
	within(g.t, "n9 comes in", func() bool { _, ok := n.Step(g.t.Context(), 5); return ok })
	if _, err := g.nodes[3].part.papers().Take(g.story.accept.Bytes()); err != nil {
		g.t.Error(err)
	}
	for _, seat := range honest {
		g.until("n9 is accepted", seat, func(s *session) bool {
			_, _, ok := s.part.papers().Accepted(ledgertest.Key(g.t, "n9"))
			_, came := s.part.papers().CameBy(ledgertest.Key(g.t, "n9"))
			return ok && came
		})
	}
	g.decide(4, 1)
	g.order(g.orderly[2], 2)
}

// until waits until something holds of a node that talks.
func (g *stage) until(what string, seat int, holds func(*session) bool) {
	g.t.Helper()
	within(g.t, fmt.Sprintf("n%d: %s", seat, what), func() bool {
		s := g.nodes[seat-1].session.Load()
		return s != nil && holds(s)
	})
}

func object(s *session, kind string, seat int) signed.Envelope {
	r, _ := s.taken.State().Roster.Seat(seat)
	e, _ := s.engine.Object(kind, r.Key)
	return e
}

// known is all that the honest nodes have: one text, in which nothing stands that differs from run
// to run.
func (g *stage) known() string {
	var out strings.Builder
	for _, seat := range honest {
		if s := g.nodes[seat-1].session.Load(); s != nil {
			g.knows(&out, seat, s)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintf(&out, "certificates: %q\netcd begins anew: %d\n", g.given, g.restarts.Load())
	return out.String()
}

// knows is what one of them has.
func (g *stage) knows(out *strings.Builder, seat int, s *session) {
	line := func(format string, args ...any) {
		fmt.Fprintf(out, "n%d "+format+"\n", append([]any{seat}, args...)...)
	}
	state := s.taken.State()
	line("ledger: height %d, record %s, tree %s, roster of %d, problem %v", state.Height, state.Record, state.Tree, len(state.Roster.Seats), s.taken.Problem())
	for h := int64(1); h <= state.Height; h++ {
		e, err := s.taken.Entry(h)
		line("record %d: %s %v", h, document.HashOf(ledger.FormatEntry(h, e)), err)
	}
	for _, other := range honest {
		line("record of n%d: %s", other, oneLine(object(s, notice.NodeKind, other).Body))
		status, err := notice.OpenStatus(object(s, notice.StatusKind, other))
		var wrong []string
		for _, f := range status.Wrong {
			wrong = append(wrong, f.What)
		}
		line("status of n%d: height %d, head %s, %d deeds, wrong %q, %v", other, status.Height, status.Head, status.Deeds.Size, wrong, err)
		key, err := notice.OpenTLSKey(object(s, notice.TLSKeyKind, other))
		line("TLS key of n%d: its own %v, %v", other, key.Key.String() == g.nodes[other-1].part.node.Key(), err)
		if other <= 3 {
			key, err := notice.OpenWrapKey(object(s, notice.WrapKeyKind, other))
			held, _ := g.nodes[other-1].part.custody()
			line("key for secrets of n%d: its own %v, %v", other, string(key.Key) == string(held.Says(other).Key), err)
		}
	}
	for _, o := range s.part.book().All() {
		line("order: %s %d by %s: %s", o.Kind, o.Sequence, o.By.ID().Short(), oneLine(o.Body))
	}
	standing := s.part.book().Standing()
	line("standing: %v %v %v, generation %d", standing.Isolated, standing.Beyond, standing.Absent, standing.Generation)
	line("papers: %s", papersOf(s))
	held, err := s.part.custody()
	line("holds the key of the CA: %v, %v", held.CA(g.story.Genesis.NodeCA) != nil, err)
	seats, err := control.ReadSeats(s.part.run)
	for _, one := range seats.Seats {
		if one.Number != 3 {
			own := g.nodes[one.Number-1]
			line("tells etcd of seat %d: key %s, TLS key its own %v, away %v, yields %v, at %v", one.Number, one.Key, own.part.node.Key() == one.TLSKey, one.Away, one.Yields, one.Addresses)
		}
	}
	line("etcd is ordered: %d, %v; revoked: %v", seats.Ordered, err, s.part.node.Revoked(s.part.node.Key()))
	told, _, _ := g.events[seat].After(0)
	for _, e := range told {
		line("event: %s %s (%s)", e.Object, e.What, e.By)
	}
	line("two things at once: %d", len(s.engine.Pairs()))
}

func oneLine(text []byte) string { return strings.Join(strings.Fields(string(text)), " ") }

// papersOf are the papers of a node, in words.
func papersOf(s *session) string {
	set := token.NewSet()
	for _, raw := range s.part.papers().All() {
		if _, err := set.Recall(raw); err != nil {
			return err.Error()
		}
	}
	var all []string
	for _, key := range set.Tokens() {
		for _, u := range set.Uses(key) {
			all = append(all, fmt.Sprintf("token %s let in %s (%s), ended %v", key.ID().Short(), u.Name, u.Node.ID().Short(), set.Ended(key)))
		}
	}
	for _, node := range set.Nodes() {
		a, ok := set.Accepted(node)
		all = append(all, fmt.Sprintf("%s is accepted as %s: %v", node.ID().Short(), a.Name, ok))
	}
	return fmt.Sprintf("%d, %q", set.Len(), all)
}

// all is what the honest nodes have, and what they have to do with others, and what lies in etcd
// under their keys.
func (g *stage) all() string {
	var out strings.Builder
	out.WriteString(g.known())
	for _, seat := range honest {
		s := g.nodes[seat-1].session.Load()
		var leased []string
		for _, other := range honest {
			is, known := s.board.client.Leased(keyOf(g.t, other))
			leased = append(leased, fmt.Sprintf("n%d %v %v", other, is, known))
		}
		gateway := s.board.client.Known().Gateway
		fmt.Fprintf(&out, "n%d sees leases of %q, and has %d sessions of gossip\nn%d is at a gateway that is not isolated: %v\n", seat, leased, s.engine.Stats().Sessions, seat, gateway != 0 && gateway != 3)
	}
	g.lies(&out)
	return out.String()
}

// lies is what lies in etcd of the honest nodes and of the ledger.
func (g *stage) lies(out *strings.Builder) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + g.etcd.Socket(1)}, Logger: zap.NewNop()})
	must(g.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	leases, err := c.Leases(ctx)
	must(g.t, err)
	alive := make(map[clientv3.LeaseID]bool)
	for _, l := range leases.Leases {
		alive[l.ID] = true
	}
	for _, seat := range honest {
		for _, kind := range []string{notice.NodeKind, notice.StatusKind} {
			key := board.Place{Topic: board.Nodes, Node: keyOf(g.t, seat).ID(), Kind: kind}.Key()
			r, err := c.Get(ctx, key)
			must(g.t, err)
			for _, kv := range r.Kvs {
				e, err := signed.Open(kv.Value)
				newest := object(g.nodes[seat-1].session.Load(), kind, seat)
				fmt.Fprintf(out, "etcd: %s of n%d: what it says %v, leased %v, %v\n", kind, seat, string(e.Body) == string(newest.Body), alive[clientv3.LeaseID(kv.Lease)], err)
			}
		}
	}
	for h := int64(1); h <= 4; h++ {
		r, err := c.Get(ctx, board.Entry(h).Key())
		must(g.t, err)
		for _, kv := range r.Kvs {
			e, err := ledger.ParseEntry(kv.Value, h)
			fmt.Fprintf(out, "etcd: record %d: %s %v\n", h, document.HashOf(e.Record), err)
		}
	}
}

// settled is [stage.all] once the fleet is at rest: the same for a while, and all of it there.
func (g *stage) settled() (text string) {
	whole := func() bool {
		text = g.all()
		return strings.Count(text, "what it says true, leased") == 6 && strings.Count(text, "etcd: record ") == 4 &&
			strings.Count(text, "and has 2 sessions") == 3 && strings.Count(text, "true true") == 9 && strings.Count(text, "that is not isolated: true") == 3
	}
	defer func() {
		if g.t.Failed() {
			g.t.Logf("all is:\n%s", text)
		}
	}()
	within(g.t, "all is there", func() bool {
		if !whole() {
			return false
		}
		before := text
		for range 5 {
			if time.Sleep(50 * time.Millisecond); !whole() || text != before {
				return false
			}
		}
		return true
	})
	if os.Getenv("KOGGE_TEST_LOGS") != "" {
		g.t.Logf("all is:\n%s", text)
	}
	return text
}

// counts are what the figures of honest nodes have gone up to.
func (g *stage) counts(of counter, seats []int) map[int]uint64 {
	all := make(map[int]uint64)
	for _, seat := range seats {
		if s := g.nodes[seat-1].session.Load(); s != nil {
			all[seat] = of(s)
		}
	}
	return all
}
