package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/store"
	"kogge.example/agent/gateway"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// TestFleet has nodes say what they are, take what is decided, go, and come back; and a gateway
// go and its nodes find another one, without that anybody sees one of them gone.
func TestFleet(t *testing.T) {
	w := newWorld(t, 6, 3)
	w.whole()
	w.etcdHas(w.nodes...)
	for _, height := range []int64{2, 3} {
		if err := w.nodes[0].ledger.Take(height, w.fleet.Entries[height-1]); err != nil {
			t.Fatal(err)
		}
	}
	w.nodes[0].gateway.Advanced()
	w.all("record 3", func(n *node) bool { return n.ledger.State().Height == 3 })

	last := w.nodes[5]
	last.stopClient()
	rest := w.nodes[:5]
	for _, n := range rest {
		w.etcd.Until("the lease of n6 is gone", func() bool { leased, known := n.client.Leased(last.seat.Key); return known && !leased })
	}
	last.run()
	w.whole()
	written, puts := w.writes()
	for range 2 { // what says the same is not written again
		for _, n := range w.nodes {
			n.say(notice.NodeKind, recordOf(n.seat.Name, "board"))
			n.say(notice.StatusKind, statusOf("fine"))
			puts += 2
		}
		w.etcd.Until("all is put", func() bool { _, now := w.writes(); return now >= puts })
	}
	if now, _ := w.writes(); now != written {
		t.Errorf("%d writes", now-written)
	}

	var with []*node // whose gateway goes
	for _, n := range w.nodes[3:] {
		if n.client.Known().Gateway == 3 {
			with = append(with, n)
		}
	}
	for _, n := range w.nodes {
		n.mu.Lock()
		n.told = nil
		n.mu.Unlock()
	}
	w.nodes[2].stopGateway()
	for _, n := range append(slices.Clone(with), w.nodes[2]) {
		w.etcd.Until(n.seat.Name+" has another gateway", func() bool { g := n.client.Known().Gateway; return g != 0 && g != 3 })
		n.say(notice.StatusKind, statusOf("moved"))
	}
	w.whole()
	w.etcdHas(w.nodes...)
	for _, n := range w.nodes[:2] {
		n.mu.Lock()
		for _, i := range n.told {
			if i.State == wire.Gone && !strings.Contains(i.Key, "/ledger/") {
				t.Errorf("%s was told that %s is gone", n.seat.Name, i.Key)
			}
		}
		n.mu.Unlock()
	}
}

// TestNoLeader cuts a member's etcd off from the two others, but not from its nodes: they are told to
// go elsewhere, and nobody is taken in before there is a leader.
func TestNoLeader(t *testing.T) {
	w := newWorld(t, 6, 1)
	w.whole()
	gateway.Deaf(w.nodes[0].gateway, 2*time.Second)
	w.etcd.Kill(2, 3)
	g := w.nodes[0].gateway
	w.etcd.Until("all sessions of n1 are gone", func() bool { return g.Stats().Sessions == 0 && !g.Stats().Whole })
	w.etcd.Start(2, 3)
	w.whole()
}

// TestLeftMeanwhile has a node die while etcd takes no writes, and stay dead: once etcd does, the node's
// lease is gone, and those of all others are kept.
func TestLeftMeanwhile(t *testing.T) {
	w := newWorld(t, 6, 1)
	w.whole()
	last := w.nodes[5]
	with := last.client.Known().Gateway
	g := w.nodes[with-1].gateway
	s, err := store.Open(w.etcd.Socket(with))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var others []int
	for seat := 1; seat <= 3; seat++ {
		if seat != with {
			others = append(others, seat)
		}
	}
	last.stopClient()
	w.etcd.Until("it has left", func() bool { return g.Left() == 1 })
	w.etcd.Kill(others...)
	w.etcd.Until("its time is over", func() bool { return g.Overdue() })
	w.etcd.Start(others...)
	place := board.Place{Topic: board.Nodes, Node: last.seat.Key.ID(), Kind: notice.StatusKind}
	w.etcd.Until("its status is gone", func() bool {
		i, err := s.Get(t.Context(), place.Key())
		return err == nil && i.Revision == 0
	})
	w.etcd.Until("it is forgotten", func() bool { return g.Left() == 0 })
	w.all("all others have leases, and know that it has none", func(n *node) bool {
		if n == last {
			return true
		}
		for _, of := range w.nodes[:5] {
			if leased, known := n.client.Leased(of.seat.Key); !leased || !known {
				return false
			}
		}
		leased, known := n.client.Leased(last.seat.Key)
		return known && !leased
	})
}

