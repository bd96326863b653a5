package part

import (
	"context"
	"errors"
	"io/fs"
	"log"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/agent/docket"
	"kogge.example/agent/enrol"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/peers"
	"kogge.example/agent/pinned"
	"kogge.example/agent/speaker"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
	words "kogge.example/update/fleet/voice"
)

// session is a time in which the node has one seat, in one ledger. What is set before it starts
// does not change; the rest is of the goroutine of run.
type session struct {
	talk  *Talk
	part  *Part
	ctx   context.Context // ends with it
	port  int             // of the node's API
	seat  *identity.Seat
	taken *pinned.Ledger
	held  *identity.Custody // nil: it cannot hold secrets

	numbers *identity.Numbers
	says    *speaker.Speaker
	peers   *gossip.TLS
	engine  *gossip.Engine
	board   *notices
	member  *enrol.Member // for nodes that come
	ways    ways
	// heeded are the seats of which the service etcd is told; nil: it was told of none yet.
	heeded atomic.Pointer[map[signed.Key]bool]
	voting atomic.Pointer[voting] // nil: the seat has not voted yet

	memory   *peers.Memory  // of others
	seats    control.Seats  // what the service etcd was told last
	standing order.Standing // what orders came to at the last look
	words    spoken
}

// sit is the session of a seat, before it starts.
func (t *Talk) sit(ctx context.Context, seat *identity.Seat, taken *pinned.Ledger, port int) *session {
	s := &session{talk: t, part: t.part, ctx: ctx, port: port, seat: seat, taken: taken}
	s.numbers = identity.OpenNumbers(filepath.Join(s.part.state, "identity"))
	s.says = speaker.New(seat.Key, s.numbers, func(kind string, number uint64, body []byte) (signed.Envelope, error) {
		return seat.Seal(kind, taken.State().Fleet(), number, body)
	})
	var err error
	if s.held, err = s.part.custody(); err != nil {
		log.Printf("agent: %v", err) // a node that could not hold secrets still talks
	}
	s.part.papers().Listen(t.papered.give)
	s.part.docket().Listen(t.papered.give)
	s.part.book().Look(s.part.trusted(taken), t.clock.now()) // who is isolated is so from the first session with others on
	s.connect()
	return s
}

// connect makes the ways to others, and those that they have.
func (s *session) connect() {
	node := s.part.node
	s.peers = &gossip.TLS{Certificate: node.Certificate, Find: s.talk.find, Word: s.ownWord}
	s.engine = gossip.New(gossip.Config{
		Self: s.seat.Key, Ledger: s.taken, Kinds: slices.Concat(notice.Kinds(), order.Kinds(), words.Kinds()), Papers: docket.With(s.part.papers(), s.part.docket()), Transport: s.peers,
		Grown: s.talk.Look, News: s.hear, Refuse: refuse(s.part.book()),
		Revoked: func(key document.Hash) bool { return s.part.turnsAway(key.String()) },
	})
	s.peers.Admit = s.engine.Admit
	s.peers.Addresses = func(seat roster.Seat) []netip.AddrPort { return s.talk.reach(s.engine, s.taken, seat) }
	s.board = newNotices(s)
	s.member = s.newMember()
}

// hear has run look at what others say, where that matters here. It returns at once: it fits
// gossip.Config's News.
func (s *session) hear(object signed.Envelope) {
	s.says.Heard(object)
	s.board.heard(object)
	if object.Kind == words.OpinionsKind || object.Kind == words.BallotsKind {
		s.lookAtVote()
		return
	}
	if of := s.heeded.Load(); object.Kind != notice.StatusKind && (of == nil || (*of)[object.By] || order.Is(object.Kind)) {
		s.talk.news.give()
	}
}

// start starts what carries words. It outlives ctx; the function that it returns ends it, and
// waits until it has ended.
func (s *session) start() (end func()) {
	ctx, stop := context.WithCancel(context.WithoutCancel(s.ctx))
	var all sync.WaitGroup
	all.Go(func() { s.engine.Run(ctx) })
	all.Go(func() { s.says.Run(ctx, s.board) })
	all.Go(func() { s.board.client.Run(ctx) })
	all.Go(func() { s.board.runGateway(ctx) })
	all.Go(func() { s.vote(ctx) })
	return func() {
		stop()
		all.Wait()
	}
}

// recall gives the engine what lies on STATE of what others have said, and reads what an agent
// before this one has told the service etcd.
func (s *session) recall() {
	publish(s.engine, s.part.book())
	log.Printf("agent: the node talks to its fleet as seat key %s", s.seat.Key.ID().Short())
	var err error
	if s.memory, err = peers.Open(filepath.Join(s.part.state, "kogge", "peers")); err != nil {
		log.Printf("agent: %v", err)
	}
	for _, word := range s.memory.Words() {
		_ = s.engine.Publish(word) // who is not listed any more is refused
	}
	if s.seats, err = control.ReadSeats(s.part.run); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Printf("agent: %v", err)
	}
}

// keep writes down what is remembered of others, by one of the ways of [peers.Memory].
func (s *session) keep(write func(time.Time) error) {
	s.memory.Note(s.engine.Object, s.taken.State().Roster, s.seat.Key)
	if err := write(time.Now()); err != nil {
		log.Printf("agent: %v", err)
	}
}

// keepWaiting writes down for how long proposals have waited, once nobody votes on them any more.
func (s *session) keepWaiting() {
	if err := s.part.docket().Flush(); err != nil {
		log.Printf("agent: %v", err)
	}
}

// run looks at what there is to do and say, whenever something comes, until the session ends.
func (s *session) run() {
	tick := time.NewTicker(factsEvery)
	defer tick.Stop()
	s.age()
	for look, on := true, true; on; look, on = s.next(tick.C) {
		s.heed()
		s.part.Tell()
		if look { // which asks PID 1 and the disk
			s.say()
		}
		s.sayCustody()
		s.tellSeats()
	}
}

// next waits until something comes. look says whether the node is to look at itself, too; on,
// whether the session goes on.
func (s *session) next(tick <-chan time.Time) (look, on bool) {
	select {
	case <-s.ctx.Done():
		return false, false
	case <-s.talk.news:
		return false, true
	case <-s.talk.papered:
		s.engine.Papered()
		s.lookAtVote()
	case <-s.talk.changed:
		s.part.Tell()
		if _, now, _ := s.talk.seated(); now != s.taken {
			return false, false
		}
		s.advanced()
	case <-tick:
		s.engine.Advanced() // a key may have been withdrawn
		s.board.client.Advanced()
		s.keep(s.memory.Keep)
		s.age()
	}
	return true, true
}

// age has papers go that are over for long.
func (s *session) age() {
	if err := errors.Join(s.part.papers().Age(s.talk.clock.now()), s.part.docket().Keep()); err != nil {
		log.Printf("agent: %v", err)
	}
}

// advanced has those who keep sessions with others look whom they may have them with.
func (s *session) advanced() {
	s.engine.Advanced()
	s.board.client.Advanced()
	s.board.gateway.Advanced()
	s.lookAtVote()
}

// word is a seat's own word for its TLS key, once it has said it.
func (s *session) word(of signed.Key) (signed.Envelope, error) {
	if said, ok := s.engine.Object(notice.TLSKeyKind, of); ok {
		return said, nil
	}
	return signed.Envelope{}, gossip.ErrHello
}

func (s *session) ownWord() (signed.Envelope, error) { return s.word(s.seat.Key) }
