package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kogge.example/init/assess"
	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/update/memory"
)

// assessor owns the boot assessment.
type assessor struct {
	n *node
	// end reboots the node, for a reason.
	end context.CancelCauseFunc

	mu sync.Mutex // guards the fields below
	is assess.Assessment
}

// startAssessment begins to wait for the agent's word. end is called if the boot is to
// be over.
func (n *node) startAssessment(ctx context.Context, end context.CancelCauseFunc) *assessor {
	limit := n.config.Assessment().Timeout
	a := &assessor{n: n, end: end, is: assess.Assessment{State: assess.Pending, Since: time.Now(), Trial: n.boot.Trial, Limit: limit}}
	a.publish()
	guard.Go("boot assessment", func() {
		over := time.NewTimer(limit)
		defer over.Stop()
		select {
		case <-over.C:
			a.take(assess.Timeout, "")
		case <-ctx.Done():
		}
	})
	return a
}

// answer answers the agent.
func (a *assessor) answer(r control.Request) *control.Assessment {
	is := a.now()
	if r.Verdict != "" {
		is = a.take(assess.Event(r.Verdict), r.Why)
	}
	return &control.Assessment{State: string(is.State), Why: is.Why, Since: is.Since}
}

// observe looks for vital services that stay failed.
func (a *assessor) observe(s control.Status) {
	for _, one := range s.Services {
		if one.Vital && one.Failing {
			a.take(assess.Failing, fmt.Sprintf("service %s keeps failing: %s", one.Name, one.LastExit))
		}
	}
}

func (a *assessor) now() assess.Assessment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.is
}

// take does what [assess.Assessment.Step] says about an event.
func (a *assessor) take(e assess.Event, why string) assess.Assessment {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.is
	var action assess.Action
	a.is, action = a.is.Step(e, why, time.Now())
	if a.is != before {
		a.publish()
	}
	switch action {
	case assess.Bless:
		a.n.degraded.Clear(degradedBoot)
		a.n.degraded.Clear(degradedCount)
		is := a.is
		guard.Go("blessing", func() { a.bless(is) })
	case assess.Alarm:
		a.tell(a.is)
	case assess.Reboot:
		a.tell(a.is)
		a.end(fmt.Errorf("slot %s did not prove itself: %s", a.n.boot.Slot, a.is.Why))
	}
	if a.is.State == assess.Bad && a.is != before {
		a.n.degraded.Add(degradedBoot, errors.New(a.is.Why))
	}
	return a.is
}

// over is called when the node goes down. A boot that somebody ended in order before it
// could be assessed is no bad one; one that ends by its own fault is.
func (a *assessor) over(inOrder bool) {
	if inOrder && a.now().State == assess.Pending {
		if err := a.n.excuse(); err != nil {
			guard.Kmsg("count of boots: " + err.Error())
		}
	}
	a.n.words.sync()
}

// degradedBoot is what a bad boot is called in the status.
const degradedBoot = "boot assessment"

// degradedCount are too many of them in a row.
const degradedCount = "boots"

// tellLimit is how long a verdict may take to be written down. A dead disk must not
// keep a release on trial.
const tellLimit = 10 * time.Second

// tell shows a verdict and writes it into the history.
func (a *assessor) tell(is assess.Assessment) {
	a.n.say("kogge: " + is.Line(a.n.boot.Slot, a.n.boot.Version))
	e := memory.Event{Kind: memory.KindAssessed, Assessment: memory.Assessment(is.State), Why: is.Why, Seconds: int(sinceStart() / time.Second)}
	within(tellLimit, "history of boots", func() {
		a.n.degraded.Add("history of boots", a.n.note(e))
		a.n.words.sync()
	})
}

// within waits for do, but no longer than limit: a disk that does not answer is nobody's to
// wait for.
func within(limit time.Duration, name string, do func()) {
	done := make(chan struct{})
	guard.Go(name, func() {
		defer close(done)
		do()
	})
	select {
	case <-done:
	case <-time.After(limit):
		guard.Kmsg(name + ": not done within " + limit.String())
	}
}

// bless makes the slot a proven one, and then forgets its trial.
func (a *assessor) bless(is assess.Assessment) {
	a.insist("blessing of the slot", a.n.bless)
	err := a.n.passTrial()
	a.tell(is)
	if err != nil {
		a.insist("end of the trial", a.n.passTrial)
	}
	a.n.words.end()
	a.n.settle()
}

// insist does what belongs to a good boot. What keeps it from being written down is told,
// and it is tried again for as long as the node runs: a good boot is not ended over it.
func (a *assessor) insist(what string, do func() error) {
	said := ""
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := do()
		if err == nil {
			break
		}
		if err.Error() != said {
			said = err.Error()
			a.n.say(fmt.Sprintf("kogge: slot %s is good; %s: %s; trying again", a.n.boot.Slot, what, said))
		}
		a.n.degraded.Add(what, err)
		time.Sleep(pause)
	}
	a.n.degraded.Clear(what)
}

// publish writes the assessment down for programs of the node. a.mu is held, or nobody
// else knows of a.
func (a *assessor) publish() {
	facts := control.Assessment{State: string(a.is.State), Why: a.is.Why, Since: a.is.Since.UTC()}
	a.n.degraded.Add("boot facts", facts.Write(runDir))
}
