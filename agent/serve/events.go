package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/events"
	"kogge.example/agent/machine"
)

// observeService answers for what happens and what is used.
type observeService struct {
	events     *events.Ring
	machine    machine.Machine
	containers func() Containers
}

// maxEvents is how many events go in one message.
const maxEvents = 100

func (s *observeService) Events(ctx context.Context, r *connect.Request[apiv1.EventsRequest], out *connect.ServerStream[apiv1.EventsResponse]) error {
	wanted, err := wantedKinds(r.Msg.Kinds)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	if r.Msg.Tail < 0 || r.Msg.Since.AsDuration() < 0 {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("tail or since is negative"))
	}
	now, _, more := s.events.After(0)
	last := uint64(0)
	if len(now) > 0 {
		last = now[len(now)-1].Number
	}
	old := slices.DeleteFunc(now, func(e events.Event) bool {
		// By the monotonic clock, which no correction of the time moves.
		return !wanted(e) || r.Msg.Since != nil && time.Since(e.Time) > r.Msg.Since.AsDuration()
	})
	if tail := int(r.Msg.Tail); tail > 0 && len(old) > tail {
		old = old[len(old)-tail:]
	}
	if err := sendEvents(out, old, 0); err != nil || !r.Msg.Follow {
		return err
	}
	if len(old) == 0 { // the headers: the caller learns that it is heard
		if err := out.Send(&apiv1.EventsResponse{}); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-more:
		}
		var fresh []events.Event
		var missed uint64
		fresh, missed, more = s.events.After(last)
		if len(fresh) > 0 {
			last = fresh[len(fresh)-1].Number
		}
		fresh = slices.DeleteFunc(fresh, func(e events.Event) bool { return !wanted(e) })
		if err := sendEvents(out, fresh, missed); err != nil {
			return err
		}
	}
}

// wantedKinds chooses the events of some kinds, or of all if there are none.
func wantedKinds(kinds []string) (func(events.Event) bool, error) {
	for _, k := range kinds {
		if !slices.Contains(events.Kinds, events.Kind(k)) {
			return nil, fmt.Errorf("unknown kind of event %q: expected one of %v", k, events.Kinds)
		}
	}
	return func(e events.Event) bool { return len(kinds) == 0 || slices.Contains(kinds, string(e.Kind)) }, nil
}

func sendEvents(out *connect.ServerStream[apiv1.EventsResponse], all []events.Event, missed uint64) error {
	for len(all) > 0 || missed > 0 {
		answer := &apiv1.EventsResponse{Missed: missed}
		n := min(len(all), maxEvents)
		for _, e := range all[:n] {
			answer.Events = append(answer.Events, &apiv1.Event{
				Number: e.Number, Time: timestamppb.New(e.Time), Kind: string(e.Kind), Object: e.Object, What: e.What, By: e.By, Text: e.Text,
			})
		}
		if err := out.Send(answer); err != nil {
			return err
		}
		all, missed = all[n:], 0
	}
	return nil
}
