package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/shelf"
	"kogge.example/update/fleet/signed"
)

// pinned is a ledger in memory.
type pinned struct {
	mu   sync.Mutex // guards what follows
	log  *ledger.Log
	late string // a seat that record 2 lists first
}

func (p *pinned) State() ledger.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.log.State()
	if s.Height < 2 {
		s.Roster.Seats = slices.DeleteFunc(slices.Clone(s.Roster.Seats), func(seat roster.Seat) bool { return seat.Name == p.late })
	}
	return s
}

func (p *pinned) Take(height int64, e ledger.Entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if height <= p.log.State().Height {
		return nil // it is compared, which is the ledger's matter
	}
	return p.log.Append(e)
}

// pipe is a session with a gateway that a test plays.
type pipe struct {
	seat    int
	in, out chan []byte
	over    chan struct{}
	once    sync.Once
}

func (p *pipe) Send(frames [][]byte) error {
	for _, f := range frames {
		select {
		case p.in <- f:
		case <-p.over:
			return io.ErrClosedPipe
		}
	}
	return nil
}

func (p *pipe) Receive() ([]byte, error) {
	select {
	case f := <-p.out:
		return f, nil
	case <-p.over:
		return nil, io.EOF
	}
}

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.over) })
	return nil
}

// say has the gateway say something; false: the session is over.
func (p *pipe) say(all ...wire.Frame) bool {
	for _, f := range all {
		select {
		case p.out <- wire.Encode(f):
		case <-p.over:
			return false
		}
	}
	return true
}

// hear is what the node says next, but for signs of life, which are answered; nil: the session is
// over.
func (p *pipe) hear(t *testing.T) wire.Frame {
	for {
		select {
		case raw := <-p.in:
			f, err := wire.Decode(raw)
			if err != nil {
				t.Error(err)
			}
			if _, alive := f.(wire.Alive); !alive {
				return f
			}
			p.say(wire.Alive{})
		case <-p.over:
			return nil
		}
	}
}

// scene is a client whose gateways a test plays.
type scene struct {
	*Client
	t     *testing.T
	fleet *ledgertest.Fleet
	shelf *shelf.Shelf
	self  roster.Seat
	came  chan *pipe // sessions that the client opens
	down  map[int]bool
	cut   map[int]bool // isolated
	stale map[int]bool // whose sessions do not count
	mu    sync.Mutex   // guards down, cut, stale and shelf
}

