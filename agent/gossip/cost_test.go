package gossip

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// against has three honest nodes of a fleet, of which the first one is looked at, and a puppet
// in the place of the fourth; the other seats are not there.
func against(t *testing.T, state ledger.State, open func(int) Ledger, play func(p *puppet), test func(n *network, p *puppet)) {
	n := newNetwork(t, state, open)
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	p := &puppet{node: n.nodes[3]}
	for _, one := range n.nodes[:3] {
		one.numbers = 10
	}
	n.nodes = n.nodes[:3]
	play(p)
	p.play(ctx)
	n.run(func() { test(n, p) })
}

// filled is the state of a fleet whose seats have all said something, and their words.
func filled(t *testing.T, n *network) {
	for _, seat := range n.state.Roster.Seats {
		s := notice.Status{Version: 1, Height: n.state.Height, Head: n.state.Record}
		e, err := signed.Seal(notice.StatusKind, n.fleet, private(seat.Number), 1, s.Encode())
		if err == nil {
			err = n.nodes[0].engine.Publish(e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFloods has a peer send for a minute what costs it little. What that costs the node has a
// bound, and afterwards it hears the news as before.
func TestFloods(t *testing.T) {
	kind := 0
	for _, k := range notice.Kinds() {
		if k.Name == notice.StatusKind {
			kind = k.Number
		}
	}
	begun := func(ctx context.Context, pause time.Duration, one func() error) {
		for until := time.Now().Add(time.Minute); ctx.Err() == nil && time.Now().Before(until) && one() == nil; {
			time.Sleep(pause)
		}
	}
	many := func(f wire.Frame) func(p *puppet) {
		var all []wire.Frame
		for range 2000 {
			all = append(all, f)
		}
		return func(p *puppet) {
			p.begins = func(ctx context.Context, s Session) {
				begun(ctx, 100*time.Millisecond, func() error { return send(s, all...) })
			}
		}
	}
	for what, c := range map[string]struct {
		seats int
		play  func(p *puppet)
	}{
		"it says that it has the same": {4, many(wire.Same{})},
		"it says that it has nothing":  {4, many(wire.Lack{})},
		"it lists nothing": {400, func(p *puppet) {
			all := []wire.Frame{wire.List{Part: shelf.Part{Kind: kind}}}
			for i := range 16 {
				all = append(all, wire.List{Part: shelf.Part{Kind: kind, Depth: 1, Prefix: uint32(i)}})
			}
			p.dials = true
			p.begins = func(ctx context.Context, s Session) {
				begun(ctx, 60*time.Millisecond, func() error { return send(s, all...) })
			}
		}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				state := large(t, c.seats)
				for i := range state.Roster.Seats {
					state.Roster.Seats[i].Vote = i < 4 // they are there
				}
				against(t, state, func(int) Ledger { return still{state} }, func(p *puppet) {
					for _, one := range p.net.nodes {
						one.config = func(c *Config) { c.HourlyBytes = 1 << 20 }
					}
					c.play(p)
				}, func(n *network, p *puppet) {
					filled(t, n)
					time.Sleep(2 * time.Minute)
					for i, one := range n.nodes {
						e := one.sayStatus(int64(i + 1))
						n.within(5*time.Second, what+": news", func() bool { return n.have(e) })
					}
					for _, one := range n.nodes {
						if s := one.engine.Stats(); s.Sent > 1<<20 {
							t.Errorf("%s: %s has sent %d bytes", what, one.name, s.Sent)
						}
					}
				})
			})
		})
	}
}

// counting is a ledger of large entries that counts how often it is read.
type counting struct {
	still
	reads *atomic.Int64
}

func (l counting) Entry(height int64) (ledger.Entry, error) {
	l.reads.Add(1)
	return ledger.Entry{Record: []byte("record"), Value: make([]byte, 256<<10), Certificate: []byte("certificate")}, nil
}

// TestReads has a peer ask for pieces that do not exist, of two entries by turns: it pays for
// what is read for it.
func TestReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 4)
		state.Height = 2
		var reads atomic.Int64
		against(t, state, func(int) Ledger { return counting{still{state}, &reads} }, func(p *puppet) {
			p.begins = func(ctx context.Context, s Session) {
				for i := int64(0); ctx.Err() == nil; i++ {
					if send(s, wire.WantPiece{Height: 1 + i%2, Sum: document.Hash{1}}) != nil {
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}
		}, func(n *network, p *puppet) {
			time.Sleep(2 * time.Minute)
			if got := reads.Load(); got > 150 { // some 4 MiB for each of three nodes
				t.Errorf("%d entries of 256 KiB are read in two minutes", got)
			}
		})
	})
}

