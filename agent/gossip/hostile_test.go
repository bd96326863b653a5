package gossip

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/gossip/choice"
	"kogge.example/agent/gossip/wire"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

// puppet is a seat of the fleet that does what a test wants: it has its key, and no engine.
type puppet struct {
	*node
	// begins is done with each session, and heard with each frame; both may send.
	begins func(ctx context.Context, s Session)
	heard  func(s Session, f wire.Frame)
	dials  bool // it opens sessions with everybody, again and again
}

func send(s Session, frames ...wire.Frame) error {
	var raw [][]byte
	for _, f := range frames {
		raw = append(raw, wire.Encode(f))
	}
	return s.Send(raw)
}

// play runs it until ctx ends.
func (p *puppet) play(ctx context.Context) {
	net := p.net
	take := func(s Session) {
		context.AfterFunc(ctx, func() { s.Close() })
		if p.begins != nil {
			net.running.Go(func() { p.begins(ctx, s) })
		}
		net.running.Go(func() {
			for {
				raw, err := s.Receive()
				if err != nil {
					return
				}
				if f, err := wire.Decode(raw); err == nil && p.heard != nil {
					p.heard(s, f)
				}
			}
		})
	}
	net.running.Go(func() {
		for {
			s, err := p.Accept(ctx)
			if err != nil {
				return
			}
			take(s)
		}
	})
	if !p.dials {
		return
	}
	for _, one := range net.nodes { // the honest ones
		seat, _ := net.state.Roster.ByKey(one.key)
		net.running.Go(func() {
			for ctx.Err() == nil {
				if s, err := p.Dial(ctx, seat); err == nil {
					take(s)
				}
				select {
				case <-ctx.Done():
				case <-time.After(30 * time.Second):
				}
			}
		})
	}
}

// censored answers as if it knew the same, and passes nothing on.
func censored(s Session, f wire.Frame) {
	if d, ok := f.(wire.Digest); ok && d[0].Depth == 0 {
		_ = send(s, wire.Same{})
	}
}

