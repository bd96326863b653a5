package keeper

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"kogge.example/agent/workload"
)

// HealthEvent is something that happened to a health check.
type HealthEvent string

// The events of a health check.
const (
	Up     HealthEvent = "up"     // its container was started
	Seen   HealthEvent = "found"  // its container was found running
	Due    HealthEvent = "due"    // Next has come
	Passed HealthEvent = "passed" // a test ended with 0
	Missed HealthEvent = "missed" // a test ended otherwise, or did not end in time
	Down   HealthEvent = "down"   // its container does not run any more
)

// Check is the state of one container's health check:
//
//	starting ─Passed─▶ healthy ─Retries × Missed─▶ unhealthy ─Passed─▶ healthy
//	    └─Retries × Missed, those in the start period left out─▶ unhealthy
//
// What waits for a container to be healthy goes on waiting while it is not.
type Check struct {
	State workload.HealthState
	// Failures counts tests missed in a row.
	Failures int
	// Testing says that one is under way: there is never a second one.
	Testing bool
	// Since is when the container started; zero if that was long ago.
	Since time.Time
	// Next is when the next test is due.
	Next time.Time
}

// shortest is the shortest pause between two tests, whatever was asked for: each is
// a start of runc, and 50 containers may be tested.
const shortest = 500 * time.Millisecond

// Step says what event e makes of the check h and whether a test is to be started.
// It starts nothing and reads no clock; what comes too late or twice changes nothing.
func (c Check) Step(h workload.Health, e HealthEvent, now time.Time) (Check, bool) {
	switch {
	case e == Down:
		return Check{}, false
	case e == Up:
		c = Check{State: workload.HealthStarting, Since: now}
		c.Next = now.Add(c.pause(h, now))
	case e == Seen:
		c = Check{State: workload.HealthStarting, Next: now}
	case e == Due && c.State != workload.Unchecked && !c.Testing && !now.Before(c.Next):
		c.Testing = true
		return c, true
	case e == Passed && c.Testing:
		c.State, c.Failures, c.Testing = workload.Healthy, 0, false
		c.Next = now.Add(c.pause(h, now))
	case e == Missed && c.Testing:
		c.Testing = false
		if !c.young(h, now) {
			c.Failures++
		}
		if c.Failures >= h.Retries {
			c.State = workload.Unhealthy
		}
		c.Next = now.Add(c.pause(h, now))
	}
	return c, false
}

// young says whether a test that is missed does not count yet.
func (c Check) young(h workload.Health, now time.Time) bool {
	return c.State == workload.HealthStarting && !c.Since.IsZero() && now.Sub(c.Since) < h.StartPeriod
}

func (c Check) pause(h workload.Health, now time.Time) time.Duration {
	if c.young(h, now) {
		return max(h.StartInterval, shortest)
	}
	return max(h.Interval, shortest)
}

// health is c's check. A container whose check cannot be read runs without.
func (k *Keeper) health(ctx context.Context, c workload.Container) workload.Health {
	check, err := k.Engine.Health(ctx, c)
	if err != nil && ctx.Err() == nil && !errors.Is(err, workload.ErrNoImage) {
		log.Printf("container %s: no health check: %s", c.ID, workload.Line(err.Error()))
	}
	return check
}

// inspect does what Check.Step says about an event of u's health check.
func (k *Keeper) inspect(ctx context.Context, u *unit, e event) {
	defer k.considerHandover(ctx, u)
	if len(u.health.Test) == 0 {
		return
	}
	before := u.check.State
	var test bool
	u.check, test = u.check.Step(u.health, e.health, k.Now())
	switch e.health {
	case Passed, Missed:
		u.tested, u.output = k.Now(), e.output
	case Up, Seen:
		u.tested, u.output = time.Time{}, ""
	}
	if u.check.State != before && (e.health == Passed || e.health == Missed) {
		log.Printf("container %s: %s: %s", u.want.ID, u.check.State, lastLine(u.output))
	}
	if test {
		k.test(ctx, u)
	}
}

// lastLine is what a log has room for of a test's output.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return fmt.Sprintf("%.200q", text)
}

// test asks a running container whether it works, beside the loop.
func (k *Keeper) test(ctx context.Context, u *unit) {
	id, name, run, health := u.want.ID, u.now.Name, u.run, u.health
	k.workers.Go(func() {
		good, output := k.Engine.Test(ctx, name, health)
		e := event{id: id, run: run, health: Missed, output: output}
		if good {
			e.health = Passed
		}
		k.send(ctx, e)
	})
}
