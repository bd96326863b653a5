package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/agent/gateway/wire"
	"kogge.example/update/fleet/board"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/signed"
)

// stay is one session with a gateway. Only the goroutine of [Client.stay] touches it.
type stay struct {
	*Client
	seat    int
	session Session
	alive   time.Duration // how often the node says that it lives

	spoke    time.Time         // when it said so last
	heard    time.Time         // when the gateway said something last
	has      map[string]uint64 // numbers of what the gateway has put, by kind
	question *question         // that is not answered yet
	id       uint64            // of the last one
	putAt    time.Time         // nothing is put before
	topics   map[board.Topic]*topic
	homeAt   time.Time // when to look for a gateway that is preferred
	otherAt  time.Time // before which none is looked for that tells what this one does not
	left     bool      // the node goes to one for that
	lies     int
	logged   bool // that an entry was refused
	below    int  // entries that the gateway has told of below the ledger's height
	room     room
	seats    seated
	strange  int64 // height of the ledger that did not list a node which the gateway told of; -1: none
	useful   bool  // the gateway has told all that it was asked for
}

// question is a Put.
type question struct {
	id     uint64
	kind   string
	number uint64
	at     time.Time
}

// topic is how far a topic is known in a session.
type topic struct {
	asked, live bool
	at          time.Time // it is not asked for before
	askedAt     time.Time
	told        time.Time // when something of it came last, since it was asked for
	liveAt      time.Time
	failures    int
	refused     time.Time                  // since when it is asked for again and again; zero: it is not
	present     map[document.Hash]presence // of the list that is being told
}

// found is a session with a gateway that the node prefers
type found struct {
	seat    int
	session Session
	welcome wire.Welcome
	other   bool // or one of the others
}

// Why a session ends.
var (
	errSilent = errors.New("the gateway is silent")
	errIdle   = errors.New("the gateway does not do what it is asked")
	errMoved  = errors.New("the gateway closes")
	errLies   = errors.New("the gateway passes on what nobody has signed")
)

