package trial

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/update/memory"
)

// Assessor owns the boot assessment.
type Assessor struct {
	boot *Boot
	// end reboots the node, for a reason.
	end context.CancelCauseFunc

	mu     sync.Mutex // guards the fields below
	is     Assessment
	spared bool // the boot is taken out of the count, or about to be
}

// Assess begins to wait for the agent's word: for limit at most, or until ctx is over. end is
// called if the boot is to be over.
func (b *Boot) Assess(ctx context.Context, limit time.Duration, end context.CancelCauseFunc) *Assessor {
	a := &Assessor{boot: b, end: end, is: Assessment{State: Pending, Since: time.Now(), Trial: b.Facts.Trial, Limit: limit}}
	a.publish()
	guard.Go("boot assessment", func() {
		over := time.NewTimer(limit)
		defer over.Stop()
		select {
		case <-over.C:
			a.take(Timeout, "")
		case <-ctx.Done():
		}
	})
	return a
}

// Answer takes the agent's word, if r has one, and says how the assessment stands then.
func (a *Assessor) Answer(r control.Request) *control.Assessment {
	is := a.now()
	if r.Verdict != "" {
		is = a.take(Event(r.Verdict), r.Why)
	}
	return &control.Assessment{State: string(is.State), Why: is.Why, Since: is.Since}
}

// Observe looks for vital services that stay failed.
func (a *Assessor) Observe(s control.Status) {
	for _, one := range s.Services {
		if one.Vital && one.Failing {
			a.take(Failing, fmt.Sprintf("service %s keeps failing: %s", one.Name, one.LastExit))
		}
	}
}

func (a *Assessor) now() Assessment {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.is
}

// take does what [Assessment.Step] says about an event.
func (a *Assessor) take(e Event, why string) Assessment {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.is
	var action Action
	a.is, action = a.is.Step(e, why, time.Now())
	if a.is != before {
		a.publish()
	}
	switch action {
	case Bless:
		a.boot.Degraded.Clear(degradedBoot)
		a.boot.Degraded.Clear(degradedCount)
		is := a.is
		guard.Go("blessing", func() { a.bless(is) })
	case Spare:
		a.boot.Degraded.Clear(degradedCount)
		if !a.spared { // once is enough, and the agent may say it again and again
			a.spared = true
			guard.Go("count of boots", func() { a.retryForever("count of boots", a.boot.spare) })
		}
	case Alarm:
		a.tell(a.is)
	case Reboot:
		a.tell(a.is)
		a.end(fmt.Errorf("slot %s did not prove itself: %s", a.boot.Facts.Slot, a.is.Why))
	}
	if a.is.State == Bad && a.is != before {
		a.boot.Degraded.Add(degradedBoot, errors.New(a.is.Why))
	}
	return a.is
}

// Over is called when the node goes down. A boot that somebody ended in order before it
// could be assessed is no bad one; one that ends by its own fault is.
func (a *Assessor) Over(inOrder bool) {
	if inOrder && a.now().State == Pending {
		if err := a.boot.excuse(); err != nil {
			guard.Kmsg("count of boots: " + err.Error())
		}
	}
	a.boot.log.sync()
}

// degradedBoot is what a bad boot is called in the status.
const degradedBoot = "boot assessment"

// degradedCount are too many of them in a row.
const degradedCount = "boots"

// tellLimit is how long a verdict may take to be written down. A dead disk must not
// keep a release on trial.
const tellLimit = 10 * time.Second

// tell shows a verdict and writes it into the history.
func (a *Assessor) tell(is Assessment) {
	a.boot.Say("kogge: " + is.Line(a.boot.Facts.Slot, a.boot.Facts.Version))
	e := memory.Event{Kind: memory.KindAssessed, Assessment: memory.Assessment(is.State), Why: is.Why, Seconds: int(sinceStart() / time.Second)}
	guard.Within(tellLimit, "history of boots", func() {
		a.boot.Degraded.Add("history of boots", a.boot.note(e))
		a.boot.log.sync()
	})
}

// bless makes the slot a proven one, and then forgets its trial.
func (a *Assessor) bless(is Assessment) {
	a.retryForever("blessing of the slot", a.boot.bless)
	err := a.boot.passTrial()
	a.tell(is)
	if err != nil {
		a.retryForever("end of the trial", a.boot.passTrial)
	}
	a.boot.log.end()
	// A good boot leaves nothing behind, so there is time for how the one before it ended.
	a.boot.collect(nil)
}

// retryForever does what belongs to a good boot. What keeps it from being written down is told,
// and it is tried again for as long as the node runs: a good boot is not ended over it.
func (a *Assessor) retryForever(what string, do func() error) {
	said := ""
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := do()
		if err == nil {
			break
		}
		if err.Error() != said {
			said = err.Error()
			a.boot.Say(fmt.Sprintf("kogge: slot %s: %s: %s; trying again", a.boot.Facts.Slot, what, said))
		}
		a.boot.Degraded.Add(what, err)
		time.Sleep(pause)
	}
	a.boot.Degraded.Clear(what)
}

// publish writes the assessment down for programs of the node. a.mu is held, or nobody
// else knows of a.
func (a *Assessor) publish() {
	facts := control.Assessment{State: string(a.is.State), Why: a.is.Why, Since: a.is.Since.UTC()}
	a.boot.Degraded.Add("boot facts", facts.Write(a.boot.Run))
}