// play has a client of seat n4 of a fleet of five, three of which are members, with so many of the
// fleet's records.
func play(t *testing.T, f *ledgertest.Fleet, records int, script func(context.Context, *scene), down ...int) {
	synctest.Test(t, func(t *testing.T) {
		log := ledger.New(f.Genesis)
		for _, e := range f.Entries[:records] {
			if err := log.Append(e); err != nil {
				t.Fatal(err)
			}
		}
		self, _ := log.State().Roster.ByName("n4")
		s := &scene{t: t, fleet: f, self: self, shelf: shelf.New(log.State().Fleet(), notice.Kinds()), came: make(chan *pipe), down: make(map[int]bool), cut: make(map[int]bool), stale: make(map[int]bool)}
		s.shelf.Follow(log.State().Roster)
		for _, seat := range down {
			s.set(seat, true)
		}
		s.Client = New(Config{
			Self: self.Key, Ledger: &pinned{log: log}, Logf: t.Logf,
			Judge: func(raw []byte) (shelf.Verdict, error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.shelf.Put(raw), nil
			},
			Refuse: func(seat roster.Seat, with Session) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				if with != nil && s.stale[seat.Number] {
					return fmt.Errorf("%s has another key", seat.Name)
				}
				if s.cut[seat.Number] {
					return fmt.Errorf("%s is isolated", seat.Name)
				}
				return nil
			},
			Dial: func(ctx context.Context, seat roster.Seat) (Session, error) {
				s.mu.Lock()
				down := s.down[seat.Number]
				s.mu.Unlock()
				if down {
					return nil, errors.New("connection refused")
				}
				p := &pipe{seat: seat.Number, in: make(chan []byte, 64), out: make(chan []byte, 64), over: make(chan struct{})}
				select {
				case s.came <- p:
					return p, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		script(ctx, s)
		stop()
		running.Wait()
	})
}

func (s *scene) set(seat int, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[seat] = down
}

// isolate has seats be isolated, and no others.
func (s *scene) isolate(seats ...int) {
	s.mu.Lock()
	clear(s.cut)
	for _, seat := range seats {
		s.cut[seat] = true
	}
	s.mu.Unlock()
	s.Advanced()
}

// welcome takes the next session and welcomes the node.
func (s *scene) welcome() *pipe {
	p := <-s.came
	p.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
	return p
}

// live answers what the node follows: there is nothing.
func (s *scene) live(p *pipe) {
	for range board.Topics() {
		f, ok := p.hear(s.t).(wire.Follow)
		if !ok {
			s.t.Fatalf("%+v", f)
		}
		p.say(wire.Live{Topic: f.Topic})
	}
}

// serve answers whatever the node asks: there is nothing.
func (s *scene) serve(p *pipe) {
	for {
		switch f := p.hear(s.t).(type) {
		case nil:
			return
		case wire.Follow:
			p.say(wire.Live{Topic: f.Topic})
		case wire.Put:
			p.say(wire.Done{ID: f.ID})
		}
	}
}

func (s *scene) seal(name, kind string, number uint64, body []byte) signed.Envelope {
	return ledgertest.Must[signed.Envelope](s.t)(signed.Seal(kind, s.fleet.Log.State().Fleet(), ledgertest.Private(name), number, body))
}

func status() []byte { return notice.Status{Version: 1}.Encode() }

func item(e signed.Envelope, revision int64, state wire.State) wire.Item {
	p, _ := board.Of(e)
	return wire.Item{Key: p.Key(), Revision: revision, State: state, Value: e.Bytes()}
}

// TestPuts puts what is said, waits where it is told to, and puts again what etcd has lost.
func TestPuts(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		first := s.seal("n4", notice.StatusKind, 1, status())
		s.Say(first)
		s.Say(s.seal("n4", notice.TLSKeyKind, 9, nil))       // has no place
		s.Say(s.seal("n3", notice.StatusKind, 9, nil))       // is not its own
		s.Say(s.seal("n4", notice.StatusKind, 0, []byte{1})) // is older
		p := s.welcome()
		put := func() wire.Put {
			for {
				switch f := p.hear(t).(type) {
				case wire.Put:
					return f
				case wire.Follow:
					p.say(wire.Live{Topic: f.Topic})
				default:
					t.Fatalf("%+v", f)
				}
			}
		}
		one := put()
		if !bytes.Equal(one.Envelope, first.Bytes()) {
			t.Error("it puts something else")
		}
		began := time.Now()
		p.say(wire.Done{ID: one.ID, Why: wire.Busy, Wait: time.Minute})
		one = put()
		if waited := time.Since(began); waited < time.Minute || waited > 2*time.Minute {
			t.Errorf("it comes again after %s", waited)
		}
		p.say(wire.Done{ID: one.ID + 7, Why: wire.None}) // of nothing that was asked
		p.say(wire.Done{ID: one.ID, Why: wire.None})
		p.say(wire.Recall{})
		again := put()
		if !bytes.Equal(again.Envelope, first.Bytes()) || again.ID == one.ID {
			t.Error("what was lost is not put again")
		}
		p.say(wire.Done{ID: again.ID, Why: wire.Older})
		second := s.seal("n4", notice.StatusKind, 3, status())
		s.Say(second)
		if next := put(); !bytes.Equal(next.Envelope, second.Bytes()) {
			t.Error("what was refused is put again")
		}
		if n := s.Known().Verdicts["put: "+wire.Older.String()]; n != 1 {
			t.Errorf("%d refusals are counted", n)
		}
	})
}

// TestSilent leaves a gateway that says nothing, and finds another one; until it has, it says so.
func TestSilent(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		p := s.welcome()
		began := time.Now()
		<-p.over
		if d := time.Since(began); d < 20*time.Second || d > 30*time.Second {
			t.Errorf("it waits %s", d)
		}
		synctest.Wait()
		if k := s.Known(); k.Gateway != 0 || !strings.Contains(k.Problem, errSilent.Error()) {
			t.Errorf("%+v", k)
		}
		silent := p.seat
		p = s.welcome()
		if p.seat == silent {
			t.Error("it comes back to a gateway that is silent")
		}
		s.live(p)
		synctest.Wait()
		if k := s.Known(); k.Gateway != p.seat || k.Problem != "" || k.Sessions != 2 {
			t.Errorf("%+v", k)
		}
		time.Sleep(10 * time.Second)
		p.say(wire.Alive{})
		synctest.Wait()
		last := time.Now()
		p.say(wire.Move{})
		<-p.over
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if k := s.Known(); !k.Listed.Equal(last) {
			t.Errorf("all was known %s before it was left", last.Sub(k.Listed))
		}
		if q := s.welcome(); q.seat == p.seat {
			t.Error("it comes back to a gateway that closes")
		}
	})
}

