package supervise

import "time"

// State is where a service stands:
//
//	Waiting ─Unblocked─▶ Starting ─Ready─▶ Running      (without Notify: Running at once)
//	                        │                 │
//	                        ├─────Exited──────┤
//	                        ▼                 ▼
//	Backoff ◀─ up to 4 exits in a row, from the 5th on ─▶ Failed
//	   └─Timer─▶ Starting                  Starting ◀─Timer (15 s … 5 min)─┘
//
//	Starting, Running ─Stop, Restart, no READY=1, no WATCHDOG=1─▶ Stopping
//	Stopping ─Timer─▶ Stopping, with SIGKILL
//	Stopping ─Exited─▶ Stopped, Starting, or Backoff/Failed, whichever was the goal
//
// Sixty seconds of running forget the exits. A service is never given up: a
// vital one that stays Failed makes the boot assessment bad; on a proven slot it
// is retried for ever.
type State string

const (
	Waiting  State = "waiting"
	Starting State = "starting"
	Running  State = "running"
	Backoff  State = "backoff"
	Failed   State = "failed"
	Stopping State = "stopping"
	Stopped  State = "stopped"
)

// Event is what happens to a service.
type Event string

const (
	// Unblocked: the services named in After are ready, or will not be soon.
	Unblocked Event = "unblocked"
	// Ready: it said READY=1.
	Ready Event = "ready"
	// Pinged: it said WATCHDOG=1.
	Pinged Event = "pinged"
	// Hung: it said of itself that it hangs, with WATCHDOG=trigger.
	Hung Event = "hung"
	// Exited: its main process is gone, or could not be started.
	Exited Event = "exited"
	// Timer: a moment named by [Life.Next] may have come.
	Timer Event = "timer"
	// Stop: it is to end and stay so.
	Stop Event = "stop"
	// Restart: it is to end and start anew.
	Restart Event = "restart"
)

// Action is what PID 1 does about an event.
type Action string

const (
	None      Action = "none"
	Start     Action = "start"
	Terminate Action = "terminate" // SIGTERM to its main process
	Abort     Action = "abort"     // SIGABRT to its main process
	Kill      Action = "kill"      // SIGKILL to all it ever started
)

const (
	// maxExits in a row make a service Failed.
	maxExits = 5
	// forget is the time of running that forgets the exits.
	forget = time.Minute
	// abortTimeout is what a hung service has to print its goroutines.
	abortTimeout = 5 * time.Second
	// killAgain is the pause between two SIGKILL for a process that does not die
	// of one, because it hangs in the kernel.
	killAgain = 10 * time.Second
	// stuckAfter is when such a process counts as stuck: longer than a bad
	// SD card takes for one sync.
	stuckAfter = time.Minute
)

// Life is the state of one service and what decides about its next one.
type Life struct {
	// Notify and the timeouts are the service's, defaults filled in.
	Notify                                     bool
	StartTimeout, StopTimeout, WatchdogTimeout time.Duration

	State State
	// Since is when it came into State.
	Since time.Time
	// Exits in a row that it did not mean to.
	Exits int
	// Goal is where Stopping leads: Stopped, Starting or Backoff.
	Goal State
	// Due is when State is over by itself; zero: never.
	Due time.Time
	// PingBy is when the next WATCHDOG=1 is missed; zero: none is expected.
	PingBy time.Time
	// Killed is when the process first got SIGKILL; zero while it has none.
	Killed time.Time
}

// newLife is the life of s before its start.
func newLife(s Service, now time.Time) Life {
	l := Life{
		Notify: s.Notify, State: Waiting, Since: now,
		StartTimeout: s.StartTimeout, StopTimeout: s.StopTimeout, WatchdogTimeout: s.WatchdogTimeout,
	}
	if s.OnDemand {
		l.State = Stopped
	}
	if l.StartTimeout == 0 {
		l.StartTimeout = defaultStart
	}
	if l.StopTimeout == 0 {
		l.StopTimeout = defaultStop
	}
	return l
}

// Step says what event e makes of the service and what PID 1 does about it. It
// starts nothing and reads no clock, so a test walks it through a day in no time.
func (l Life) Step(e Event, now time.Time) (Life, Action) {
	switch l.State {
	case Waiting:
		switch e {
		case Unblocked:
			return l.start(now), Start
		case Stop:
			return l.enter(Stopped, now), None
		}
	case Starting, Running:
		return l.alive(e, now)
	case Backoff, Failed:
		switch {
		case e == Timer && l.due(now), e == Restart:
			return l.start(now), Start
		case e == Stop:
			return l.enter(Stopped, now), None
		}
	case Stopping:
		return l.stopping(e, now)
	case Stopped:
		if e == Restart {
			return l.start(now), Start
		}
	}
	return l, None // late timers and second stops are part of life
}

