package part

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"kogge.example/agent/docket"
	"kogge.example/agent/journal"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/votes"
	"kogge.example/agent/voter"
	"kogge.example/update/fleet/decision"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/signed"
	words "kogge.example/update/fleet/voice"
)

// trustedLedger is the node's ledger, whose state is the one that the node acts by.
type trustedLedger struct {
	*pinned.Ledger
	part *Part
	look func()
}

func (l trustedLedger) State() ledger.State { return l.part.trusted(l.Ledger) }

// Take takes what this seat has decided, and has the session look at it.
func (l trustedLedger) Take(height int64, e ledger.Entry) error {
	err := l.Ledger.Take(height, e)
	if err == nil {
		l.look()
	}
	return err
}

// voice is what seats say of votes: it travels as notices do.
type voice struct{ *session }

func (v voice) Objects(kind string) []signed.Envelope { return v.engine.Objects(kind) }

func (v voice) Limit(kind string) int { return v.engine.Limit(kind) }

// Say says something above what others have heard of this seat, as after its disk was restored from
// a copy.
func (v voice) Say(kind string, body []byte) error {
	const tries = 3
	var err error
	for range tries {
		var e signed.Envelope
		if e, err = v.seat.Seal(kind, v.taken.State().Fleet(), v.numbers.Next(), body); err != nil {
			return err
		}
		if err = v.board.Publish(e); !errors.Is(err, notice.ErrOlder) {
			return err
		}
		if newer, ok := v.board.Object(kind, v.seat.Key); ok {
			v.numbers.Heard(newer.Sequence)
		}
	}
	return err
}

// The journal is opened again after so long, when the disk did not give it or take a record, and a seat
// without a vote is looked at as often.
const againVoting = 30 * time.Second

// vote has the seat vote while it has a vote, until ctx ends.
func (s *session) vote(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		if seat, ok := s.taken.State().Roster.ByKey(s.seat.Key); ok && seat.Vote {
			err := s.voteOnce(ctx)
			if err != nil && err.Error() != said {
				said = err.Error()
				log.Printf("agent: %v", err)
			}
			s.voting.Store(&voting{problem: err})
		}
		select {
		case <-ctx.Done():
		case <-time.After(againVoting):
		}
	}
}

// voting is the voter that runs, or why none does.
type voting struct {
	voter   *voter.Voter
	problem error
}

// wrong is why the seat takes no step in votes, for people to see; nil: it does.
func (v *voting) wrong() error {
	if v == nil {
		return nil
	}
	if v.voter == nil {
		return v.problem
	}
	is := v.voter.View()
	if is.Lacks != "" {
		return errors.New(is.Lacks)
	}
	return is.Problem
}

// voteOnce votes until ctx ends, or the journal takes nothing more.
func (s *session) voteOnce(ctx context.Context) error {
	state := s.taken.State()
	if seat, _ := state.Roster.ByKey(s.seat.Key); seat.Journal != s.seat.Journal {
		return fmt.Errorf("vote journal: the ledger has seat %d with journal %s, and this node's key was made with %s: the node needs a new seat", seat.Number, seat.Journal, s.seat.Journal)
	}
	j, memory, err := journal.Open(s.part.state, state.Fleet(), s.seat)
	if err != nil {
		return err
	}
	if memory.Damage != "" {
		log.Printf("agent: vote journal: damaged, and kept aside: %s", memory.Damage)
	}
	if err := memory.Ahead(state.Height); err != nil { // it takes no step until the ledger has caught up
		log.Printf("agent: vote journal: %v", err)
	}
	v := voter.New(voter.Config{
		Self: s.seat.Key, Ledger: trustedLedger{s.taken, s.part, s.talk.Look}, Journal: j, Memory: memory, Docket: s.part.docket(), Shelf: voice{s},
		Sign: s.seat.Cast, SignAnswer: s.seat.Answer,
		Opine: func(o proposal.Opinion) (signed.Envelope, error) {
			return s.seat.Opine(s.taken.State().Fleet(), s.numbers.Next(), o)
		},
		Votes: func(k decision.Kind) decision.Vote {
			set, _ := s.part.docket().Votes(s.seat.Key)
			return proposal.VoteOn(k, set.Votes)
		},
		Logf: func(format string, args ...any) { log.Printf("agent: "+format, args...) },
	})
	s.voting.Store(&voting{voter: v})
	return errors.Join(v.Run(ctx), j.Close())
}

// lookAtVote has the voter look, if there is one.
func (s *session) lookAtVote() {
	if now := s.voting.Load(); now != nil && now.voter != nil {
		now.voter.Look()
	}
}

// Docket is what the API answers about what waits to be decided; nil: the node belongs to no fleet that
// was founded.
func (t *Talk) Docket() votes.Docket {
	if d := t.part.Docket(); d != nil {
		return said{d, t}
	}
	return nil
}

// said is the docket, and what seats think of what is on it.
type said struct {
	*docket.Store
	talk *Talk
}

func (s said) All() [][]byte {
	all := s.Store.All()
	now := s.talk.session.Load()
	if now == nil {
		return all
	}
	for _, e := range now.engine.Objects(words.OpinionsKind) {
		if o, err := words.ParseOpinions(e.Body); err == nil {
			all = append(all, o.Opinions...)
		}
	}
	return all
}