// TestHostile has three seats of ten do all the harm that they can. News go on to all honest
// nodes in time, none of which keeps another honest one away, and what the hostile ones cost
// has a bound. Who does what no honest node does is sent away.
func TestHostile(t *testing.T) {
	type play struct {
		what   string
		away   bool // it is found out
		limit  time.Duration
		puppet func(p *puppet)
	}
	idsOf := func(p *puppet) (ids []shelf.ID) {
		for _, one := range p.net.nodes {
			ids = append(ids, shelf.IDOf(notice.StatusKind, one.key))
		}
		return ids
	}
	loop := func(pause time.Duration, one func(s Session) error) func(context.Context, Session) {
		return func(ctx context.Context, s Session) {
			for ctx.Err() == nil && one(s) == nil {
				time.Sleep(pause)
			}
		}
	}
	claims := func(p *puppet) func(context.Context, Session) {
		return loop(time.Second, func(s Session) error {
			var f wire.Tell
			for _, id := range idsOf(p) {
				f = append(f, wire.Told{ID: id, Number: notice.MaxNumber})
			}
			return send(s, f)
		})
	}
	for _, c := range []play{
		{"junk", true, 5 * time.Second, func(p *puppet) {
			p.begins = func(_ context.Context, s Session) { _ = s.Send([][]byte{{99, 1, 2, 3}}) }
		}},
		{"censors", false, 5 * time.Second, func(p *puppet) { p.heard = censored }},
		{"floods with news of nobody", true, 5 * time.Second, func(p *puppet) {
			p.begins = loop(time.Millisecond, func(s Session) error {
				var f wire.Tell
				for i := range wire.MaxItems {
					f = append(f, wire.Told{ID: shelf.ID{byte(i), byte(i >> 8), 1}, Number: 1})
				}
				return send(s, f)
			})
		}},
		{"floods with digests", true, 5 * time.Second, func(p *puppet) {
			p.begins = loop(time.Millisecond, func(s Session) error {
				var f wire.Digest
				for i := range 16 {
					f = append(f, shelf.SumOf{Part: shelf.Part{Kind: 1, Depth: 1, Prefix: uint32(i)}, Sum: shelf.Sum{1}})
				}
				return send(s, f)
			})
		}},
		{"asks for everything, again and again", true, 5 * time.Second, func(p *puppet) {
			p.begins = loop(time.Millisecond, func(s Session) error {
				var f wire.Want
				for _, id := range idsOf(p) {
					f = append(f, wire.Wanted{ID: id})
				}
				return send(s, f, wire.WantEntry{Height: 1})
			})
		}},
		{"asks for entries without end", true, 5 * time.Second, func(p *puppet) {
			var many []wire.Frame
			for range 100 {
				many = append(many, wire.WantEntry{Height: 1})
			}
			p.begins = loop(time.Millisecond, func(s Session) error { return send(s, many...) })
		}},
		{"sends what nobody asked for", true, 5 * time.Second, func(p *puppet) {
			p.begins = func(_ context.Context, s Session) {
				_ = send(s, wire.Objects{p.seal(notice.StatusKind, p.status(1)).Bytes()})
			}
		}},
		{"sends papers that nobody asked for", true, 5 * time.Second, func(p *puppet) {
			p.begins = func(_ context.Context, s Session) { _ = send(s, wire.Papers{[]byte("paper")}) }
		}},
		{"asks for papers without end", true, 5 * time.Second, func(p *puppet) {
			p.begins = loop(time.Millisecond, func(s Session) error {
				return send(s, wire.PaperSum{Sum: document.Hash{1}}, wire.WantPapers(make([]token.Short, token.MaxSet)))
			})
		}},
		{"claims to have news, and is silent", true, 5 * time.Second, func(p *puppet) { p.begins = claims(p) }},
		{"claims to have news, and forges them", true, 5 * time.Second, func(p *puppet) {
			p.begins = claims(p)
			p.heard = func(s Session, f wire.Frame) {
				if w, ok := f.(wire.Want); ok {
					for _, one := range p.net.nodes {
						if shelf.IDOf(notice.StatusKind, one.key) == w[0].ID {
							e, _ := signed.Seal(notice.StatusKind, p.net.fleet, p.private, 1<<60, one.status(666))
							raw := slices.Clone(e.Bytes())
							copy(raw[4+len(notice.StatusKind)+4+32+4:], one.key) // in another's name
							_ = send(s, wire.Objects{raw})
						}
					}
				}
			}
		}},
		{"claims to have news, and sends old ones", true, 5 * time.Second, func(p *puppet) {
			p.begins = claims(p)
			old := make(map[shelf.ID][]byte)
			for _, one := range p.net.nodes {
				e, _ := signed.Seal(notice.StatusKind, p.net.fleet, one.private, 1, one.status(1))
				old[shelf.IDOf(notice.StatusKind, one.key)] = e.Bytes()
			}
			p.heard = func(s Session, f wire.Frame) {
				if w, ok := f.(wire.Want); ok {
					for _, one := range w {
						_ = send(s, wire.Objects{old[one.ID]})
					}
				}
			}
		}},
		{"says that seats have said two things, and sends what all know", false, 2 * time.Second, func(p *puppet) {
			var mu sync.Mutex // guards what follows
			known := make(map[shelf.ID]signed.Envelope)
			p.begins = loop(100*time.Millisecond, func(s Session) error {
				mu.Lock()
				var f wire.Tell
				for id, e := range known {
					f = append(f, wire.Told{ID: id, Number: e.Sequence, Sum: [8]byte{1}})
				}
				mu.Unlock()
				if len(f) == 0 {
					return nil
				}
				return send(s, f)
			})
			p.heard = func(s Session, f wire.Frame) {
				mu.Lock()
				defer mu.Unlock()
				switch f := f.(type) {
				case wire.Tell:
					for _, one := range f {
						if known[one.ID].Sequence < one.Number {
							_ = send(s, wire.Want{{ID: one.ID}})
						}
					}
				case wire.Objects:
					if e, err := signed.Parse(f[0]); err == nil {
						known[shelf.IDOf(e.Kind, e.By)] = e
					}
				case wire.Want:
					for _, one := range f {
						if e, ok := known[one.ID]; ok {
							_ = send(s, wire.Objects{e.Bytes()})
						}
					}
				}
			}
		}},
		{"signs without end", false, 5 * time.Second, func(p *puppet) {
			id := shelf.IDOf(notice.StatusKind, p.key)
			deeds := int64(0)
			p.begins = loop(3*time.Second, func(s Session) error {
				deeds++
				e := p.seal(notice.StatusKind, p.status(deeds))
				return send(s, wire.Tell{{ID: id, Number: e.Sequence}})
			})
			p.heard = func(s Session, f wire.Frame) {
				if w, ok := f.(wire.Want); ok && w[0].ID == id {
					e, _ := signed.Seal(notice.StatusKind, p.net.fleet, p.private, p.numbers, p.status(deeds))
					_ = send(s, wire.Objects{e.Bytes()})
				}
			}
		}},
		{"says something else to everybody", false, 5 * time.Second, func(p *puppet) {
			id := shelf.IDOf(notice.StatusKind, p.key)
			bodies := int64(0)
			p.begins = loop(time.Second, func(s Session) error { return send(s, wire.Tell{{ID: id, Number: 7}}) })
			p.heard = func(s Session, f wire.Frame) {
				if w, ok := f.(wire.Want); ok && w[0].ID == id {
					bodies++
					e, _ := signed.Seal(notice.StatusKind, p.net.fleet, p.private, 7, p.status(bodies))
					_ = send(s, wire.Objects{e.Bytes()})
				}
			}
		}},
		{"does not read", false, 5 * time.Second, func(p *puppet) {
			p.heard = func(Session, wire.Frame) { time.Sleep(time.Hour) }
		}},
		{"offers an entry, and forges it", true, 5 * time.Second, func(p *puppet) {
			p.begins = func(_ context.Context, s Session) { _ = send(s, wire.Head{Height: 2, Record: document.Hash{1}}) }
			p.heard = func(s Session, f wire.Frame) {
				if w, ok := f.(wire.WantEntry); ok {
					_ = send(s, wire.Entry{Height: w.Height, Parts: [wire.Parts][]byte{[]byte("{}"), []byte("{}"), []byte("{}")}})
				}
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				state := large(t, 10)
				n := newNetwork(t, state, func(int) Ledger { return judging{still{state}} })
				ctx, stop := context.WithCancel(context.Background())
				n.stop = stop
				hostile, honest := n.nodes[:3], n.nodes[3:]
				for _, one := range honest { // in one run of some hundred somebody is surrounded: see below
					one.config = func(c *Config) { c.random = 1 }
				}
				n.nodes = honest
				for _, one := range hostile {
					p := &puppet{node: one, dials: true}
					p.net = n
					c.puppet(p)
					p.play(ctx)
				}
				n.run(func() {
					for _, one := range honest {
						one.numbers = 10
						one.sayAll()
					}
					time.Sleep(10 * time.Minute)
					for i, one := range honest {
						e := one.sayStatus(int64(100 + i))
						took := n.within(c.limit, c.what+": news", func() bool { return n.have(e) })
						if took > 2*time.Second {
							t.Logf("%s: news of %s to all after %s", c.what, one.name, took)
						}
					}
					before := make(map[*node]uint64)
					for _, one := range honest {
						before[one] = one.engine.Stats().Sent
					}
					time.Sleep(time.Hour)
					found := 0
					for _, one := range honest {
						for _, name := range one.away() {
							if slices.ContainsFunc(honest, func(o *node) bool { return o.name == name }) {
								t.Errorf("%s: %s keeps %s away, which is honest", c.what, one.name, name)
							}
							found++
						}
						s := one.engine.Stats()
						if sent := s.Sent - before[one]; sent > 2<<20 {
							t.Errorf("%s: %s has sent %d bytes in a quarter of an hour", c.what, one.name, sent)
						}
						for _, o := range honest {
							if e, ok := one.engine.Object(notice.StatusKind, o.key); !ok || e.Sequence < 14 || e.Sequence > 20 {
								t.Errorf("%s: %s has number %d of %s", c.what, one.name, e.Sequence, o.name)
							}
						}
					}
					if (found > 0) != c.away {
						t.Errorf("%s: %d times somebody is kept away: %v", c.what, found, honest[0].engine.Stats())
					}
				})
			})
		})
	}
}