// TestIdle leaves a gateway that says that it lives and does nothing else, whatever it is asked, and comes
// back to it ever more seldom.
func TestIdle(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	for what, answers := range map[string]func(wire.Frame) []wire.Frame{
		"nothing": func(wire.Frame) []wire.Frame { return nil },
		"no put": func(f wire.Frame) []wire.Frame {
			if f, ok := f.(wire.Follow); ok {
				return []wire.Frame{wire.Live{Topic: f.Topic}}
			}
			return nil
		},
		"no list": func(f wire.Frame) []wire.Frame {
			if f, ok := f.(wire.Put); ok {
				return []wire.Frame{wire.Done{ID: f.ID}}
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			play(t, f, 1, func(_ context.Context, s *scene) {
				s.Say(s.seal("n4", notice.StatusKind, 1, status()))
				visits := make(map[int]int)
				began := time.Now()
				for time.Since(began) < time.Hour {
					p := s.welcome()
					visits[p.seat]++
					came := time.Now()
					for f := p.hear(t); f != nil; f = p.hear(t) {
						p.say(answers(f)...)
					}
					if d := time.Since(came); d > 2*time.Minute {
						t.Errorf("it waits for %s", d)
					}
				}
				if len(visits) != 3 || visits[1]+visits[2]+visits[3] > 40 {
					t.Errorf("visits in an hour: %v", visits)
				}
			})
		})
	}
}

// TestShort has gateways that welcome the node and close: it comes ever more seldom.
func TestShort(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		began, n := time.Now(), 0
		for ; time.Since(began) < time.Hour; n++ {
			s.welcome().Close()
		}
		if n > 60 {
			t.Errorf("%d sessions in an hour", n)
		}
	})
}

// TestWeakLine has a line that is cut every five minutes, to the only gateway in reach: the node is back
// with it within seconds each time.
func TestWeakLine(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		s.set(2, true)
		s.set(3, true)
		cut := time.Now()
		for i := range 20 {
			p := s.welcome()
			if d := time.Since(cut); d > 10*time.Second {
				t.Errorf("time %d: it is back after %s", i, d)
			}
			go s.serve(p)
			time.Sleep(5 * time.Minute)
			p.Close()
			cut = time.Now()
		}
	})
}

