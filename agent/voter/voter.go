// Package voter has this node's seat vote: it thinks of the proposals that wait, casts ballots, and
// takes into the ledger what is decided.
//
//	docket ─▶ proposals, owners' answers ─┐
//	shelf ──▶ what other seats say ───────┼─▶ the queue, the voting machine ─▶ journal, then what this seat says
//	ledger ─▶ its state ──────────────────┘                                 └▶ an entry of the ledger
//
// What is right is for update/fleet to say: proposal has the queue, vote the machine, ledger the
// values. This package has the time, the disk and the key. Nothing of what others say is believed
// because of who brings it.
package voter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kogge.example/agent/docket"
	"kogge.example/update/fleet/ballot"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/journal"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/voice"
	"kogge.example/update/fleet/vote"
)

// Config is what a voter stands on.
type Config struct {
	Self    signed.Key
	Ledger  Ledger
	Journal Journal
	Memory  journal.Memory // of the journal, as it was opened
	Docket  Docket
	Shelf   Shelf
	// Sign signs a ballot with the seat's key, SignAnswer an answer, and Opine an opinion under a
	// number that rises.
	Sign       func(ballot.Ballot) *ballot.Ballot
	SignAnswer func(ballot.Answer) ballot.Answer
	Opine      func(proposal.Opinion) (signed.Envelope, error)
	// Votes is how the node votes on a kind of decision.
	Votes func(decision.Kind) decision.Vote
	Logf  func(format string, args ...any)
}

// Ledger is the node's. agent/pinned's fits.
type Ledger interface {
	State() ledger.State
	Take(height int64, e ledger.Entry) error
}

// Journal keeps what the seat has signed. agent/journal's fits.
type Journal interface {
	// Append returns nil once the record is on the disk.
	Append(journal.Record) error
}

// Docket has the proposals that wait, and what owners and nodes have said about them. agent/docket's
// fits.
type Docket interface {
	Open() []docket.Waiting
	Known() [][]byte
	// Drop forgets a proposal that left the queue.
	Drop(id document.Hash, why string)
}

// Shelf has what seats say, verified. A gossip engine fits.
type Shelf interface {
	// Objects are the newest of a kind, one a seat.
	Objects(kind string) []signed.Envelope
	// Limit is how many bytes an object of a kind may have.
	Limit(kind string) int
	// Say has this seat say something under a kind from now on.
	Say(kind string, body []byte) error
}

// Voter votes for one seat, from [Voter.Run] on. What is not said to be otherwise is of Run's
// goroutine.
type Voter struct {
	config Config
	look   chan struct{} // something has changed
	posted chan func()
	ctx    context.Context

	state   ledger.State
	machine vote.State
	begun   bool
	timers  map[ballot.Kind]*time.Timer
	wants   *vote.Judge // what waits for its draft
	nonce   document.Hash
	failed  error // why the seat takes no step any more
	broken  error // why its journal takes no record

	opinions  opinions
	accused   accused
	vain      map[document.Hash]int   // what rounds were about in vain, and how many opinions of it there were
	next      document.Hash           // what they are about now
	drafts    map[document.Hash]draft // by record
	offered   map[document.Hash]*ballot.Ballot
	offeredIn int32                    // the round in which they were offered the last time
	answered  map[document.Hash][]byte // by nonce
	words     map[signed.Key]word
	woken     map[signed.Key]int // how often a seat has ended a rest at this height
	said      map[string]string
	turn      proposal.Turn

	mu    sync.Mutex // guards what follows
	shown View
}

// draft is what a record would decide.
type draft struct {
	says     voice.Draft
	record   ledger.Record
	value    ledger.Value
	evidence [][]byte
}

// View is where the seat stands, for people.
type View struct {
	Height   int64 // that is voted about
	Phase    vote.Phase
	Round    int32
	Step     ballot.Kind
	Chair    int // of the round
	Value    document.Hash
	Abstains string // why the seat takes no step; "": it does
	Lacks    string // what is wrong with its journal, if that is why
	Waits    []proposal.Waiting
	Problem  error
}

// New is a voter that has not begun.
func New(c Config) *Voter {
	return &Voter{
		config: c, look: make(chan struct{}, 1), posted: make(chan func(), 64), timers: make(map[ballot.Kind]*time.Timer),
		drafts: make(map[document.Hash]draft), offered: make(map[document.Hash]*ballot.Ballot), answered: make(map[document.Hash][]byte),
		said: make(map[string]string), words: make(map[signed.Key]word), woken: make(map[signed.Key]int), opinions: newOpinions(), accused: accused{proofs: make(map[document.Hash]accusation)}, vain: make(map[document.Hash]int),
	}
}

// Look has the voter look: the ledger, the docket or what others say has changed. It returns at
// once, and may be called from any goroutine.
func (v *Voter) Look() {
	select {
	case v.look <- struct{}{}:
	default:
	}
}

// View is where the seat stands. It may be called from any goroutine.
func (v *Voter) View() View {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shown
}

// every is how often the voter looks at what time alone changes, and breath what lies between two
// looks at least.
const (
	every  = 15 * time.Second
	breath = 50 * time.Millisecond
)

