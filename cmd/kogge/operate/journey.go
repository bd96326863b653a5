package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

// followEvery is how often a node that reboots is asked, followTry the limit of an answer.
const (
	followEvery = time.Second
	followTry   = 10 * time.Second
)

// ErrNoAssessment says that a node was followed until the time was over, and what became of
// the slot is not known.
var ErrNoAssessment = errors.New("no boot assessment")

// Follow waits until the slot that the journey goes to has proven itself, or the node has
// left it, which is an error. show is told each step, and each second what the node is
// waited for to do and for how long: the step "following". An error of show ends it. When ctx
// is over by itself, the error is ctx's; after limit it wraps [ErrNoAssessment].
func (r Remote) Follow(ctx context.Context, trip Journey, limit time.Duration, show func(step *apiv1.UpdateStep, waited time.Duration) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	for {
		var now *apiv1.ListSlotsResponse
		err := r.Call(limited, func(ctx context.Context, c *api.Client) error {
			ctx, cancel := context.WithTimeout(ctx, followTry)
			defer cancel()
			answer, err := c.ListSlots(ctx, connect.NewRequest(&apiv1.ListSlotsRequest{}))
			if err == nil {
				now = answer.Msg
			}
			return err
		})
		step, over, failed := trip.Next(now, err)
		waited := time.Since(began)
		if step == nil {
			step = &apiv1.UpdateStep{Step: "following", Slot: trip.Armed.Slot, Version: trip.Armed.Version, Text: trip.Where()}
		}
		if err := show(step, waited); err != nil {
			return err
		}
		if over {
			return failed
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				err = errors.New(trip.Where())
			}
			return fmt.Errorf("%w of slot %s after %s: %w", ErrNoAssessment, trip.Armed.Slot, limit, err)
		case <-time.After(followEvery):
		}
	}
}

// Journey is a node on its way into its other slot, as one sees it from outside:
//
//	leaving ─other boot─▶ trying ─good─▶ proven
//	   └────(silence)───────┴────back in the old slot──▶ failed
//
// It may be seen in the new slot several times, once for each try, or never.
type Journey struct {
	From  *apiv1.ListSlotsResponse // before it began
	Armed *apiv1.UpdateStep        // with the slot that it goes to

	silent bool
	boot   string // the last one that was seen, by its id
	told   string
}

// Next is what a look at the node says: the step to show, nil if nothing is new, whether
// that is the end, and why it is not a good one. now is nil where the node did not
// answer, with err.
func (j *Journey) Next(now *apiv1.ListSlotsResponse, err error) (step *apiv1.UpdateStep, over bool, failed error) {
	j.silent = now == nil
	if now == nil || now.BootId == j.From.BootId {
		return nil, false, nil
	}
	tell := func(what, format string, args ...any) *apiv1.UpdateStep {
		text := fmt.Sprintf(format, args...)
		if key := now.BootId + what + text; key != j.told {
			j.told = key
			return &apiv1.UpdateStep{Step: what, Slot: j.Armed.Slot, Version: j.Armed.Version, Digest: j.Armed.Digest, Text: text}
		}
		return nil
	}
	j.boot = now.BootId
	slot, other := slotsOf(now, j.Armed.Slot)
	switch {
	case slot == nil || other == nil:
		return nil, true, errors.New("it does not say which slot it runs")
	case !slot.Running:
		why := slot.Text
		if why == "" {
			why = "it did not prove itself"
		}
		failed := fmt.Errorf("release %s in slot %s: %s; slot %s runs release %s as before", j.Armed.Version, j.Armed.Slot, why, other.Slot, other.Version)
		return tell("failed", "slot %s runs release %s as before", other.Slot, other.Version), true, failed
	case now.Assessment == "good":
		return tell("proven", "boot assessment: good, slot %s, release %s", slot.Slot, slot.Version), true, nil
	case now.Assessment == "bad":
		return tell("bad", "boot assessment: bad: %s", now.Why), false, nil
	}
	return tell("trying", "slot %s runs release %s on trial, tries left: %d", slot.Slot, slot.Version, slot.TriesLeft), false, nil
}

// Where is what the node is waited for to do.
func (j *Journey) Where() string {
	switch {
	case j.boot == "" && !j.silent:
		return "it stops its containers and services"
	case j.silent:
		return "it reboots"
	}
	return "it is on trial"
}

// slotsOf returns the slot of a name and the other one.
func slotsOf(all *apiv1.ListSlotsResponse, name string) (slot, other *apiv1.Slot) {
	for _, s := range all.Slots {
		if s.Slot == name {
			slot = s
		} else {
			other = s
		}
	}
	return slot, other
}