// TestHostileMember has somebody with a member's etcd write what he likes: forged, foreign, old and
// misplaced objects, a forged record, and nothing at all where something was. No node accepts or
// forgets anything, each is counted, and what is honest is put back.
func TestHostileMember(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.nodes[0].ledger.Take(2, w.fleet.Entries[1])
	w.nodes[0].gateway.Advanced()
	w.whole()
	w.all("record 2", func(n *node) bool { return n.ledger.State().Height == 2 })
	before := make(map[string]string)
	for _, of := range w.nodes {
		for _, kind := range []string{notice.NodeKind, notice.StatusKind} {
			e, _ := of.has(kind, of)
			before[of.seat.Name+kind] = string(e.Body)
		}
	}
	s, err := store.Open(w.etcd.Socket(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write := func(key string, value []byte, remove bool) {
		t.Helper()
		w.etcd.Until("write "+key, func() bool {
			i, err := s.Get(t.Context(), key)
			if err != nil {
				return false
			}
			_, done, err := s.Write(t.Context(), []store.Write{{Key: key, Value: value, Was: i.Revision, Delete: remove}})
			return err == nil && done
		})
	}
	n4, n3 := w.nodes[3], w.nodes[2]
	place := func(n *node, kind string) string {
		return board.Place{Topic: board.Nodes, Node: n.seat.Key.ID(), Kind: kind}.Key()
	}
	forged := bytes.Clone(n4.seal(notice.NodeKind, 99, recordOf("n4", "forged")).Bytes())
	forged[len(forged)-1] ^= 1
	foreign, err := signed.Seal(notice.NodeKind, document.HashOf(nil), ledgertest.Private("n4"), 99, recordOf("n4", "foreign"))
	if err != nil {
		t.Fatal(err)
	}
	another := w.fleet.Again(t)
	poison := w.fleet.Entries[2] // nobody has signed it
	poison.Certificate = w.fleet.Entries[1].Certificate
	for _, c := range []struct {
		key   string
		value []byte
	}{
		{place(n4, notice.NodeKind), forged}, {place(n4, notice.NodeKind), foreign.Bytes()}, {place(n4, notice.NodeKind), []byte("junk")},
		{place(n4, notice.NodeKind), n4.seal(notice.NodeKind, 1, recordOf("n4", "older")).Bytes()},
		{place(n4, notice.NodeKind), n3.seal(notice.NodeKind, 98, recordOf("n3", "misplaced")).Bytes()},
		{place(n4, notice.StatusKind), nil}, {place(n3, notice.NodeKind), make([]byte, wire.MaxValue+1)},
		{board.Entry(1).Key(), ledger.FormatEntry(1, ledger.Entry{Record: another.Record, Value: another.Value, Certificate: w.fleet.Entries[0].Certificate})},
		{board.Entry(3).Key(), ledger.FormatEntry(3, poison)}, {board.Entry(2).Key(), []byte("junk")},
		{board.Place{Topic: board.Nodes, Node: document.HashOf(nil), Kind: notice.NodeKind}.Key(), []byte("x")}, {board.Entry(1 << 30).Key(), []byte("x")},
		{"/kogge/v1/nodes/x/record", []byte("x")}, {"/kogge/v1/votes/1", []byte("x")},
	} {
		write(c.key, c.value, false)
	}
	write(place(n3, notice.StatusKind), nil, true)
	write(place(n3, notice.NodeKind), nil, true)
	w.etcdHas(w.nodes...)
	w.whole()
	for _, n := range w.nodes {
		if s := n.ledger.State(); s.Height != 2 || n.ledger.Problem() != nil {
			t.Errorf("%s is at height %d: %v", n.seat.Name, s.Height, n.ledger.Problem())
		}
		for _, of := range w.nodes {
			for _, kind := range []string{notice.NodeKind, notice.StatusKind} {
				if e, _ := n.has(kind, of); string(e.Body) != before[of.seat.Name+kind] {
					t.Errorf("%s knows of %s: %s", n.seat.Name, of.seat.Name, e.Body)
				}
			}
		}
	}
	counts := make(map[string]uint64)
	for _, n := range w.nodes[:3] {
		for why, count := range n.gateway.Stats().Ignored {
			counts[why] += count
		}
	}
	for _, why := range []string{"with a wrong signature", "of another fleet", "older", wire.NotOwn.String(), wire.TooLarge.String(), "another record", "no entry", "a record that is not proved", "nowhere"} {
		if counts[why] == 0 {
			t.Errorf("nothing was ignored because it is %s: %v", why, counts)
		}
	}
	w.etcd.Until("the entries are back", func() bool {
		return w.etcdHasEntry(s, 1) && w.etcdHasEntry(s, 2)
	})
	w.unpoisoned(s)
}

// unpoisoned has record 3 come by gossip, in whose place something else lies: it comes there, and nobody has
// been told what lay there before.
func (w *world) unpoisoned(s *store.Store) {
	t := w.t
	if err := w.nodes[3].ledger.Take(3, w.fleet.Entries[2]); err != nil { // it comes by gossip, to all of them
		t.Fatal(err)
	}
	for _, n := range w.nodes[:3] {
		if err := n.ledger.Take(3, w.fleet.Entries[2]); err != nil {
			t.Fatal(err)
		}
		n.gateway.Advanced()
	}
	w.etcd.Until("record 3 is in its place", func() bool { return w.etcdHasEntry(s, 3) })
	for _, n := range w.nodes {
		v := n.client.Known().Verdicts
		for _, lie := range []string{"entry not proved", "no entry"} {
			if v[lie] != 0 {
				t.Errorf("a gateway has told %s lies: %v", n.seat.Name, v)
			}
		}
	}
}

// TestLateLedger has a member whose ledger lacks the record by which the others have seats while etcd tells
// what they say: once the record comes, their words count, and those who follow are told of them.
func TestLateLedger(t *testing.T) {
	w := newWorld(t, 4, 2)
	w.nodes[0].ledger.Take(2, w.fleet.Entries[1])
	w.nodes[0].gateway.Advanced()
	w.whole()
	w.etcdHas(w.nodes...)
	w.nodes[2].stopClient()
	w.nodes[2].stopGateway()
	w.etcdHas(w.nodes...)
	late := w.nodeAt(w.nodes[2].seat, 0)
	late.serve()
	w.etcd.Until("it has heard all", func() bool { return late.gateway.Stats().Whole })
	if n := late.gateway.Genuine(); n != 0 || late.gateway.Stats().Keys > 2 {
		t.Errorf("%d count, of %d keys", n, late.gateway.Stats().Keys)
	}
	if err := late.ledger.Take(1, w.fleet.Entries[0]); err != nil {
		t.Fatal(err)
	}
	late.gateway.Advanced()
	w.etcd.Until("all counts, and record 2 is taken", func() bool {
		return late.gateway.Genuine() == 2*4+2 && late.ledger.State().Height == 2
	})
	if s := late.gateway.Stats(); s.Told != uint64(2*4+2) {
		t.Errorf("those who follow are told of %d", s.Told)
	}
}

// etcdHasEntry says whether etcd has a record of the fleet in its place, with what proves it.
func (w *world) etcdHasEntry(s *store.Store, height int64) bool {
	i, err := s.Get(w.t.Context(), board.Entry(height).Key())
	e, bad := ledger.ParseEntry(i.Value, height)
	own := w.fleet.Entries[height-1]
	return err == nil && bad == nil && bytes.Equal(e.Record, own.Record) && bytes.Equal(e.Certificate, own.Certificate)
}

// TestRestore restores etcd from before most of it was said: no node takes anything back, and
// etcd has all again. Then it loses all of it.
func TestRestore(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.whole()
	var snapshot bytes.Buffer
	if err := etcd.Backup(t.Context(), w.etcd.Socket(1), &snapshot); err != nil {
		t.Fatal(err)
	}
	for _, height := range []int64{2, 3} {
		if err := w.nodes[1].ledger.Take(height, w.fleet.Entries[height-1]); err != nil {
			t.Fatal(err)
		}
	}
	w.nodes[1].gateway.Advanced()
	for _, n := range w.nodes {
		n.say(notice.NodeKind, recordOf(n.seat.Name, "newer"))
		n.say(notice.StatusKind, statusOf("newer"))
	}
	w.all("record 3", func(n *node) bool { return n.ledger.State().Height == 3 })
	w.whole()
	w.etcd.Restore(snapshot.Bytes())
	w.etcdHas(w.nodes...)
	w.whole()
	s, err := store.Open(w.etcd.Socket(2))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w.etcd.Until("etcd has record 3", func() bool {
		i, err := s.Get(t.Context(), board.Entry(3).Key())
		return err == nil && i.Revision > 0
	})
	for _, n := range w.nodes {
		if h := n.ledger.State().Height; h != 3 || n.ledger.Problem() != nil {
			t.Errorf("%s is at height %d: %v", n.seat.Name, h, n.ledger.Problem())
		}
		if e, _ := n.has(notice.NodeKind, w.nodes[3]); !bytes.Contains(e.Body, []byte("newer")) {
			t.Errorf("%s has taken back what n4 said", n.seat.Name)
		}
	}
}

// session is one of a hostile node, which says what it likes.
type session interface {
	Send([][]byte) error
	Receive() ([]byte, error)
	Close() error
}

func (n *node) dial(t *testing.T, to *node) session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := n.tls.Dial(ctx, to.seat)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// next is the next frame but for what has changed on the board.
func next(t *testing.T, s session) wire.Frame {
	t.Helper()
	for {
		raw, err := s.Receive()
		if err != nil {
			return nil
		}
		f, err := wire.Decode(raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, told := f.(wire.Items); !told {
			return f
		}
	}
}

// TestHostileNode has a node put what is not its own to put, flood, and say what no node says:
// each is refused by its reason, and no other node notices.
func TestHostileNode(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	n1, n4 := w.nodes[0], w.nodes[3]
	n4.stopClient()
	n1.gateway.Forgive(n4.seat.Key)
	s := n4.dial(t, n1)
	if f, ok := next(t, s).(wire.Welcome); !ok || f.Silence != silence || !slices.Equal(f.Members, []int{1, 2, 3}) {
		t.Fatalf("%+v", f)
	}
	forged := bytes.Clone(n4.seal(notice.NodeKind, 99, recordOf("n4", "forged")).Bytes())
	forged[len(forged)-1] ^= 1
	foreign, _ := signed.Seal(notice.NodeKind, document.HashOf(nil), ledgertest.Private("n4"), 99, recordOf("n4", "foreign"))
	for i, c := range []struct {
		what string
		raw  []byte
		want wire.Why
	}{
		{"its own", n4.seal(notice.NodeKind, 50, recordOf("n4", "b")).Bytes(), wire.None},
		{"again", n4.seal(notice.NodeKind, 50, recordOf("n4", "b")).Bytes(), wire.None},
		{"an older one", n4.seal(notice.NodeKind, 49, recordOf("n4", "c")).Bytes(), wire.Older},
		{"another's", w.nodes[2].seal(notice.NodeKind, 99, recordOf("n3", "b")).Bytes(), wire.NotOwn},
		{"a kind without a place", n4.seal(notice.TLSKeyKind, 99, nil).Bytes(), wire.NotOwn},
		{"a forged one", forged, wire.Forged}, {"a foreign one", foreign.Bytes(), wire.Forged}, {"junk", []byte("junk"), wire.Malformed},
		{"a bad body", n4.seal(notice.NodeKind, 99, []byte("{}")).Bytes(), wire.Malformed},
		{"a large one", n4.seal(notice.NodeKind, 99, make([]byte, 60<<10)).Bytes(), wire.TooLarge},
	} {
		if err := s.Send([][]byte{wire.Encode(wire.Put{ID: uint64(i), Envelope: c.raw})}); err != nil {
			t.Fatal(err)
		}
		if f, ok := next(t, s).(wire.Done); !ok || f.ID != uint64(i) || f.Why != c.want {
			t.Errorf("%s: %+v, want %q", c.what, f, c.want)
		}
	}
	for i := range 1000 {
		if s.Send([][]byte{wire.Encode(wire.Put{ID: uint64(i), Envelope: []byte("junk")})}) != nil {
			break
		}
	}
	for next(t, s) != nil { // until it is thrown out
	}
	if f, ok := next(t, n4.dial(t, n1)).(wire.Refuse); !ok || f.Why != wire.Busy || f.Wait <= 0 {
		t.Errorf("after a flood: %+v", f)
	}
	for name, raw := range map[string][]byte{"no frame": {99}, "a gateway's frame": wire.Encode(wire.Recall{})} {
		s := n4.dial(t, w.nodes[1])
		next(t, s)
		if err := s.Send([][]byte{raw}); err != nil {
			t.Fatal(err)
		}
		if f := next(t, s); f != nil {
			t.Errorf("%s: %+v", name, f)
		}
		if name == "no frame" {
			w.nodes[1].gateway.Forgive(n4.seat.Key)
		}
	}
	if d := n1.gateway.Stats().Dropped["flood"]; d != 1 {
		t.Errorf("%d sessions were dropped for flooding", d)
	}
	for _, n := range w.nodes[:3] {
		if k := n.client.Known(); k.Gateway == 0 || len(k.Problem) > 0 {
			t.Errorf("%s: %+v", n.seat.Name, k)
		}
	}
	n1.say(notice.StatusKind, statusOf("all is well"))
	for _, n := range w.nodes[:3] {
		w.etcd.Until("the others hear of n1", func() bool {
			e, _ := n.has(notice.StatusKind, n1)
			return bytes.Contains(e.Body, []byte("all is well"))
		})
	}
}

// TestPace has a node put one record after the other: etcd is written no more often than gossip carries
// what a seat says, and what is over it is told to wait.
func TestPace(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	n2, n4 := w.nodes[1], w.nodes[3]
	n4.stopClient()
	n2.gateway.Forgive(n4.seat.Key)
	s := n4.dial(t, n2)
	next(t, s)
	began, taken := time.Now(), 0
	const tries = 3 * notice.Burst
	for i := range tries {
		e := n4.seal(notice.NodeKind, uint64(100+i), recordOf("n4", fmt.Sprintf("board %d", i)))
		if err := s.Send([][]byte{wire.Encode(wire.Put{ID: uint64(i), Envelope: e.Bytes()})}); err != nil {
			t.Fatal(err)
		}
		f, ok := next(t, s).(wire.Done)
		switch {
		case ok && f.Why == wire.None:
			taken++
		case !ok || f.Why != wire.Busy || f.Wait <= 0 || f.Wait > notice.Pace:
			t.Errorf("%+v", f)
		}
	}
	if most := notice.Burst + int(time.Since(began)/notice.Pace) + 1; taken < notice.Burst || taken > most {
		t.Errorf("%d of %d are written, %d at most", taken, tries, most)
	}
}

// TestSlow has a node follow and read nothing, while more changes than is kept: it costs no more
// than its number, is told to ask anew, and then knows all.
func TestSlow(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.whole()
	g := w.nodes[0].gateway
	slow := w.nodes[2]
	slow.stopClient()
	s := slow.dial(t, w.nodes[0])
	next(t, s)
	if err := s.Send([][]byte{wire.Encode(wire.Follow{Topic: board.Nodes})}); err != nil {
		t.Fatal(err)
	}
	if f, ok := next(t, s).(wire.Live); !ok {
		t.Fatalf("%+v", f)
	}
	flood := g.Flood(board.Nodes, 16<<10)
	for i := 0; g.Stats().Slow == 0; i++ {
		if i > 1<<16 {
			t.Fatal("it is never told to ask anew")
		}
		flood(i)
		if _, bytes := g.Queued(board.Nodes); bytes > 5<<20 {
			t.Fatalf("%d bytes are kept", bytes)
		}
		if g.Stats().Slow == 0 && g.Overtaken(slow.seat.Key) {
			for { // now it reads
				if _, ok := next(t, s).(wire.Again); ok {
					break
				}
			}
		}
	}
	if err := s.Send([][]byte{wire.Encode(wire.Follow{Topic: board.Nodes})}); err != nil {
		t.Fatal(err)
	}
	for {
		f := next(t, s)
		if f == nil {
			t.Fatal("the session has ended")
		}
		if _, ok := f.(wire.Live); ok {
			break
		}
	}
}

// stuck is a session of a node that asks for a list, and reads nothing of it.
type stuck struct {
	key  signed.Key
	ask  chan []byte
	over chan struct{}
	once sync.Once
}

func (s *stuck) Peer() signed.Key { return s.key }

func (s *stuck) Send(frames [][]byte) error {
	if f, err := wire.Decode(frames[0]); err == nil {
		if _, told := f.(wire.Items); !told {
			return nil
		}
	}
	<-s.over
	return net.ErrClosed
}

func (s *stuck) Receive() ([]byte, error) {
	select {
	case raw := <-s.ask:
		return raw, nil
	case <-s.over:
		return nil, net.ErrClosed
	}
}

func (s *stuck) Close() error {
	s.once.Do(func() { close(s.over) })
	return nil
}

// TestSlowLists has nine nodes ask for lists and read nothing: others are told theirs meanwhile. Who goes
// on reading nothing has no session after a while.
func TestSlowLists(t *testing.T) {
	w := newWorld(t, 12, 1)
	w.whole()
	g := w.nodes[0].gateway
	gateway.Patience(g, time.Hour, time.Hour)
	var serving sync.WaitGroup
	var all []*stuck
	ask := func(n *node) {
		n.stopClient()
		s := &stuck{key: n.seat.Key, ask: make(chan []byte, 1), over: make(chan struct{})}
		s.ask <- wire.Encode(wire.Follow{Topic: board.Nodes})
		serving.Go(func() { _ = g.Serve(t.Context(), s) })
		all = append(all, s)
	}
	for _, n := range w.nodes[2:11] {
		ask(n)
	}
	w.etcd.Until("nine are told lists, and nobody waits for them", func() bool {
		reading, told := g.Lists()
		return told == 9 && reading == 0
	})
	last := w.nodes[11]
	last.stopClient()
	s := last.dial(t, w.nodes[0])
	next(t, s)
	if err := s.Send([][]byte{wire.Encode(wire.Follow{Topic: board.Nodes})}); err != nil {
		t.Fatal(err)
	}
	if f, ok := next(t, s).(wire.Live); !ok {
		t.Errorf("%+v", f)
	}
	for _, s := range all {
		s.Close()
	}
	serving.Wait()
	gateway.Patience(g, time.Hour, time.Second)
	ask(w.nodes[2])
	serving.Wait()
	if d := g.Stats().Dropped; d["slow"] != 1 {
		t.Errorf("who reads nothing is not sent away: %v", d)
	}
	// It comes in again, and is told no list for a while. Where all places are taken, nobody waits for long.
	again := func(who string, s session) {
		if err := s.Send([][]byte{wire.Encode(wire.Follow{Topic: board.Nodes})}); err != nil {
			t.Fatal(err)
		}
		for {
			switch f := next(t, s).(type) {
			case wire.Items: // what somebody says meanwhile
			case wire.Again:
				return
			default:
				t.Fatalf("%s: %+v", who, f)
			}
		}
	}
	slow := w.nodes[2].dial(t, w.nodes[0])
	next(t, slow)
	again("who reads nothing", slow)
	gateway.Patience(g, time.Hour, 6*time.Second)
	gateway.FillLists(g)
	again("all places are taken", s)
}

// TestWhoComesIn has callers with all kinds of keys: a session is of the seat whose own word
// certifies the key of its TLS, whatever certificate it shows, or there is none.
func TestWhoComesIn(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.whole()
	n1, n4 := w.nodes[0], w.nodes[3]
	n4.stopClient()
	stranger := roster.Seat{Number: 9, Name: "n9", Key: ledgertest.Key(t, "n9")}
	for _, c := range []struct {
		what string
		with func() *gossip.TLS
		want bool
	}{
		{"its own key", func() *gossip.TLS { return w.transport(n4.seat) }, true},
		{"a key that no seat certifies", func() *gossip.TLS {
			other := w.transport(n4.seat)
			other.Word = n4.tls.Word
			return other
		}, false},
		{"another seat's word", func() *gossip.TLS {
			other := w.transport(n4.seat)
			other.Word = w.nodes[1].tls.Word
			return other
		}, false},
		{"a seat that nobody lists", func() *gossip.TLS { return w.transport(stranger) }, false},
		{"no certificate", func() *gossip.TLS {
			other := w.transport(n4.seat)
			other.Certificate = func() tls.Certificate { return tls.Certificate{} }
			return other
		}, false},
		{"another protocol", func() *gossip.TLS {
			other := w.transport(n4.seat)
			other.Speaks = gossip.Protocol
			return other
		}, false},
		{"junk for a word", func() *gossip.TLS {
			other := w.transport(n4.seat)
			other.Word = func() (signed.Envelope, error) { return n4.seal(notice.StatusKind, 1, nil), nil }
			return other
		}, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var welcome bool
		s, err := c.with().Dial(ctx, n1.seat)
		if err == nil {
			if raw, err := s.Receive(); err == nil {
				f, err := wire.Decode(raw)
				_, welcome = f.(wire.Welcome)
				if err != nil {
					t.Error(err)
				}
			}
			s.Close()
		}
		cancel()
		if welcome != c.want {
			t.Errorf("%s: welcome %v, %v", c.what, welcome, err)
		}
	}
	n1.gateway.Isolate(n4.seat.Key)
	if f, ok := next(t, n4.dial(t, n1)).(wire.Refuse); !ok || f.Why != wire.Unlisted {
		t.Errorf("one that is isolated: %+v", f)
	}
}