// TestLateSeat hears of a node whose seat it does not know yet, then of the record that lists it: it asks
// once more who is there.
func TestLateSeat(t *testing.T) {
	f := ledgertest.Founded(t, 5, 2)
	play(t, f, 1, func(_ context.Context, s *scene) {
		l := s.config.Ledger.(*pinned)
		l.mu.Lock()
		l.late = "n5"
		l.mu.Unlock()
		p := s.welcome()
		time.AfterFunc(time.Hour, func() { p.Close() })
		says := s.seal("n5", notice.StatusKind, 1, status())
		follows := make(map[board.Topic]int)
		answer := func() board.Topic {
			f, ok := p.hear(t).(wire.Follow)
			if !ok {
				t.Fatalf("%+v", f)
			}
			if follows[f.Topic]++; f.Topic == board.Nodes {
				p.say(wire.Items{Topic: board.Nodes, Items: []wire.Item{item(says, 10, wire.Leased)}})
			}
			p.say(wire.Live{Topic: f.Topic})
			return f.Topic
		}
		if first := answer(); first != board.Ledger {
			t.Errorf("it follows %s first: it may not know yet who is in the fleet", first)
		}
		answer()
		synctest.Wait()
		if leased, _ := s.Leased(says.By); leased {
			t.Error("a node without a seat has a lease")
		}
		p.say(wire.Items{Topic: board.Ledger, Items: []wire.Item{{Key: board.Entry(2).Key(), Revision: 20, Value: ledger.FormatEntry(2, f.Entries[1])}}})
		began := time.Now()
		if answer(); time.Since(began) > 5*time.Second {
			t.Errorf("it asks again after %s", time.Since(began))
		}
		synctest.Wait()
		if leased, known := s.Leased(says.By); !leased || !known || follows[board.Nodes] != 2 {
			t.Errorf("leased %v, known %v; followed: %v", leased, known, follows)
		}
		go func() { // and not again, with nothing new
			if f := p.hear(t); f != nil {
				t.Errorf("%+v", f)
			}
		}()
		time.Sleep(2 * time.Minute)
		p.Close()
	})
}

// TestSilence has a gateway that wants a sign of life all the time, or none for an hour.
func TestSilence(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	for _, c := range []struct{ says, least, most time.Duration }{
		{0, time.Second, 5 * time.Second}, {time.Millisecond, time.Second, 5 * time.Second}, {time.Minute, 10 * time.Second, 20 * time.Second}, {time.Hour, time.Minute, 2 * time.Minute}, // at most five minutes
	} {
		play(t, f, 1, func(_ context.Context, s *scene) {
			p := <-s.came
			p.say(wire.Welcome{Silence: c.says, Members: []int{1, 2, 3}})
			began := time.Now()
			for alive := false; !alive; {
				select {
				case raw := <-p.in:
					f, err := wire.Decode(raw)
					if err != nil {
						t.Fatal(err)
					}
					if follow, ok := f.(wire.Follow); ok {
						p.say(wire.Live{Topic: follow.Topic})
					}
					_, alive = f.(wire.Alive)
				case <-p.over:
					t.Fatalf("silence of %s: the session is over", c.says)
				}
			}
			if d := time.Since(began); d < c.least || d > c.most {
				t.Errorf("silence of %s: a sign of life after %s", c.says, d)
			}
		})
	}
}

// TestNobody looks for a gateway ever more seldom while none takes the node.
func TestNobody(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		began := time.Now()
		for range 30 { // three at a time
			p := <-s.came
			p.say(wire.Refuse{Why: wire.NoEtcd, Wait: time.Second})
			<-p.over
		}
		if d := time.Since(began); d < time.Minute {
			t.Errorf("it asks thirty times in %s", d)
		}
		if k := s.Known(); !strings.Contains(k.Problem, wire.NoEtcd.String()) && !strings.Contains(k.Problem, "not asked") {
			t.Errorf("%+v", k)
		}
		s.welcome()
	})
}

// TestHome goes back to the gateway that it prefers, without a gap.
func TestHome(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	first := Choose(f.Log.State().Roster, ledgertest.Key(t, "n4"), []int{1, 2, 3})[0].Number
	play(t, f, 1, func(_ context.Context, s *scene) {
		p := s.welcome()
		go s.serve(p)
		if p.seat == first {
			t.Fatal("it is down")
		}
		s.set(first, false)
		home := <-s.came
		if home.seat != first {
			t.Fatalf("it goes to %d", home.seat)
		}
		select {
		case <-p.over:
			t.Error("it leaves before it is welcome")
		default:
		}
		home.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
		<-p.over
		s.live(home)
		synctest.Wait()
		if k := s.Known(); k.Gateway != first {
			t.Errorf("%+v", k)
		}
		home.say(wire.Members{Seats: []int{1, 2, 3}}) // it is there already
		time.Sleep(time.Second)
		select {
		case q := <-s.came:
			t.Errorf("it goes to %d", q.seat)
		default:
		}
	}, first)
}