// Run votes until ctx ends, which is nil, or until the journal takes no record: then what was done
// about it is to be forgotten, and a voter that reads the journal anew goes on.
func (v *Voter) Run(ctx context.Context) error {
	v.ctx = ctx
	tick := time.NewTicker(every)
	defer tick.Stop()
	defer func() {
		for _, t := range v.timers {
			t.Stop()
		}
	}()
	v.start()
	for {
		v.once()
		if v.broken != nil {
			return v.broken
		}
		select {
		case <-ctx.Done():
			return nil
		case f := <-v.posted:
			f()
		case <-v.look:
			select { // who hears much at once looks once
			case <-ctx.Done():
				return nil
			case <-time.After(breath):
			}
		case <-tick.C:
		}
	}
}

// start begins with what the journal says.
func (v *Voter) start() {
	v.state = v.config.Ledger.State()
	seat, ok := v.state.Roster.ByKey(v.config.Self)
	if !ok {
		return
	}
	var effects []vote.Effect
	v.machine, effects = vote.New(seat.Number, v.config.Memory)
	v.begun = true
	v.do(effects)
	v.step(vote.Begin{Height: v.state.Ballots()})
}

// once looks at all that there is.
func (v *Voter) once() {
	if !v.begun {
		if v.start(); !v.begun {
			return
		}
	}
	if now := v.config.Ledger.State(); now.Record != v.state.Record {
		v.advance(now)
	}
	v.hear()
	v.think()
	v.judge()
	if v.broken == nil {
		v.speak()
	}
	v.show()
}

// advance goes on to the height that follows on the ledger.
func (v *Voter) advance(now ledger.State) {
	v.state = now
	clear(v.drafts)
	clear(v.offered)
	clear(v.answered)
	clear(v.vain)
	clear(v.woken)
	v.wants = nil
	v.step(vote.Begin{Height: now.Ballots()})
}

// step gives the machine an event, and does what follows.
func (v *Voter) step(e vote.Event) {
	if v.failed != nil || v.broken != nil {
		return
	}
	var effects []vote.Effect
	v.machine, effects = vote.Step(v.machine, e)
	v.do(effects)
}

// do carries out effects in their order. Where one fails that others rest on, the seat takes no
// step any more: what it has signed is known, what would follow is not.
func (v *Voter) do(effects []vote.Effect) {
	for _, e := range effects {
		if v.failed != nil || v.broken != nil {
			return
		}
		switch e := e.(type) {
		case vote.Persist:
			if err := v.config.Journal.Append(e.Record); err != nil {
				v.broken = err
			}
		case vote.Send:
			own := v.config.Sign(*e.Ballot)
			v.offered[document.HashOf(own.Bytes())] = own
			v.step(vote.Received{Ballot: own})
		case vote.Timer:
			v.time(e)
		case vote.Judge:
			v.wants = &e
		case vote.Ask:
			v.ask()
		case vote.Decide:
			v.decided(e)
		case vote.Expose:
			v.config.Logf("vote: seat %d has signed two ballots that contradict each other, at height %d", e.Proof.One.Seat, e.Proof.One.Height)
			v.accused.take(e.Proof.Bytes())
			v.Look()
		case vote.Lack:
			v.config.Logf("vote: this seat has signed ballots that its journal lacks: it abstains up to height %d", v.machine.Abstain)
		case vote.Fork:
			v.fail(fmt.Errorf("two records are decided at height %d: %s and %s", e.Height, e.One.Short(), e.Other.Short()))
		}
	}
}

func (v *Voter) fail(err error) {
	v.failed = err
	v.config.Logf("vote: %v", err)
}

// time starts a timer in the place of the one of its step.
func (v *Voter) time(t vote.Timer) {
	if old := v.timers[t.Step]; old != nil {
		old.Stop()
	}
	v.timers[t.Step] = time.AfterFunc(t.After, func() {
		select {
		case v.posted <- func() { v.step(t.Timeout) }:
		case <-v.ctx.Done():
		}
	})
}

// decided takes a decision into the ledger, if it is known what was decided. Else others have it, and
// it comes as a record does.
func (v *Voter) decided(d vote.Decide) {
	of, ok := v.drafts[d.Value]
	if !ok {
		return
	}
	d.Certificate.Evidence = of.evidence
	err := v.config.Ledger.Take(of.record.Height, ledger.Entry{Record: of.record.Encode(), Value: of.value.Encode(), Certificate: d.Certificate.Encode()})
	if err != nil && !errors.Is(err, ledger.ErrHeight) {
		v.fail(fmt.Errorf("record %d is decided, and the ledger does not take it: %w", of.record.Height, err))
		return
	}
	v.config.Logf("vote: record %d is decided: %s, in round %d", of.record.Height, of.value.Kind(), d.Certificate.Round)
	v.Look()
}

// show notes where the seat stands.
func (v *Voter) show() {
	m := v.machine
	is := View{Height: m.At.Number, Phase: m.Phase, Round: m.Round, Step: m.Step, Value: m.Item, Waits: v.turn.Waits, Problem: v.failed}
	if len(m.At.Voters) > 0 {
		is.Chair = m.At.Chair(m.Round)
	}
	switch {
	case m.Asking:
		is.Abstains = "it asks the others for its own ballots, as after each boot"
	case m.At.Number <= m.Abstain:
		is.Lacks = fmt.Sprintf("the vote journal lacks ballots of this seat: it votes again above height %d", m.Abstain)
		is.Abstains = is.Lacks
	case m.At.Index(m.Self) < 0:
		is.Abstains = "it has no vote"
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shown = is
}