// judging is a ledger at rest that says of an entry what a real one says of a forged one.
type judging struct{ still }

func (judging) Take(int64, ledger.Entry) error { return ledger.ErrCertificate }

// TestSurrounded has a node whose first choices are all censors. It turns to others, and hears
// the news within hours; within minutes while something is open.
func TestSurrounded(t *testing.T) {
	for what, limit := range map[string]time.Duration{"nothing is open": 4 * time.Hour, "something is open": 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			state := large(t, 12)
			last := &state.Roster.Seats[11]
			last.Vote = false
			n := newNetwork(t, state, func(int) Ledger { return still{state} })
			me := n.nodes[11]
			me.behind = true
			me.config = func(c *Config) { c.random = 1 }
			voters, rest := choice.Order(state.Roster, state.Fleet(), me.key, 1)
			ctx, stop := context.WithCancel(context.Background())
			n.stop = stop
			var honest []*node
			chosen := choice.Targets(voters, rest, 0, func(roster.Seat) bool { return true })
			for _, one := range n.nodes {
				if slices.ContainsFunc(chosen, func(s roster.Seat) bool { return s.Key == one.key }) {
					(&puppet{node: one, heard: censored}).play(ctx)
					continue
				}
				honest = append(honest, one)
			}
			n.nodes = honest
			n.run(func() {
				for _, one := range n.nodes {
					one.engine.Open(what == "something is open")
				}
				time.Sleep(time.Minute)
				e := n.nodes[0].sayStatus(1)
				took := n.within(limit, what+": news", func() bool { return n.have(e) })
				t.Logf("%s: news to a node that is surrounded after %s", what, took)
			})
		})
	}
}
