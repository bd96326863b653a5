package explore

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"kogge.example/update/fleet/ballot"
)

// limit is how long a walk through two rounds may last, and long whether the parts of `make sim` run
// that the quick tests leave out.
var limit, long = os.LookupEnv("KOGGE_SIM")

func sim(t *testing.T) {
	if !long {
		t.Skip("a part of make sim: KOGGE_SIM=7m")
	}
}

// oneRound is what is walked through whole: who lies, and whether the power fails.
var oneRound = []struct {
	name string
	Config
}{
	{"a voter lies", Config{Rounds: 1, Liar: 4}},
	{"the chair lies", Config{Rounds: 1, Liar: 3}},
	{"a voter lies, the power fails", Config{Rounds: 1, Liar: 4, Cut: true}},
	{"the chair lies, the power fails", Config{Rounds: 1, Liar: 3, Cut: true}},
}

// TestOneRound walks through all that can happen in one round.
func TestOneRound(t *testing.T) {
	for _, c := range oneRound {
		t.Run(c.name, func(t *testing.T) { whole(t, c.Config) })
	}
}

// whole wants that all states are found, and nothing wrong in them.
func whole(t *testing.T, c Config) Report {
	c.Memory = 3 << 30
	r := Run(c)
	if len(r.Wrong) > 0 || r.Open > 0 || r.Ends == 0 {
		t.Errorf("%s", r)
	}
	t.Logf("whole: %s", r)
	return r
}

// lies is a liar who has no more to say than this.
func lies(few ...Message) func(Message) bool {
	return func(m Message) bool { return slices.Contains(few, m) }
}

// TestReductions leaves out each reduction in turn, in one round and with a liar that has little to
// say, and wants that the same is signed and decided together.
func TestReductions(t *testing.T) {
	prevote := Message{ballot.Prevote, 0, valueX, ballot.Fresh, 4}
	for _, c := range []struct {
		name string
		Config
	}{
		{"a voter lies: a prevote, a precommit", Config{Rounds: 1, Liar: 4, Lies: lies(prevote, Message{ballot.Precommit, 0, valueX, ballot.Fresh, 4})}},
		{"the chair lies: two proposals", Config{Rounds: 1, Liar: 3, Lies: lies(Message{ballot.Proposal, 0, valueX, ballot.Fresh, 3}, Message{ballot.Proposal, 0, valueY, ballot.Fresh, 3})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			with, apart, deaf, remember := c.Config, c.Config, c.Config, c.Config
			apart.Apart, deaf.Deaf, remember.Remember = true, true, true
			all := whole(t, with)
			compare(t, "names kept apart", whole(t, apart), all)
			compare(t, "who has decided hears more", whole(t, deaf), all)
			within(t, whole(t, remember), all)
		})
	}
	t.Run("each delivery by itself, a voter has nothing to say", func(t *testing.T) {
		c := Config{Rounds: 1, Liar: 4, Remember: true, Lies: lies()}
		together := whole(t, c)
		c.Each = true
		compare(t, "each delivery by itself", whole(t, c), together)
	})
	t.Run("each delivery by itself, a voter lies: a prevote", func(t *testing.T) {
		sim(t)
		c := Config{Rounds: 1, Liar: 4, Remember: true, Lies: lies(prevote)}
		together := whole(t, c)
		c.Each, c.Time, c.Memory = true, 5*time.Minute, 3<<30
		r := Run(c)
		t.Logf("as far as it goes: %s", r)
		within(t, r, together)
	})
}

// within wants that nothing else happens in a run than in another one.
func within(t *testing.T, r, in Report) {
	for s := range r.Together {
		if !in.Together[s] {
			t.Fatalf("the reduction loses something: %x is signed and decided together", s)
		}
	}
	t.Logf("%d combinations of %d", len(r.Together), len(in.Together))
}

func compare(t *testing.T, what string, without, with Report) {
	if !maps.Equal(without.Together, with.Together) {
		t.Errorf("%s: %d combinations are signed and decided together, and with the reduction %d", what, len(without.Together), len(with.Together))
	}
}

// TestLockRule walks whole through two rounds in which the liar, chair of the second, has just what
// it takes to have a second value decided, were it not for the locks.
func TestLockRule(t *testing.T) {
	sim(t)
	whole(t, Config{Rounds: 2, Liar: 4, Lies: lies(
		Message{ballot.Precommit, 0, valueX, ballot.Fresh, 4},
		Message{ballot.Proposal, 1, valueY, ballot.Fresh, 4}, Message{ballot.Prevote, 1, valueY, ballot.Fresh, 4}, Message{ballot.Precommit, 1, valueY, ballot.Fresh, 4},
	)})
}

// TestTwoRounds goes as far into two rounds as the time lasts, and prints how far.
func TestTwoRounds(t *testing.T) {
	sim(t)
	each, err := time.ParseDuration(limit)
	if err != nil {
		t.Fatalf("KOGGE_SIM is no time for a walk: %v", err)
	}
	for _, liar := range []struct {
		name string
		seat int
	}{{"the chair of round 1 lies", 4}, {"the chair of round 0 lies", 3}, {"another voter lies", 1}} {
		t.Run(liar.name, func(t *testing.T) {
			r := Run(Config{Rounds: 2, Liar: liar.seat, Memory: 3 << 30, Time: each})
			if len(r.Wrong) > 0 {
				t.Errorf("%s", r)
			}
			what := "frontier"
			if r.Open == 0 {
				what = "whole"
			}
			t.Logf("%s: %s", what, r)
		})
	}
}
