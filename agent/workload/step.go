package workload

import "time"

// State is where a wanted container stands:
//
//	Waiting ─Begin─▶ Starting ─Started─▶ Running ─Exited─▶ Backoff ─Timer─▶ Starting
//	   │                 └─StartFailed─▶ Backoff    └─ by its policy ─▶ Ended
//	   ├─Adopted─▶ Running
//	   └─Exited, Begin before NotBefore─▶ Backoff
//
// A minute of running forgets the exits. Lost (containerd went away) leads from
// everywhere but Ended to Waiting: when it is back, what is found there decides.
type State string

// The states of a container.
const (
	Waiting  State = "waiting"
	Starting State = "starting"
	Running  State = "running"
	Backoff  State = "backoff"
	Ended    State = "ended"
)

// Event is something that happened to a container.
type Event string

// The events of a container.
const (
	Begin       Event = "begin"        // nothing of it is there: start it
	Adopted     Event = "adopted"      // it was found running
	Started     Event = "started"      // a Start succeeded
	StartFailed Event = "start failed" // a Start did not
	Succeeded   Event = "exit 0"
	Failed      Event = "exit 1" // any other code, or a signal
	Timer       Event = "timer"  // NotBefore has come
	Lost        Event = "lost"   // containerd does not answer any more
)

// Action is what the Keeper does about an event.
type Action string

// The actions of [Unit.Step].
const (
	None  Action = ""
	Start Action = "start" // take away what is left of it, then start it
	Watch Action = "watch" // wait for its exit
	Mark  Action = "mark"  // remember for this boot that it ended
)

// Unit is the state of one container.
type Unit struct {
	State   State
	Restart Restart
	// Exits counts exits and failed starts in a row.
	Exits int
	// Since is when it began to run; NotBefore is when Backoff is over.
	Since, NotBefore time.Time
}

// proven is how long a container has to run for its earlier exits to be forgotten.
const proven = time.Minute

// longest is the longest pause before the next start.
const longest = time.Minute

// delay is the pause before the next start: 1 s after the first exit, then twice
// as long each time.
func delay(exits int) time.Duration {
	d := time.Second << min(max(exits-1, 0), 10)
	return min(d, longest)
}

// Step says what event e makes of the container and what is to be done. It starts
// nothing and reads no clock; what comes too late or twice changes nothing.
func (u Unit) Step(e Event, now time.Time) (Unit, Action) {
	switch {
	case u.State == Waiting && e == Begin:
		if now.Before(u.NotBefore) {
			u.State = Backoff // containerd went away during the pause
			return u, None
		}
		u.State = Starting
		return u, Start
	case u.State == Backoff && e == Timer && !now.Before(u.NotBefore):
		u.State = Starting
		return u, Start
	case u.State == Starting && e == Started, u.State == Waiting && e == Adopted:
		u.State, u.Since = Running, now
		return u, Watch
	case u.State == Starting && e == StartFailed:
		return u.backoff(now), None
	case (u.State == Running || u.State == Waiting) && (e == Succeeded || e == Failed):
		if u.State == Running && now.Sub(u.Since) >= proven {
			u.Exits = 0
		}
		if u.ends(e) {
			u.State = Ended
			return u, Mark
		}
		return u.backoff(now), None
	case e == Lost && u.State != Ended:
		u.State = Waiting
		return u, None
	}
	return u, None
}

func (u Unit) backoff(now time.Time) Unit {
	u.Exits++
	u.State, u.NotBefore = Backoff, now.Add(delay(u.Exits))
	return u
}

// ends says whether the policy leaves the container ended after this exit.
func (u Unit) ends(e Event) bool {
	switch u.Restart.Policy {
	case Always:
		return false
	case OnFailure:
		return e == Succeeded || u.Restart.Max > 0 && u.Exits >= u.Restart.Max
	}
	return true
}
