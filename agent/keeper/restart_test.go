package keeper

import (
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// graces are the last so many that removals had.
func (f *fakeEngine) lastGraces(n int) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.graces[max(0, len(f.graces)-n):]
}

// tolds says whether a container in that state says that it was told to stop.
func tolds(state workload.State) func(workload.Status) bool {
	return func(s workload.Status) bool {
		return s.Units[0].State == state && strings.Contains(s.Units[0].Reason, "db"+workload.ToldAt)
	}
}

// TestRestartOfTheDeaf: a restart shows what it waits for, and ends at once when it is asked
// for once more.
func TestRestartOfTheDeaf(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.ask(t, "db", workload.WantRestarted)
	b.until(t, "it to say when", tolds(workload.Starting))
	b.ask(t, "db", workload.WantRestarted)
	b.until(t, "it to run again", func(s workload.Status) bool {
		return unitStates("db running")(s) && b.engine.did("start db") == 2 && s.Units[0].Reason == ""
	})
	b.ask(t, "db", workload.WantRestarted) // the first one again
	b.until(t, "it to say when", tolds(workload.Starting))
	if got := b.engine.lastGraces(1); got[0] != time.Hour {
		t.Errorf("a new instance has %s to stop", got)
	}
}

// TestFollowsTheDeaf: so does a restart because of what a container goes by; nobody has asked
// for that one, so a request for a restart leaves it its time.
func TestFollowsTheDeaf(t *testing.T) {
	t.Parallel()
	db := deaf("db", time.Hour)
	db.After = []workload.Dependency{{ID: "other", Restart: true}}
	b := runDeaf(t, db, deaf("other", 0))
	b.until(t, "both to run", unitStates("db running", "other running"))
	b.ask(t, "other", workload.WantRestarted)
	b.until(t, "it to say when", tolds(workload.Starting))
	b.ask(t, "db", workload.WantRestarted)
	for range 10 { // nothing happens, which is no condition to wait for
		b.until(t, "a report", tolds(workload.Starting))
	}
}

// TestStopAmidRestart: a stop that comes while a restart waits begins no grace anew.
func TestStopAmidRestart(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.ask(t, "db", workload.WantRestarted)
	b.until(t, "it to say when", tolds(workload.Starting))
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "it to be stopping", tolds(workload.Stopping))
	b.until(t, "it to have less time", func(workload.Status) bool {
		last := b.engine.lastGraces(2)
		return last[0] == time.Hour && last[1] > time.Hour-time.Minute && last[1] < time.Hour
	})
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "it to have stopped", unitStates("db stopped"))
}

// TestKilledOnce: what had its whole grace and could not be removed has no second one.
func TestKilledOnce(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", 50*time.Millisecond))
	b.until(t, "it to run", unitStates("db running"))
	b.engine.clings(2)
	b.want(t)
	b.until(t, "it to be gone", func(s workload.Status) bool { return len(s.Leaving) == 0 && b.engine.names() == "" })
	if got := b.engine.lastGraces(3); len(got) != 3 || got[0] == 0 || got[1] != 0 || got[2] != 0 {
		t.Errorf("graces %v, want one", got)
	}
}

// TestAdoptedIsNotTold: what was told to stop and is wanted after all has its whole grace when
// it is told to the next time.
func TestAdoptedIsNotTold(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.ask(t, "db", workload.WantRestarted)
	b.until(t, "it to say when", tolds(workload.Starting))
	b.engine.away()
	b.until(t, "the session to end", func(s workload.Status) bool { return s.Trouble != "" })
	b.engine.back()
	b.until(t, "it to run", unitStates("db running"))
	b.ask(t, "db", workload.WantRestarted)
	b.until(t, "it to say when", tolds(workload.Starting))
	b.until(t, "it to be told", func(workload.Status) bool { return len(b.engine.lastGraces(9)) == 3 })
	if got := b.engine.lastGraces(1); got[0] != time.Hour {
		t.Errorf("it has %s", got)
	}
}

// TestStopGoesOn: a stop that a session ends amid goes on in the next one, with what is left of
// its grace.
func TestStopGoesOn(t *testing.T) {
	t.Parallel()
	b := runDeaf(t, deaf("db", time.Hour))
	b.until(t, "it to run", unitStates("db running"))
	b.ask(t, "db", workload.WantStopped)
	b.until(t, "it to be told", func(s workload.Status) bool { return tolds(workload.Stopping)(s) && len(b.engine.lastGraces(9)) == 2 })
	b.engine.away()
	b.until(t, "the session to end", func(s workload.Status) bool { return s.Trouble != "" })
	b.engine.back()
	b.until(t, "it to be told again", func(workload.Status) bool { return len(b.engine.lastGraces(9)) == 3 })
	if got := b.engine.lastGraces(1)[0]; got >= time.Hour || got < time.Hour-time.Minute {
		t.Errorf("it has %s more", got)
	}
	b.until(t, "it to say when", tolds(workload.Stopping))
}