// TestFlood is told of a hundred thousand nodes that nobody has, and then of its own all the time: the
// first costs no memory, and a gateway that goes on is left for a while.
func TestFlood(t *testing.T) {
	f := ledgertest.Founded(t, 5, 2)
	for what, flood := range map[string]func(s *scene, n int) wire.Frame{
		"nodes that nobody has": func(_ *scene, n int) wire.Frame {
			var all []wire.Item
			for i := range 100 {
				id := document.HashOf(fmt.Append(nil, n, i))
				all = append(all, wire.Item{Key: board.Place{Topic: board.Nodes, Node: id, Kind: notice.StatusKind}.Key(), Revision: 9, State: wire.Gone})
			}
			return wire.Items{Topic: board.Nodes, Items: all}
		},
		"what is known": func(s *scene, _ int) wire.Frame {
			return wire.Items{Topic: board.Nodes, Items: []wire.Item{item(s.seal("n3", notice.StatusKind, 5, status()), 9, wire.Leased)}}
		},
		"large ones": func(*scene, int) wire.Frame {
			return wire.Items{Topic: board.Ledger, Items: []wire.Item{{Key: board.Entry(9).Key(), Revision: 9, Value: make([]byte, wire.MaxValue)}}}
		},
		"signs of life":     func(*scene, int) wire.Frame { return wire.Alive{} },
		"recalls":           func(*scene, int) wire.Frame { return wire.Recall{} },
		"lists without end": func(*scene, int) wire.Frame { return wire.Again{Topic: board.Nodes} },
	} {
		t.Run(what, func(t *testing.T) {
			play(t, f, 2, func(_ context.Context, s *scene) {
				p := s.welcome()
				s.live(p)
				go func() {
					for p.hear(t) != nil {
					}
				}()
				n := 0
				for p.say(flood(s, n)) {
					if n++; n > 1<<17 {
						t.Fatal("it goes on and on")
					}
				}
				s.mu.Lock()
				present := len(s.Client.present)
				s.mu.Unlock()
				if present > 5 {
					t.Errorf("%d nodes are kept", present)
				}
				if q := s.welcome(); q.seat == p.seat {
					t.Error("it is with the flooder again")
				}
			})
		})
	}
}

// TestIsolated leaves a gateway at once whose seat is isolated, goes to another one, stays away from
// it while it is, and comes back to it when it is not any more.
func TestIsolated(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		p := s.welcome()
		go s.serve(p)
		synctest.Wait()
		began := time.Now()
		s.isolate(p.seat)
		<-p.over
		synctest.Wait()
		if d, k := time.Since(began), s.Known(); d > time.Second || k.Gateway != 0 || !strings.Contains(k.Problem, "is isolated") {
			t.Errorf("after %s: %+v", d, k)
		}
		q := s.welcome()
		go s.serve(q)
		if q.seat == p.seat {
			t.Fatal("it comes back to an isolated seat")
		}
		q.say(wire.Members{Seats: []int{1, 2, 3}}) // it looks whether a better one is there
		select {
		case one := <-s.came:
			t.Errorf("it goes to %d", one.seat)
		case <-time.After(3 * homeward):
		}
		s.isolate()
		if home := s.welcome(); home.seat != p.seat {
			t.Errorf("it goes to %d", home.seat)
		} else {
			go s.serve(home)
		}
		<-q.over
		s.isolate(1, 2, 3)
		select {
		case one := <-s.came:
			t.Errorf("all are isolated, and it goes to %d", one.seat)
		case <-time.After(time.Hour):
		}
		if k := s.Known(); k.Gateway != 0 || !strings.Contains(k.Problem, "is isolated") {
			t.Errorf("%+v", k)
		}
	})
}