// alive is Step for a service with a process that is not to end.
func (l Life) alive(e Event, now time.Time) (Life, Action) {
	switch e {
	case Exited:
		return l.exited(now), None
	case Stop:
		return l.stop(Stopped, l.StopTimeout, now), Terminate
	case Restart:
		return l.stop(Starting, l.StopTimeout, now), Terminate
	case Hung:
		return l.stop(Backoff, abortTimeout, now), Abort
	case Ready:
		if l.State == Starting {
			return l.run(now), None
		}
	case Pinged:
		if !l.PingBy.IsZero() {
			l.PingBy = now.Add(l.WatchdogTimeout)
		}
	case Timer:
		switch {
		case l.State == Starting && l.due(now): // never READY=1
			return l.stop(Backoff, l.StopTimeout, now), Terminate
		case !l.PingBy.IsZero() && !now.Before(l.PingBy):
			return l.stop(Backoff, abortTimeout, now), Abort
		case l.State == Running && l.due(now):
			l.Exits, l.Due = 0, time.Time{}
		}
	}
	return l, None
}

// stopping is Step for a service that was told to end.
func (l Life) stopping(e Event, now time.Time) (Life, Action) {
	switch e {
	case Exited:
		switch l.Goal {
		case Starting:
			return l.start(now), Start
		case Backoff:
			return l.exited(now), None
		}
		return l.enter(Stopped, now), None
	case Stop:
		l.Goal = Stopped
	case Restart:
		if l.Goal == Backoff { // a Stop holds
			l.Goal = Starting
		}
	case Timer:
		if l.due(now) {
			if l.Killed.IsZero() {
				l.Killed = now
			}
			l.Due = now.Add(killAgain)
			return l, Kill
		}
	}
	return l, None
}

// enter changes the state and forgets what belonged to the old one.
func (l Life) enter(s State, now time.Time) Life {
	l.State, l.Since = s, now
	l.Goal, l.Due, l.PingBy, l.Killed = "", time.Time{}, time.Time{}, time.Time{}
	return l
}

func (l Life) start(now time.Time) Life {
	if !l.Notify {
		return l.run(now)
	}
	l = l.enter(Starting, now)
	l.Due = now.Add(l.StartTimeout)
	return l
}

func (l Life) run(now time.Time) Life {
	l = l.enter(Running, now)
	if l.Exits > 0 {
		l.Due = now.Add(forget)
	}
	if l.WatchdogTimeout > 0 {
		l.PingBy = now.Add(l.WatchdogTimeout)
	}
	return l
}

func (l Life) stop(goal State, patience time.Duration, now time.Time) Life {
	if l.State == Running && now.Sub(l.Since) >= forget {
		l.Exits = 0 // it ran well before it came to this
	}
	l = l.enter(Stopping, now)
	l.Goal, l.Due = goal, now.Add(patience)
	return l
}

func (l Life) exited(now time.Time) Life {
	if l.State == Running && now.Sub(l.Since) >= forget {
		l.Exits = 0
	}
	l.Exits++
	s := Backoff
	if l.Failing() {
		s = Failed
	}
	l = l.enter(s, now)
	l.Due = now.Add(pause(l.Exits))
	return l
}

// pause is the time before the next start, after so many exits in a row.
func pause(exits int) time.Duration {
	pauses := [...]time.Duration{
		100 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, // Backoff
		15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, // Failed
	}
	return pauses[min(max(exits, 1), len(pauses))-1]
}

func (l Life) due(now time.Time) bool { return !l.Due.IsZero() && !now.Before(l.Due) }

// Next is the moment at which Timer has something to do; zero: never.
func (l Life) Next() time.Time {
	if l.Due.IsZero() || !l.PingBy.IsZero() && l.PingBy.Before(l.Due) {
		return l.PingBy
	}
	return l.Due
}

// Failing says that it exited too often in a row, though it may just be trying again.
func (l Life) Failing() bool { return l.Exits >= maxExits }

// Stuck says that it got SIGKILL long before now and is still there.
func (l Life) Stuck(now time.Time) bool {
	return !l.Killed.IsZero() && now.Sub(l.Killed) >= stuckAfter
}
