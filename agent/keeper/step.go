package keeper

import (
	"time"

	"kogge.example/agent/workload"
)

// Event is something that happened to a container.
type Event string

// The events of a container.
const (
	Begin        Event = "begin"   // nothing of it is there: start it
	Adopted      Event = "adopted" // it was found running
	Ready        Event = "ready"   // what it depends on is as it should be
	Started      Event = "started" // a Start succeeded
	StartFailed  Event = "start failed"
	Succeeded    Event = "exit 0"
	Failed       Event = "exit 1"         // any other code, or a signal
	Timer        Event = "timer"          // NotBefore has come
	Lost         Event = "lost"           // containerd does not answer any more
	StopAsked    Event = "stop requested" // by an operator
	StartAsked   Event = "start requested"
	RestartAsked Event = "restart requested" // or what it depends on was replaced
	Removed      Event = "removed"           // a Remove succeeded
	RemoveFailed Event = "remove failed"

	MustGo     Event = "must go"     // the new instance can be started once the old one has gone
	Fit        Event = "fit"         // the new instance does what it should
	Unfit      Event = "unfit"       // it does not
	OldExited  Event = "old exited"  // the old instance, by itself
	OldRemoved Event = "old removed" // a RemoveOld succeeded
	OldStuck   Event = "old stuck"   // a RemoveOld failed
)

// Action is what the Keeper does about an event.
type Action string

// The actions of [Unit.Step].
const (
	None   Action = ""
	Start  Action = "start"  // take away what is left of it, then start it
	Watch  Action = "watch"  // wait for its exit
	Mark   Action = "mark"   // remember for this boot that it ended
	Cancel Action = "cancel" // give up the start that is under way
	Remove Action = "remove" // stop it and take it away, and the old instance

	Relieve   Action = "relieve"    // lead everybody to the new instance
	Discard   Action = "discard"    // stop the new instance and take it away
	RemoveOld Action = "remove old" // stop the old instance and take it away
)

// Relief is where an older instance of a container stands, one that was made as it was
// wanted before:
//
//	Alone ─found─▶ Serving ─Fit─▶ Draining ─Timer─▶ Leaving ─OldRemoved─▶ Alone
//	                  └─MustGo, OldExited─▶ Leaving
//
// While it serves, it has the published ports and the names, whatever becomes of the new
// one: one that fails goes to Backoff, as always.
type Relief string

// Where an old instance stands.
const (
	Alone    Relief = "" // there is none
	Serving  Relief = "serving"
	Draining Relief = "draining" // it ends what it has begun
	Leaving  Relief = "leaving"  // it is being taken away
)

// drain is how long an old instance has to end what it has begun before it is told to
// stop; connections that last longer have its own grace.
const drain = 5 * time.Second

// Unit is the state of one container:
//
//	Waiting ─Begin─▶ Pending ─Ready─▶ Starting ─Started─▶ Running ─Exited─▶ Backoff ─Timer─▶ Starting
//	   │                                 └─StartFailed─▶ Backoff   └─ by its policy ─▶ Ended
//	   ├─Adopted─▶ Running
//	   └─Exited, Begin before NotBefore─▶ Backoff
//
//	Starting ─MustGo─▶ Replacing ─OldRemoved─▶ Starting
//
//	anywhere ─StopAsked─▶ Stopping ─Removed─▶ Stopped ─StartAsked─▶ Starting
//	Running ─RestartAsked─▶ Starting (which takes away what is there)
//
// Pending waits for what the container depends on; a request to start it does not.
// A minute of running forgets the exits. Lost (containerd went away) leads from
// everywhere but Ended and Stopped to Waiting: when it is back, what is found there
// decides, and a stop that was asked for is carried out then.
//
// Replacing takes away an older instance that cannot run beside the new one. Where it
// can, it goes on meanwhile: see [Relief].
type Unit struct {
	State   workload.State
	Restart workload.Restart
	// Held says that an operator stopped it: nothing but a request starts it.
	Held bool
	// Exits counts exits and failed starts in a row.
	Exits int
	// Since is when it began to run. NotBefore is when Backoff is over, and when a
	// removal that failed is tried again.
	Since, NotBefore time.Time
	// Old is the old instance, and Until when something is to be done about it.
	Old   Relief
	Until time.Time
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
	switch e {
	case StopAsked:
		return u.hold()
	case StartAsked, RestartAsked:
		return u.release(e)
	case Lost:
		if u.State != workload.Ended && u.State != workload.Stopped {
			u.State = workload.Waiting
		}
		u.Old = Alone
		return u, None
	case MustGo, Fit, Unfit, OldExited, OldRemoved, OldStuck:
		return u.relief(e, now)
	}
	after, action := u.next(e, now)
	if e == Timer && action == None && (u.Old == Draining || u.Old == Leaving) && !u.Until.IsZero() && !now.Before(u.Until) {
		after.Old, after.Until = Leaving, time.Time{}
		return after, RemoveOld
	}
	return after, action
}