// TestIsolatedMeanwhile does not stay with a gateway whose seat is isolated while it is looked for.
func TestIsolatedMeanwhile(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		p := <-s.came
		s.isolate(p.seat)
		p.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
		<-p.over
		if q := s.welcome(); q.seat == p.seat {
			t.Error("it comes back to an isolated seat")
		}
	})
}

// TestTwoKeys leaves a gateway by whose key it lets no session be, for another one, and asks it seldom.
func TestTwoKeys(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	play(t, f, 1, func(_ context.Context, s *scene) {
		p := <-s.came
		s.mu.Lock()
		s.stale[p.seat] = true
		s.mu.Unlock()
		p.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
		<-p.over
		visits, began := 0, time.Now()
		for time.Since(began) < time.Hour {
			select {
			case q := <-s.came:
				if q.seat == p.seat {
					visits++
				} else if d := time.Since(began); visits == 0 && d > 5*time.Second {
					t.Errorf("it is with another gateway after %s", d)
				}
				q.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
				go s.serve(q)
			case <-time.After(time.Minute):
			}
		}
		if k := s.Known(); visits > 15 || k.Gateway == 0 || k.Gateway == p.seat {
			t.Errorf("%d visits in an hour; %+v", visits, k)
		}
	})
}

// TestHostileGateway is told lies: none of them is taken, each is counted, and a gateway that goes
// on with it is left for a while. What others say by their own words stays.
func TestHostileGateway(t *testing.T) {
	f := ledgertest.Founded(t, 5, 3)
	play(t, f, 2, func(_ context.Context, s *scene) {
		p := s.welcome()
		good := s.seal("n3", notice.StatusKind, 5, status())
		for range board.Topics() {
			f, ok := p.hear(t).(wire.Follow)
			if !ok {
				t.Fatalf("%+v", f)
			}
			if f.Topic == board.Nodes {
				p.say(wire.Items{Topic: board.Nodes, Items: []wire.Item{item(good, 10, wire.Leased)}})
			} else if f.After != board.Entry(2).Key() {
				t.Errorf("it has records 1 and 2, and asks for what is behind %q", f.After)
			}
			p.say(wire.Live{Topic: f.Topic})
		}
		forged := s.seal("n3", notice.StatusKind, 6, status())
		raw := bytes.Clone(forged.Bytes())
		raw[len(raw)-1] ^= 1
		bad := item(forged, 11, wire.Leased)
		bad.Value = raw
		misplaced := item(s.seal("n2", notice.StatusKind, 7, status()), 12, wire.Leased)
		misplaced.Key = bad.Key
		foreign, _ := signed.Seal(notice.StatusKind, document.HashOf(nil), ledgertest.Private("n3"), 8, status())
		p.say(wire.Items{Topic: board.Nodes, Items: []wire.Item{
			bad, misplaced, item(foreign, 13, wire.Leased), item(s.seal("n9", notice.StatusKind, 1, status()), 14, wire.Leased), {Key: "/kogge/v1/secrets/x", Revision: 15},
			item(s.seal("n3", notice.StatusKind, 4, status()), 9, wire.Leased), {Key: board.Entry(1).Key(), Revision: 16},
		}})
		entry := func(height int64, e ledger.Entry) wire.Items {
			return wire.Items{Topic: board.Ledger, Items: []wire.Item{{Key: board.Entry(height).Key(), Revision: 20, Value: ledger.FormatEntry(height, e)}}}
		}
		unproved := f.Entries[2]
		unproved.Certificate = f.Entries[1].Certificate
		p.say(entry(3, unproved), entry(1, f.Again(t)), entry(3, f.Entries[1]),
			wire.Items{Topic: board.Ledger, Items: []wire.Item{{Key: board.Entry(3).Key(), Revision: 21, Value: []byte("junk")}, {Key: board.Entry(2).Key(), Revision: 22, State: wire.Gone}}})
		p.say(wire.Alive{})
		synctest.Wait()
		k := s.Known()
		for what, n := range map[string]uint64{
			"taken": 1, "with a wrong signature": 1, "misplaced": 1, "of another fleet": 1, "nowhere": 3, "older": 1,
			"entry not proved": 2, "entry known": 1, "no entry": 1,
		} {
			if k.Verdicts[what] != n {
				t.Errorf("%d are %s: %v", k.Verdicts[what], what, k.Verdicts)
			}
		}
		if h := s.config.Ledger.State().Height; h != 2 {
			t.Errorf("height %d", h)
		}
		if leased, known := s.Leased(good.By); !leased || !known {
			t.Error("the lease of n3 is forgotten")
		}
		p.say(entry(9, f.Entries[2])) // something is missing: it asks
		if f, ok := p.hear(t).(wire.Follow); !ok || f.Topic != board.Ledger || f.After != board.Entry(2).Key() {
			t.Errorf("%+v", f)
		}
		p.say(entry(3, f.Entries[2]), wire.Live{Topic: board.Ledger})
		synctest.Wait()
		if h := s.config.Ledger.State().Height; h != 3 {
			t.Errorf("height %d", h)
		}
		for p.say(wire.Items{Topic: board.Nodes, Items: []wire.Item{bad}}) {
		}
		began := time.Now()
		for time.Since(began) < shunned/2 {
			q := s.welcome()
			if q.seat == p.seat {
				t.Fatalf("it is with the liar again after %s", time.Since(began))
			}
			time.Sleep(time.Minute)
			q.Close()
		}
		if object, ok := s.shelf.Get(notice.StatusKind, good.By); !ok || object.Sequence != 5 {
			t.Errorf("n3 says %+v", object)
		}
	})
}