// stuck is a ledger whose disk waits.
type stuck struct {
	*moving
	goOn chan bool
}

func (l stuck) Entry(int64) (ledger.Entry, error) {
	<-l.goOn
	return ledger.Entry{}, ledger.ErrHeight
}

func (l stuck) Take(height int64, _ ledger.Entry) error {
	s := l.State()
	if height != s.Height+1 {
		return ledger.ErrHeight
	}
	s.Height, s.Record = height, document.HashOf(fmt.Appendf(nil, "record %d", height))
	l.set(s)
	return nil
}

// TestBusyDisk has peers ask for so much that the disk has too much to do: the node's own next
// entry is taken all the same, and is not fetched again.
func TestBusyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 12)
		l := stuck{&moving{state: state}, make(chan bool)}
		n := newNetwork(t, state, func(int) Ledger { return l })
		ctx, stop := context.WithCancel(context.Background())
		n.stop = stop
		me, others := n.nodes[0], n.nodes[1:]
		n.nodes = n.nodes[:1]
		var asked atomic.Int64
		for i, one := range others {
			p := &puppet{node: one, dials: true}
			if i == len(others)-1 { // it has the next entry
				p.begins = func(_ context.Context, s Session) {
					time.Sleep(time.Minute - time.Duration(time.Now().Second())*time.Second)
					_ = send(s, wire.Head{Height: 2, Record: document.HashOf([]byte("record 2"))})
				}
				p.heard = func(s Session, f wire.Frame) {
					if w, ok := f.(wire.WantEntry); ok {
						asked.Add(1)
						_ = send(s, wire.Entry{Height: w.Height})
					}
				}
			} else {
				p.begins = func(_ context.Context, s Session) {
					for range maxReading {
						_ = send(s, wire.WantEntry{Height: 1})
					}
				}
			}
			p.play(ctx)
		}
		n.run(func() {
			time.Sleep(2 * time.Minute)
			close(l.goOn)
			n.within(10*time.Second, "the next entry", func() bool { return me.engine.Stats().Height == 2 })
			if asked.Load() != 1 {
				t.Errorf("it was asked for %d times", asked.Load())
			}
		})
	})
}

// TestSlowPeer has a peer on a slow line: what it sends late is taken, and it is not sent away.
func TestSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 4)
		against(t, state, func(int) Ledger { return still{state} }, func(p *puppet) {
			var mu sync.Mutex // guards what follows
			deeds := int64(0)
			id := shelf.IDOf(notice.StatusKind, p.key)
			p.begins = func(ctx context.Context, s Session) {
				for ctx.Err() == nil {
					mu.Lock()
					deeds++
					p.numbers++
					number := p.numbers
					mu.Unlock()
					if send(s, wire.Tell{{ID: id, Number: number}}) != nil {
						return
					}
					time.Sleep(2 * time.Minute)
				}
			}
			p.heard = func(s Session, f wire.Frame) {
				censored(s, f)
				if w, ok := f.(wire.Want); ok && w[0].ID == id {
					p.net.running.Go(func() {
						time.Sleep(25 * time.Second)
						mu.Lock()
						e, _ := signed.Seal(notice.StatusKind, p.net.fleet, p.private, p.numbers, p.status(deeds))
						mu.Unlock()
						_ = send(s, wire.Objects{e.Bytes()})
					})
				}
			}
		}, func(n *network, p *puppet) {
			time.Sleep(time.Hour)
			for _, one := range n.nodes {
				e, _ := one.engine.Object(notice.StatusKind, p.key)
				if away := one.away(); len(away) > 0 || e.Sequence < 20 {
					t.Errorf("%s has number %d of it, and keeps away %v: %v", one.name, e.Sequence, away, one.engine.Stats().Dropped)
				}
			}
		})
	})
}