// next is what Step makes of an event of the one instance that is wanted.
func (u Unit) next(e Event, now time.Time) (Unit, Action) {
	switch u.State {
	case workload.Waiting:
		return u.found(e, now)
	case workload.Pending:
		if e == Ready {
			u.State = workload.Starting
			return u, Start
		}
	case workload.Starting:
		switch {
		case u.Held && (e == Started || e == StartFailed):
			return u.stopping()
		case e == Started:
			u.State, u.Since = workload.Running, now
			return u, Watch
		case e == StartFailed:
			return u.backoff(now), None
		}
	case workload.Running:
		if e == Succeeded || e == Failed {
			if now.Sub(u.Since) >= proven {
				u.Exits = 0
			}
			return u.exited(e, now)
		}
	case workload.Backoff:
		if e == Timer && !now.Before(u.NotBefore) {
			u.State = workload.Starting
			return u, Start
		}
	case workload.Stopping:
		return u.leaving(e, now)
	}
	return u, None
}

// relief is what Step makes of an event that is about two instances.
func (u Unit) relief(e Event, now time.Time) (Unit, Action) {
	switch {
	case e == MustGo && u.State == workload.Starting && u.Held:
		return u.stopping()
	case e == MustGo && u.State == workload.Starting && u.Old == Alone:
		return u, Start // it has gone by itself
	case e == MustGo && u.State == workload.Starting && u.Old == Leaving:
		u.State = workload.Replacing
	case e == MustGo && u.State == workload.Starting, e == OldExited && (u.Old == Serving || u.Old == Draining):
		if e == MustGo {
			u.State = workload.Replacing
		}
		u.Old, u.Until = Leaving, time.Time{}
		return u, RemoveOld
	case e == Fit && u.State == workload.Running && u.Old == Serving:
		u.Old, u.Until = Draining, now.Add(drain)
		return u, Relieve
	case e == Unfit && u.State == workload.Running && u.Old == Serving:
		return u.backoff(now), Discard
	case e == OldStuck && u.Old == Leaving:
		u.Until = now.Add(longest)
	case e == OldRemoved && u.Old == Leaving:
		u.Old = Alone
		if u.State == workload.Replacing {
			u.State = workload.Starting
			return u, Start
		}
	}
	return u, None
}

// found is what Step makes of the first look at a container.
func (u Unit) found(e Event, now time.Time) (Unit, Action) {
	switch e {
	case Begin, Adopted, Succeeded, Failed:
		if u.Held {
			return u.stopping()
		}
	}
	switch e {
	case Begin:
		u.State = workload.Pending
		if now.Before(u.NotBefore) {
			u.State = workload.Backoff // containerd went away during the pause
		}
	case Adopted:
		u.State, u.Since = workload.Running, now
		return u, Watch
	case Succeeded, Failed:
		return u.exited(e, now)
	}
	return u, None
}

func (u Unit) exited(e Event, now time.Time) (Unit, Action) {
	if u.ends(e) {
		u.State = workload.Ended
		if e == Succeeded && u.Old == Serving { // it has done what there was to do
			u.Old, u.Until = Draining, now
		}
		return u, Mark
	}
	return u.backoff(now), None
}

func (u Unit) backoff(now time.Time) Unit {
	u.Exits++
	u.State, u.NotBefore = workload.Backoff, now.Add(delay(u.Exits))
	return u
}

// ends says whether the policy leaves the container ended after this exit.
func (u Unit) ends(e Event) bool {
	switch u.Restart.Policy {
	case workload.Always:
		return false
	case workload.OnFailure:
		return e == Succeeded || u.Restart.Max > 0 && u.Exits >= u.Restart.Max
	}
	return true
}

// hold is what Step makes of a request to stop.
func (u Unit) hold() (Unit, Action) {
	u.Held = true
	switch u.State {
	case workload.Waiting, workload.Stopping, workload.Stopped:
		return u, None // what is found, or the removal, decides
	case workload.Starting:
		return u, Cancel // its end leads to Stopping
	}
	return u.stopping()
}

// release is what Step makes of a request to start or restart.
func (u Unit) release(e Event) (Unit, Action) {
	u.Held = false
	switch u.State {
	case workload.Pending, workload.Backoff, workload.Ended, workload.Stopped:
	case workload.Running:
		if e == StartAsked {
			return u, None
		}
	default: // it is on its way
		return u, None
	}
	u.State, u.Exits = workload.Starting, 0
	return u, Start
}

func (u Unit) stopping() (Unit, Action) {
	u.State, u.Exits, u.NotBefore = workload.Stopping, 0, time.Time{}
	if u.Old != Alone {
		u.Old, u.Until = Leaving, time.Time{}
	}
	return u, Remove
}

// leaving is what Step makes of an event while the container is taken away.
func (u Unit) leaving(e Event, now time.Time) (Unit, Action) {
	if e == Removed {
		u.Old = Alone
	}
	switch {
	case e == Removed && u.Held:
		u.State, u.Exits = workload.Stopped, 0
	case e == Removed: // and started again meanwhile
		u.State, u.Exits = workload.Starting, 0
		return u, Start
	case e == RemoveFailed:
		u.Exits++
		u.NotBefore = now.Add(delay(u.Exits))
	case e == Timer && !u.NotBefore.IsZero() && !now.Before(u.NotBefore):
		u.NotBefore = time.Time{}
		return u, Remove
	}
	return u, None
}
