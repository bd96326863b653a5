package serve

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/init/control"
)

// upkeepService answers for what a node needs done now and then.
type upkeepService struct {
	node       *identity.Node
	machine    machine.Machine
	containers func() Containers
	images     func() Images
	output     string // folder of the containers' output

	packing sync.Mutex // held while an archive is packed
}

func (s *upkeepService) GetTime(context.Context, *connect.Request[apiv1.GetTimeRequest]) (*connect.Response[apiv1.GetTimeResponse], error) {
	c, err := control.ReadClock(s.machine.Folder())
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	answer := &apiv1.GetTimeResponse{
		Time: timestamppb.Now(), Sure: c.Synced, Source: c.Source, Single: c.Single, Offset: duration(c.Offset), Polled: moment(c.Polled),
		Servers: c.Servers, Problem: c.Problem, Floor: moment(c.Floor), Saved: moment(c.SavedAt),
		Jumped: moment(c.JumpAt), Jump: duration(c.Jump), ByHand: moment(c.ByHand),
	}
	for _, a := range c.Answers {
		answer.Answers = append(answer.Answers, &apiv1.TimeAnswer{Server: a.Server, Stratum: int32(a.Stratum), Offset: duration(a.Offset), Error: duration(a.Error)})
	}
	return connect.NewResponse(answer), nil
}

// moment is a time; none if it is not known.
func moment(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// duration is one as text; none if there is none.
func duration(text string) *durationpb.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil
	}
	return durationpb.New(d)
}

// clockLimit bounds a question to the clock service: it sets a hardware clock for it.
const clockLimit = 20 * time.Second

func (s *upkeepService) SetTime(ctx context.Context, r *connect.Request[apiv1.SetTimeRequest]) (*connect.Response[apiv1.SetTimeResponse], error) {
	if err := r.Msg.Time.CheckValid(); err != nil || r.Msg.Time == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the request has no time"))
	}
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	set, err := control.AskClock(ctx, s.machine.RunFile("clock.sock"), control.SetClock{To: r.Msg.Time.AsTime(), Back: r.Msg.Back})
	if err != nil {
		if errors.Is(err, control.ErrBeforeSaved) {
			return nil, api.Refuse(connect.CodeFailedPrecondition, apiv1.Reason_REASON_BEFORE_SAVED_TIME, err)
		}
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&apiv1.SetTimeResponse{Was: timestamppb.New(set.Was), Now: timestamppb.New(set.Now)}), nil
}