// TestDenied has a peer that says that it does not send something now: it is asked again, and
// others are.
func TestDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 4)
		against(t, state, func(int) Ledger { return still{state} }, func(p *puppet) {
			var asked atomic.Int64
			id := shelf.IDOf(notice.StatusKind, p.key)
			p.begins = func(_ context.Context, s Session) { _ = send(s, wire.Tell{{ID: id, Number: 1}}) }
			p.heard = func(s Session, f wire.Frame) {
				censored(s, f)
				if w, ok := f.(wire.Want); ok && w[0].ID == id {
					if asked.Add(1) < 10 {
						_ = send(s, wire.Denied{id})
						return
					}
					e, _ := signed.Seal(notice.StatusKind, p.net.fleet, p.private, 1, p.status(1))
					_ = send(s, wire.Objects{e.Bytes()})
				}
			}
		}, func(n *network, p *puppet) {
			n.within(5*time.Minute, "what was denied", func() bool {
				_, ok := n.nodes[0].engine.Object(notice.StatusKind, p.key)
				return ok
			})
			for _, one := range n.nodes {
				if away := one.away(); len(away) > 0 {
					t.Errorf("%s keeps away %v: %v", one.name, away, one.engine.Stats().Dropped)
				}
			}
		})
	})
}

// TestUsedUp has a peer ask for all there is when nothing more may be sent, as after all have
// booted at once: each time it is told so, and it is not sent away for it.
func TestUsedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 40)
		for i := range state.Roster.Seats {
			state.Roster.Seats[i].Vote = i < 4
		}
		var got atomic.Int64
		against(t, state, func(int) Ledger { return still{state} }, func(p *puppet) {
			for _, one := range p.net.nodes {
				one.config = func(c *Config) { c.HourlyBytes = 8 << 10 }
			}
			p.dials = true
			p.begins = func(ctx context.Context, s Session) {
				for ctx.Err() == nil {
					var f wire.Want
					for _, seat := range p.net.state.Roster.Seats {
						f = append(f, wire.Wanted{ID: shelf.IDOf(notice.StatusKind, seat.Key)})
					}
					if send(s, f) != nil {
						return
					}
					time.Sleep(time.Minute)
				}
			}
			p.heard = func(s Session, f wire.Frame) {
				censored(s, f)
				if _, ok := f.(wire.Objects); ok {
					got.Add(1)
				}
			}
		}, func(n *network, p *puppet) {
			filled(t, n)
			time.Sleep(10 * time.Minute)
			for _, one := range n.nodes[:1] {
				if away := one.away(); len(away) > 0 {
					t.Errorf("%s keeps away %v: %v", one.name, away, one.engine.Stats().Dropped)
				}
			}
			if got.Load() == 0 {
				t.Error("it was sent nothing at all")
			}
		})
	})
}

// TestVotersFirst has seats without a vote take all places: a voter gets one of them.
func TestVotersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 20)
		for i := range state.Roster.Seats {
			state.Roster.Seats[i].Vote = i < 4
		}
		n := newNetwork(t, state, func(int) Ledger { return still{state} })
		ctx, stop := context.WithCancel(context.Background())
		n.stop = stop
		me, all := n.nodes[0], n.nodes
		me.config = func(c *Config) { c.Inbound = 5 }
		n.nodes = all[:1]
		for _, one := range all[1:4] {
			one.behind = true // nobody reaches them: they come by themselves
		}
		for _, one := range all[4:] {
			(&puppet{node: one, dials: true, heard: censored}).play(ctx)
		}
		n.run(func() {
			time.Sleep(time.Minute)
			inbound := func(votes bool) (names []string) {
				me.engine.do(func() {
					for _, s := range me.engine.sessions {
						if !s.dialled && s.seat.Vote == votes {
							names = append(names, s.seat.Name)
						}
					}
				})
				return names
			}
			if got := inbound(false); len(got) != 5 {
				t.Errorf("there are %v", got)
			}
			for _, one := range all[1:4] {
				(&puppet{node: one, dials: true, heard: censored}).play(ctx)
			}
			n.within(2*time.Minute, "the voters have sessions", func() bool { return len(inbound(true)) == 3 })
			if got := inbound(false); len(got) > 2 {
				t.Errorf("there are %v besides", got)
			}
		})
	})
}

