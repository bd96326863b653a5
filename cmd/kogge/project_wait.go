package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
)

// awaitSteps waits until every container of the plan runs, has ended well or is stopped
// because somebody wants that, or says which one does not run and why.
func awaitSteps(ctx context.Context, c *api.Client, steps []*apiv1.Step) error {
	return awaitList(ctx, c, vainLimit, func(list *apiv1.ListResponse) arrival { return arrived(steps, list) })
}

// awaitGone waits until the node has no container of the project any more. What the plan of
// its removal says is not enough: a project whose file is refused has none in it.
func awaitGone(ctx context.Context, c *api.Client, project string) error {
	return awaitList(ctx, c, vainLimit, func(list *apiv1.ListResponse) arrival { return gone(project, list) })
}

// gone says whether the node has no container of the project.
func gone(project string, list *apiv1.ListResponse) arrival {
	return arrival{there: !slices.ContainsFunc(list.Containers, func(c *apiv1.Container) bool { return c.Project == project })}
}

// awaitList looks at the node's containers until they are where look wants them. What will
// not come is given up after the limit.
func awaitList(ctx context.Context, c *api.Client, limit time.Duration, look func(*apiv1.ListResponse) arrival) error {
	var vain time.Time // since when this is in vain; zero: it is not
	for {
		var now arrival
		list, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
		switch {
		case ctx.Err() != nil: // see below
		case err == nil && !list.Msg.Behind:
			now = look(list.Msg)
		case err == nil || api.ReasonOf(err) == apiv1.Reason_REASON_NOT_READY:
			now.vain = workloadsRefused(ctx, c)
		case connect.CodeOf(err) != connect.CodeUnavailable:
			return err
		}
		if now.vain == nil {
			vain = time.Time{}
		} else if vain.IsZero() {
			vain = time.Now()
		}
		switch {
		case now.there:
			for _, line := range now.rest {
				say("%s", line)
			}
			return nil
		case now.failed != nil:
			return now.failed
		case now.vain != nil && time.Since(vain) >= limit:
			return now.vain
		}
		select {
		case <-ctx.Done():
			return hinted{errors.New("not all of the containers run, or have gone, yet"), "kogge ps"}
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// workloadsRefused is why a node does not do what was asked: it leaves its containers as
// they are, for it refuses others; nil: it does not say that.
func workloadsRefused(ctx context.Context, c *api.Client) error {
	status, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil // the next look may tell
	}
	for _, s := range status.Msg.Services {
		if s.Name == "agent" && strings.HasPrefix(s.Text, wanted.Refused) {
			return hinted{fmt.Errorf("what runs stays as it is: %s", s.Text), "kogge projects lists the projects; kogge apply or kogge rm the one that is refused"}
		}
	}
	return nil
}

// vainLimit is how long something is waited for in vain until it is given up: the node may
// not have come to all of it yet.
const vainLimit = 10 * time.Second

// patience is how often in a row a container may end before apply gives it up: many
// end once or twice until what they need is there.
const patience = 3

// arrival is how far the containers of a plan are.
type arrival struct {
	there  bool
	rest   []string // which of them do not run, and why that is as it should be
	failed error    // one of them does not run
	vain   error    // one of them waits for another that will not come
}

// arrived says whether the containers are as the steps want them. One that has failed is
// told of once no other is on its way: it may have failed long before, and the apply has
// not touched it.
func arrived(steps []*apiv1.Step, list *apiv1.ListResponse) arrival {
	now := make(map[string]*apiv1.Container)
	for _, c := range list.Containers {
		now[c.Name] = c
	}
	a := arrival{there: true}
	var failed error // the first that has
	moves := false   // a container is on its way by itself
	for _, s := range steps {
		c := now[s.Container]
		switch {
		case s.Change == string(wanted.Gone):
			moves = moves || c != nil
		case c == nil:
			moves = true // the node has not come to it
		case c.State == string(workload.Backoff) && c.Exits >= patience:
			err := hinted{fmt.Errorf("apply: container %s does not run: %s", c.Name, c.Reason), "the node keeps trying: kogge ps, kogge logs " + c.Name}
			if s.Change != string(wanted.Unchanged) {
				return arrival{failed: err} // others may wait for it in vain
			}
			failed = cmp.Or(failed, error(err))
		case c.State == string(workload.Ended) && c.ExitCode != 0:
			hint := "kogge logs " + c.Name + "; kogge start " + c.Name + " runs it again"
			failed = cmp.Or(failed, error(hinted{fmt.Errorf("apply: container %s has ended: %s", c.Name, c.Reason), hint}))
		case c.State == string(workload.Stopped):
			a.rest = append(a.rest, fmt.Sprintf("container %s stays stopped (kogge start %s)", c.Name, c.Name))
		case rests(c, now):
			a.rest = append(a.rest, fmt.Sprintf("container %s does not start: %s", c.Name, c.Reason))
		case c.State == string(workload.Pending) && strings.HasPrefix(c.Reason, workload.DependsOn):
			a.there = false
			a.vain = hinted{fmt.Errorf("apply: container %s does not start: %s", c.Name, c.Reason), "kogge ps"}
		case c.State == string(workload.Pending):
			a.there = false // it comes after others
			moves = moves || comes(c, now)
		case c.OldServes || c.State != string(workload.Running) && c.State != string(workload.Ended):
			moves = true
		}
	}
	a.there = a.there && !moves
	switch {
	case failed == nil:
	case moves:
		a.vain = nil // what waits for the one that has failed is told of with it
	case a.there:
		return arrival{failed: failed}
	default: // it is what the others wait for, as a rule
		a.vain = failed
	}
	return a
}

// rests says that c is stopped, or waits for one that is, or for one that waits so.
func rests(c *apiv1.Container, now map[string]*apiv1.Container) bool {
	last, _ := waitsFor(c, now)
	return last != nil && last.State == string(workload.Stopped)
}

// comes says that what c waits for, maybe by way of others, may come to that by itself, and has
// not failed.
func comes(c *apiv1.Container, now map[string]*apiv1.Container) bool {
	last, later := waitsFor(c, now)
	if last == nil || !later {
		return false
	}
	switch workload.State(last.State) {
	case workload.Pending: // it waits in a circle
		return false
	case workload.Backoff:
		return last.Exits < patience
	case workload.Ended:
		return last.ExitCode == 0
	case workload.Running:
		return last.Health != string(workload.Unhealthy)
	}
	return true
}

// waitsFor is the last one of those that c waits for, one for the next: c itself if it does
// not wait, nil if there is none. later says that each of them may come to it by itself.
func waitsFor(c *apiv1.Container, now map[string]*apiv1.Container) (last *apiv1.Container, later bool) {
	last, later = c, true
	for range now { // no circle is longer
		if last == nil || last.State != string(workload.Pending) {
			break
		}
		rest, never := strings.CutPrefix(last.Reason, workload.DependsOn)
		rest, waits := strings.CutPrefix(rest, workload.WaitsFor)
		if !never && !waits {
			break
		}
		later = later && !never
		other, _, _ := strings.Cut(rest, " ")
		last = now[strings.TrimSuffix(other, ",")]
	}
	return last, later
}