// stay keeps a session until it ends. It returns the one with a better gateway, if that is why. well
// is false where the gateway has ended it before it was of much use.
func (c *Client) stay(ctx context.Context, seat int, s Session, welcome wire.Welcome) (_ int, _ Session, _ wire.Welcome, well bool) {
	now := time.Now()
	one := &stay{
		Client: c, seat: seat, session: s, alive: welcome.Silence / 4, spoke: now, heard: now,
		has: make(map[string]uint64), topics: make(map[board.Topic]*topic), homeAt: now.Add(part(homeward)), strange: -1,
	}
	c.runs(welcome.Members)
	c.mu.Lock()
	c.known.Gateway, c.known.Problem, c.known.Heard = seat, "", now
	c.known.Sessions++
	c.mu.Unlock()
	better, err := one.run(ctx)
	one.live(board.Nodes, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.Gateway = 0
	clear(c.known.Live)
	well = true
	if one.left {
		c.ended(seat, time.Since(now), false)
	}
	if err != nil && ctx.Err() == nil {
		if !errors.Is(err, errMoved) && c.may(seat, nil) == nil {
			useful, lasted := one.useful && !errors.Is(err, errIdle), time.Since(now)
			c.ended(seat, lasted, useful)
			well = useful && lasted >= steady
		}
		c.known.Problem = fmt.Sprintf("gateway of seat %d: %v", seat, err)
	}
	return better.seat, better.session, better.welcome, well
}

// run does what is to be done in a session, until it ends.
func (s *stay) run(ctx context.Context) (better found, err error) {
	ctx, cancel := context.WithCancel(ctx)
	heard, read := make(chan wire.Frame), make(chan error, 1)
	go func() { read <- s.read(ctx, heard) }()
	var looking chan found // nil: nobody looks
	defer func() {
		cancel()
		_ = s.session.Close()
		<-read
		if looking != nil {
			if f := <-looking; f.session != nil {
				_ = f.session.Close()
			}
		}
	}()
	if err := s.may(s.seat, s.session); err != nil { // it came while the gateway was asked
		return found{}, err
	}
	for {
		next, err := s.tend(time.Now())
		if err != nil {
			return found{}, err
		}
		if looking == nil {
			looking = s.look(ctx, time.Now())
		}
		if looking == nil {
			at, _ := s.lookAt()
			next = earlier(next, at)
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case e := <-read:
			read <- e
			err = e
		case f := <-heard:
			err = s.hear(f)
		case f := <-looking:
			if looking = nil; f.session != nil && s.keeps(f) {
				timer.Stop()
				s.left = f.other
				return f, nil
			}
		case <-s.wake:
			err = s.may(s.seat, s.session)
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			return found{}, err
		}
	}
}

// read reads frames until the session ends.
func (s *stay) read(ctx context.Context, into chan<- wire.Frame) error {
	for {
		raw, err := s.session.Receive()
		if err != nil {
			return err
		}
		f, err := wire.Decode(raw)
		if err != nil {
			s.avoid(s.seat, shunned)
			return err
		}
		select {
		case into <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lookAt is when to look for another gateway. other: for any of them, since this one has the node ask for
// something again and again: it may take the node for too slow, or keep back what it knows.
func (s *stay) lookAt() (at time.Time, other bool) {
	at = s.homeAt
	for _, t := range s.topics {
		if t.refused.IsZero() {
			continue
		}
		due := t.refused.Add(patience)
		if due.Before(s.otherAt) {
			due = s.otherAt
		}
		if due.Before(at) {
			at, other = due, true
		}
	}
	return at, other
}

// look looks for a gateway that is preferred to this one, or for any other, if it is time; nil: it is not,
// or there is none. The node stays until there is a session with it.
func (s *stay) look(ctx context.Context, now time.Time) chan found {
	at, other := s.lookAt()
	if now.Before(at) {
		return nil
	}
	if other {
		s.otherAt = now.Add(part(2 * patience))
	} else {
		s.homeAt = now.Add(part(homeward))
		if order, _ := s.order(); len(order) == 0 || order[0].Number == s.seat {
			return nil
		}
	}
	result := make(chan found, 1)
	go func() {
		seat, session, welcome, err := s.find(ctx, s.seat, other)
		if err != nil {
			session = nil
		}
		result <- found{seat, session, welcome, other}
	}()
	return result
}

// keeps says whether a session that was found counts; else it is closed, and its gateway is asked later.
func (s *stay) keeps(f found) bool {
	err := s.may(f.seat, f.session)
	if err == nil {
		return true
	}
	_ = f.session.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.may(f.seat, nil) == nil { // else it is not asked at all
		s.ended(f.seat, 0, false)
	}
	return false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// tend does what is due, and says when something will be.
func (s *stay) tend(now time.Time) (next time.Time, err error) {
	if now.Sub(s.heard) > s.alive*5/3 {
		return next, errSilent
	}
	idleAt, err := s.idle(now)
	if err != nil {
		return next, err
	}
	var say []wire.Frame
	if now.Sub(s.spoke) >= s.alive {
		s.spoke = now
		say = append(say, wire.Alive{})
	}
	next = earlier(earlier(s.spoke.Add(s.alive), s.heard.Add(s.alive*5/3+time.Millisecond)), idleAt)
	if object, ok := s.unput(); ok && s.question == nil {
		if now.Before(s.putAt) {
			next = earlier(next, s.putAt)
		} else {
			s.id++
			s.question = &question{s.id, object.Kind, object.Sequence, now}
			say = append(say, wire.Put{ID: s.id, Envelope: object.Bytes()})
		}
	}
	s.knowStrangers(now)
	follow, at := s.tendTopics(now)
	say = append(say, follow...)
	next = earlier(next, at)
	if len(say) == 0 {
		return next, nil
	}
	var raw [][]byte
	for _, f := range say {
		raw = append(raw, wire.Encode(f))
	}
	return next, s.session.Send(raw)
}

// idle says when the gateway has to have done something at the latest; the error says that this is over.
func (s *stay) idle(now time.Time) (at time.Time, err error) {
	at = now.Add(patience)
	if s.question != nil {
		at = earlier(at, s.question.at.Add(patience))
	}
	for _, t := range s.topics {
		if t.asked {
			at = earlier(at, earlier(t.told.Add(patience), t.askedAt.Add(listLimit)))
		}
	}
	if !now.Before(at) {
		return at, errIdle
	}
	return at, nil
}

// knowStrangers asks again who is there once the ledger has grown that did not list all of them:
// nobody tells of them once more.
func (s *stay) knowStrangers(now time.Time) {
	if t := s.topics[board.Nodes]; s.strange >= 0 && t != nil && t.live && s.config.Ledger.State().Height > s.strange {
		s.strange = -1
		s.askAgain(board.Nodes, now)
	}
}

// unput is an object that the gateway has not put.
func (s *stay) unput() (signed.Envelope, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, object := range s.says {
		if s.has[kind] < object.Sequence {
			return object, true
		}
	}
	return signed.Envelope{}, false
}

// tendTopics follows what is to be followed: one after the other, since each is a list first.
func (s *stay) tendTopics(now time.Time) (say []wire.Frame, next time.Time) {
	next = now.Add(time.Minute)
	wanted := s.Client.topics(now)
	busy := false
	for name, t := range s.topics {
		if !slices.Contains(wanted, name) && (t.asked || t.live) {
			say = append(say, wire.Leave{Topic: name})
			delete(s.topics, name)
			s.live(name, false)
			continue
		}
		busy = busy || t.asked
	}
	for _, name := range wanted {
		t := s.topics[name]
		if t == nil {
			t = &topic{}
			s.topics[name] = t
		}
		switch {
		case t.live || t.asked:
		case now.Before(t.at):
			next = earlier(next, t.at)
		case !busy:
			busy, t.asked = true, true
			t.askedAt, t.told = now, now
			s.room.asked(name, len(s.config.Ledger.State().Roster.Seats))
			f := wire.Follow{Topic: name}
			if height := s.config.Ledger.State().Height; name == board.Ledger {
				f.After = board.Entry(height).Key()
			} else {
				t.present = make(map[document.Hash]presence)
			}
			say = append(say, f)
		}
	}
	return say, next
}

// live notes whether a topic is known as a whole.
func (s *stay) live(name board.Topic, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == board.Nodes && !is && s.known.Live[name] {
		s.known.Listed = s.heard // until then all was known
	}
	s.known.Live[name] = is
}

// askAgain has a topic be asked for anew, after a while.
func (s *stay) askAgain(name board.Topic, now time.Time) {
	if t := s.topics[name]; t != nil {
		if t.live && now.Sub(t.liveAt) > steady {
			t.failures = 0
		}
		t.asked, t.live = false, false
		if t.refused.IsZero() {
			t.refused = now
		}
		t.at = now.Add(part(least << min(t.failures, 6)))
		t.failures++
		s.live(name, false)
	}
}

// hear does what a frame says. The error ends the session.
func (s *stay) hear(f wire.Frame) error {
	now := time.Now()
	s.heard = now
	s.mu.Lock()
	s.known.Heard = now
	s.mu.Unlock()
	if !s.room.spend(f, len(s.config.Ledger.State().Roster.Seats), now) {
		s.avoid(s.seat, shunned)
		return errFlood
	}
	switch f := f.(type) {
	case wire.Alive:
	case wire.Done:
		s.hearDone(f, now)
	case wire.Items:
		if t := s.topics[f.Topic]; t != nil {
			t.told = now
		}
		return s.hearItems(f, now)
	case wire.Live:
		s.hearLive(f.Topic, now)
	case wire.Again:
		s.askAgain(f.Topic, now)
	case wire.Recall:
		clear(s.has)
		s.putAt = now.Add(part(2 * time.Second)) // all nodes of the gateway are
	case wire.Members:
		s.runs(f.Seats)
		s.homeAt = earlier(s.homeAt, now.Add(part(Spread(len(s.config.Ledger.State().Roster.Seats)))))
	case wire.Move:
		s.avoid(s.seat, 30*time.Second)
		return errMoved
	default:
		s.avoid(s.seat, shunned)
		return fmt.Errorf("%w: a gateway does not say it", wire.ErrFrame)
	}
	return nil
}

// hearDone notes what became of what was put. What a gateway refuses for good is not put again
// before there is a newer one.
func (s *stay) hearDone(f wire.Done, now time.Time) {
	q := s.question
	if q == nil || q.id != f.ID {
		return
	}
	s.question = nil
	switch f.Why {
	case wire.Busy, wire.NoEtcd:
		s.putAt = now.Add(part(2 * max(f.Wait, least)))
	case wire.None:
		s.has[q.kind] = max(s.has[q.kind], q.number)
	default:
		s.has[q.kind] = max(s.has[q.kind], q.number)
		s.count("put: " + f.Why.String())
	}
}

func (s *stay) hearLive(name board.Topic, now time.Time) {
	t := s.topics[name]
	if t == nil || !t.asked {
		return
	}
	t.asked, t.live, t.liveAt, t.refused = false, true, now, time.Time{}
	s.useful = !slices.ContainsFunc(s.Client.topics(now), func(b board.Topic) bool { t := s.topics[b]; return t == nil || !t.live })
	s.live(name, true)
	if name != board.Nodes {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.present, s.known.Listed = t.present, now
	t.present = nil
}