// deaf is a session with a peer that reads nothing.
type deaf struct {
	peer signed.Key
	once sync.Once
	over chan struct{}
}

func (d *deaf) Peer() signed.Key         { return d.peer }
func (d *deaf) Send([][]byte) error      { <-d.over; return errDown }
func (d *deaf) Receive() ([]byte, error) { <-d.over; return nil, errDown }
func (d *deaf) Close() error             { d.once.Do(func() { close(d.over) }); return nil }

// TestQueued has many peers ask for much and not read it: what waits for all of them together
// has a bound.
func TestQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := large(t, 80)
		n := newNetwork(t, state, func(int) Ledger { return still{state} })
		me := n.nodes[0]
		me.config = func(c *Config) { c.HourlyBytes = 4 << 30 }
		n.nodes = n.nodes[:1]
		n.run(func() {
			var f wire.Want
			for i, seat := range state.Roster.Seats {
				s := notice.Status{Version: 1, Height: state.Height, Head: state.Record}
				for j := range 16 {
					s.Wrong = append(s.Wrong, notice.Fault{What: fmt.Sprintf("%d", j), Why: fmt.Sprintf("%0300d", i)})
				}
				e, err := signed.Seal(notice.StatusKind, n.fleet, private(seat.Number), 1, s.Fit(me.engine.Limit(notice.StatusKind)).Encode())
				if err == nil {
					err = me.engine.Publish(e)
				}
				if err != nil {
					t.Fatal(err)
				}
				f = append(f, wire.Wanted{ID: shelf.IDOf(notice.StatusKind, seat.Key)})
			}
			most := int64(0)
			for _, seat := range state.Roster.Seats[1:] {
				me.engine.do(func() { me.engine.opened(&deaf{peer: seat.Key, over: make(chan struct{})}, false) })
				for range 2 {
					me.engine.do(func() { me.engine.heard(me.engine.sessions[seat.Key], wire.Encode(f)) })
				}
				me.engine.do(func() {
					sum := int64(0)
					for _, s := range me.engine.sessions {
						sum += s.queued.Load()
					}
					most = max(most, sum)
				})
			}
			t.Logf("%d bytes wait to be sent, at most", most)
			if most > 16<<20 {
				t.Errorf("%d bytes wait to be sent", most)
			}
			me.engine.do(func() {
				if len(me.engine.sessions) != len(f)-1 {
					t.Errorf("%d of %d sessions are left", len(me.engine.sessions), len(f)-1)
				}
			})
		})
	})
}

// TestSources has eight peers tell of an object that they do not have: whom the node has chosen
// itself is remembered in the place of one of them, and so is whoever has failed less.
func TestSources(t *testing.T) {
	state := large(t, 20)
	e := New(Config{Self: state.Roster.Seats[0].Key, Ledger: still{state}, Kinds: notice.Kinds(), Logf: t.Logf})
	from := func(seat int, dialled bool) *session {
		one := state.Roster.Seats[seat-1]
		return &session{key: one.Key, seat: one, dialled: dialled, asked: make(map[shelf.ID]asking), waiting: make(map[shelf.ID]bool)}
	}
	id := shelf.IDOf(notice.StatusKind, state.Roster.Seats[18].Key)
	has := func(s *session) bool {
		for _, one := range e.wants[id].sources {
			if one.s == s {
				return true
			}
		}
		return false
	}
	now := time.Now()
	var liars []*session
	for i := range maxSources {
		liars = append(liars, from(2+i, false))
		e.wish(id, notice.MaxNumber, liars[i], now)
	}
	late := from(11, false)
	if e.wish(id, 1, late, now); has(late) {
		t.Error("whoever comes last takes a place")
	}
	chosen := from(12, true)
	if e.wish(id, 1, chosen, now); !has(chosen) {
		t.Error("whom the node has chosen has no place")
	}
	for _, one := range liars {
		e.peer(one.key).demerits = 5
	}
	if e.wish(id, 1, late, now); !has(late) || !has(chosen) {
		t.Error("who has failed less has no place")
	}
	if len(e.wants[id].sources) != maxSources {
		t.Errorf("%d peers are remembered", len(e.wants[id].sources))
	}
}
