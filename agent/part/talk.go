package part

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"kogge.example/agent/door"
	"kogge.example/agent/enrol"
	"kogge.example/agent/events"
	"kogge.example/agent/gateway/wire"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/records"
	"kogge.example/update/fleet/roster"
)

// Talk is what the node says in its fleet and hears there, for as long as it has a seat.
type Talk struct {
	part    *Part
	machine machine.Machine
	changed signal          // the ledger has grown
	news    signal          // a seat has another key or address
	papered signal          // there are other papers
	shares  identity.Shares // the goroutine's of Run
	clock   clock
	// reach is where a seat may answer, and find looks for it where nobody has said that it is.
	reach func(*gossip.Engine, *pinned.Ledger, roster.Seat) []netip.AddrPort
	find  func(context.Context, roster.Seat) []netip.AddrPort
	// happened hears what becomes of seats by order.
	happened func(...events.Event)

	session atomic.Pointer[session] // nil: the node has no seat
}

// signal has who waits for it look. Whatever comes before he does is one look.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) give() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// NewTalk says nothing until [Talk.Run]. happened hears what becomes of seats by order.
func NewTalk(p *Part, m machine.Machine, happened func(...events.Event)) *Talk {
	t := &Talk{
		part: p, machine: m, changed: newSignal(), news: newSignal(), papered: newSignal(), reach: addressesFor,
		shares: make(identity.Shares), clock: clock{m.ClockSure, m.ClockFloor}, happened: happened,
	}
	t.find = t.findOnLinks
	return t
}

// Look has [Talk.Run] look at the ledger.
func (t *Talk) Look() { t.changed.give() }

// Protocols are what other nodes speak at the port of the API, each with who takes a connection.
// While the node has no seat, it is let go at once.
func (t *Talk) Protocols() map[string]func(*tls.Conn) {
	by := func(take func(*session, *tls.Conn)) func(*tls.Conn) {
		return func(conn *tls.Conn) {
			if now := t.session.Load(); now != nil {
				take(now, conn)
			}
		}
	}
	return map[string]func(*tls.Conn){
		// Who is refused is told by the end of it; strangers would fill the log.
		gossip.Protocol: by(func(s *session, conn *tls.Conn) { _ = s.peers.Serve(s.ctx, conn, letGo(conn)) }),
		enrol.Protocol:  by(func(s *session, conn *tls.Conn) { s.member.Serve(s.ctx, conn, letGo(conn)) }),
		wire.Protocol:   by(func(s *session, conn *tls.Conn) { s.board.serve(s.ctx, conn) }),
	}
}

// letGo has a connection count no more among those of strangers.
func letGo(conn *tls.Conn) func() { return func() { door.LetGo(conn.NetConn()) } }

// Records are what the API answers about the fleet, without Ready and Etcd: those are others' to
// say.
func (t *Talk) Records() records.Records {
	p := t.part
	return records.Records{
		Open: p.Whole, Custody: p.custody, Papers: p.papers, Refuse: p.mayServe, Changed: t.Look, Refused: t.refused, Board: t.board,
		Addresses: func() []netip.Addr { return addressesOf(p.run) },
	}
}

// refused is how often this node has refused what was brought to it besides the ledger.
func (t *Talk) refused() map[string]uint64 {
	now := t.session.Load()
	if now == nil {
		return nil
	}
	return now.member.Refused()
}

// board is what the node knows of the others.
func (t *Talk) board() (records.Board, error) {
	now := t.session.Load()
	if now == nil {
		return records.Board{}, errors.New("the node has no seat in a founded fleet: it hears of no others")
	}
	return now.board.board(), nil
}

// Run talks whenever the node has a seat, until ctx ends. port is that of its API. What keeps it
// from knowing its seat may be over later, and nobody tells of it.
func (t *Talk) Run(ctx context.Context, port int) {
	const first, longest = 5 * time.Second, 15 * time.Minute
	wait := first
	for ctx.Err() == nil {
		seat, taken, err := t.seated()
		if seat != nil {
			t.talk(ctx, seat, taken, port)
			wait = first
			continue
		}
		var again <-chan time.Time
		if err != nil {
			log.Printf("agent: %v; next try in %s", err, wait)
			again = time.After(wait)
			wait = min(2*wait, longest)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-t.changed:
			t.part.Tell()
		}
	}
}

// seated is the key of the node's seat and the ledger that lists it; nil: it has none. The error
// says why that cannot be said. No key is made for that.
func (t *Talk) seated() (*identity.Seat, *pinned.Ledger, error) {
	taken, err := t.part.Ledger()
	if err != nil || taken.State().Height == 0 {
		return nil, nil, nil
	}
	if !identity.HasSeat(filepath.Join(t.part.state, "identity")) {
		return nil, nil, nil
	}
	seat, taken, err := t.part.Whole()
	if err != nil {
		return nil, nil, err
	}
	if _, listed := taken.State().Roster.ByKey(seat.Key); !listed {
		return nil, nil, nil
	}
	return seat, taken, nil
}

// talk has a session until ctx ends, or the node has another ledger, or no seat. At its end the
// memory of others is written while they may still be heard; then what carries words ends.
func (t *Talk) talk(ctx context.Context, seat *identity.Seat, taken *pinned.Ledger, port int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := t.sit(ctx, seat, taken, port)
	t.session.Store(s)
	defer t.session.Store(nil)
	defer s.keepWaiting()
	defer s.start()()
	s.recall()
	defer s.keep(s.memory.Flush)
	s.run()
}
