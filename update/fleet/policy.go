package fleet

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"kogge.example/update/fleet/document"
)

// Policy is what a fleet allows its own decisions to do: how few canaries, how large a step,
// how short a bake, who may propose. A proposal may only be stricter. [DefaultPolicy] has the
// defaults.
type Policy struct {
	// Canaries is how many seats of each family of boards run a release first, at least.
	Canaries int `json:"canaries"`
	// Steps are the largest shares of a family that run it after each further wave, in per
	// cent, rising to 100.
	Steps []int `json:"steps"`
	// Bake is how long a wave runs before the next one, at least, and LastBake before the
	// wave that goes beyond LastStep per cent. Each node counts its own running time.
	Bake     document.Duration `json:"bake"`
	LastBake document.Duration `json:"lastBake"`
	LastStep int               `json:"lastStep"`
	// Emergency are the bakes of a proposal for which q owners have said yes by hand.
	Emergency Emergency `json:"emergency"`
	// MaxUnavailable is how many nodes of one domain may be down on purpose at a time.
	MaxUnavailable int `json:"maxUnavailable"`
	// Redraws is how often a wave that failed draws other seats before the rollout is
	// aborted.
	Redraws int `json:"redraws"`
	// Queue is how long a proposal waits for its votes.
	Queue document.Duration `json:"queue"`
	// Grace is how long a node may be silent before others take over what it did.
	Grace document.Duration `json:"grace"`
	// Undecided is how long a node stays on a release that the fleet has not committed to
	// without hearing of a decision.
	Undecided document.Duration `json:"undecided"`
	// BreakGlass is how long a fleet waits whose quorum is gone before its owners may name
	// another.
	BreakGlass document.Duration `json:"breakGlass"`
	// Propose is the least role of an operator who may propose.
	Propose Role `json:"propose"`
	// Votes is how many seats have a vote, at most.
	Votes int `json:"votes"`
	// Trial is of a fleet for trying things out, whose times may be as short as they like.
	// It is in the genesis for good: no decision changes it.
	Trial bool `json:"trial,omitempty"`
}

// Emergency is the bakes of an emergency.
type Emergency struct {
	Bake     document.Duration `json:"bake"`
	LastBake document.Duration `json:"lastBake"`
}

const day = document.Duration(24 * time.Hour)

// DefaultPolicy is the policy of a fleet whose founders say nothing else.
func DefaultPolicy() Policy {
	return Policy{
		Canaries: 1, Steps: []int{5, 15, 30, 65, 100},
		Bake: document.Duration(time.Hour), LastBake: day, LastStep: 65,
		Emergency:      Emergency{Bake: document.Duration(10 * time.Minute), LastBake: document.Duration(time.Hour)},
		MaxUnavailable: 1, Redraws: 1, Queue: 7 * day, Grace: document.Duration(5 * time.Minute),
		Undecided: day, BreakGlass: 7 * day, Propose: RoleOperator, Votes: 100,
	}
}

// TrialPolicy is the policy of a fleet for trying things out: what takes hours takes a minute,
// and what takes days ten.
func TrialPolicy() Policy {
	const minute = document.Duration(time.Minute)
	p := DefaultPolicy()
	p.Trial = true
	p.Bake, p.LastBake, p.Grace = minute, minute, minute
	p.Emergency = Emergency{Bake: minute / 2, LastBake: minute}
	p.Undecided, p.BreakGlass = 10*minute, 10*minute
	return p
}

// ErrPolicy is of limits that no fleet may have.
var ErrPolicy = errors.New("not a policy")

// Check says what is wrong with a policy. The error wraps [ErrPolicy] and names the field.
func (p Policy) Check() error {
	if err := p.check(); err != nil {
		return fmt.Errorf("%w: field %w", ErrPolicy, err)
	}
	return nil
}

func (p Policy) check() error {
	for _, n := range []struct {
		field      string
		is, lo, hi int
	}{
		{"canaries", p.Canaries, 1, 100}, {"maxUnavailable", p.MaxUnavailable, 1, 1000}, {"redraws", p.Redraws, 0, 10},
		{"votes", p.Votes, 1, 1000}, {"lastStep", p.LastStep, 1, 100},
	} {
		if n.is < n.lo || n.is > n.hi {
			return fmt.Errorf("%s: %d: %d to %d", n.field, n.is, n.lo, n.hi)
		}
	}
	if err := p.checkSteps(); err != nil {
		return err
	}
	if p.Propose != RoleOperator && p.Propose != RoleAdmin {
		return fmt.Errorf("propose: %.20q: operator or admin", p.Propose)
	}
	for _, d := range p.times() {
		least := d.least
		if p.Trial {
			least = document.Duration(time.Second)
		}
		if d.is < least || d.is > d.most {
			return fmt.Errorf("%s: %s: %s to %s", d.field, d.is, least, d.most)
		}
	}
	if p.Undecided < 2*p.Bake || p.Undecided < 2*p.Emergency.Bake {
		return fmt.Errorf("undecided: %s: at least twice the bake", p.Undecided)
	}
	return nil
}

func (p Policy) checkSteps() error {
	if len(p.Steps) < 2 || len(p.Steps) > 20 || p.Steps[len(p.Steps)-1] != 100 {
		return errors.New("steps: 2 to 20 of them, and the last is 100")
	}
	if p.Steps[0] < 1 || p.Steps[0] > 50 {
		return fmt.Errorf("steps: the first is %d: 1 to 50", p.Steps[0])
	}
	if !slices.IsSorted(p.Steps) || len(slices.Compact(slices.Clone(p.Steps))) != len(p.Steps) {
		return fmt.Errorf("steps: %v: each is larger than the one before", p.Steps)
	}
	return nil
}

// limit is what a time may be.
type limit struct {
	field           string
	is, least, most document.Duration
}

// times are the policy's times, and what they may be where nothing is tried out.
func (p Policy) times() []limit {
	const minute, year = document.Duration(time.Minute), 365 * day
	return []limit{
		{"bake", p.Bake, 10 * minute, 30 * day},
		{"lastBake", p.LastBake, p.Bake, 90 * day},
		{"emergency.bake", p.Emergency.Bake, 5 * minute, 30 * day},
		{"emergency.lastBake", p.Emergency.LastBake, p.Emergency.Bake, 90 * day},
		{"queue", p.Queue, day, year},
		{"grace", p.Grace, minute, day},
		{"undecided", p.Undecided, document.Duration(time.Hour), year},
		{"breakGlass", p.BreakGlass, 3 * day, year},
	}
}