// TestAgain has a gateway that does all it is asked but for one topic, for which it has the node ask again
// for ever: the node goes to another one without a gap, and where there is none it stays.
func TestAgain(t *testing.T) {
	f := ledgertest.Founded(t, 5, 1)
	serve := func(s *scene, p *pipe) {
		for {
			switch f := p.hear(t).(type) {
			case nil:
				return
			case wire.Follow:
				if f.Topic == board.Nodes {
					p.say(wire.Again{Topic: f.Topic})
				} else {
					p.say(wire.Live{Topic: f.Topic})
				}
			case wire.Put:
				p.say(wire.Done{ID: f.ID})
			}
		}
	}
	first := Choose(f.Log.State().Roster, ledgertest.Key(t, "n4"), []int{1, 2, 3})[0].Number
	var others []int
	for _, seat := range []int{1, 2, 3} {
		if seat != first {
			others = append(others, seat)
		}
	}
	play(t, f, 1, func(_ context.Context, s *scene) {
		s.Say(s.seal("n4", notice.StatusKind, 1, status()))
		p := s.welcome()
		if p.seat != first {
			t.Fatalf("it goes to %d", p.seat)
		}
		go serve(s, p)
		time.Sleep(20 * time.Minute)
		if k := s.Known(); k.Gateway != first || k.Sessions != 1 {
			t.Fatalf("it has nobody else, and does not stay: %+v", k)
		}
		for _, seat := range others {
			s.set(seat, false)
		}
		came := time.Now()
		var q *pipe
		select {
		case q = <-s.came:
		case <-time.After(time.Hour):
			t.Fatal("it stays for an hour with one that does not tell it all")
		}
		if q.seat == first {
			t.Fatalf("it goes to %d again", q.seat)
		}
		select {
		case <-p.over:
			t.Error("it leaves before it is welcome")
		default:
		}
		q.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
		<-p.over
		if d := time.Since(came); d > 2*patience {
			t.Errorf("it waits for %s", d)
		}
		go s.serve(q)
		blind := time.Duration(0) // of an hour in which it looks for the one that it prefers
		for began := time.Now(); time.Since(began) < time.Hour; {
			select {
			case p := <-s.came:
				p.say(wire.Welcome{Silence: time.Minute, Members: []int{1, 2, 3}})
				if p.seat == first {
					go serve(s, p)
				} else {
					go s.serve(p)
				}
			case <-time.After(time.Second):
				if !s.Known().Live[board.Nodes] {
					blind += time.Second
				}
			}
		}
		if blind > 15*time.Minute {
			t.Errorf("of an hour it knows nothing for %s", blind)
		}
	}, others...)
}
