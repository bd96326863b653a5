package serve

import (
	"context"
	"fmt"
	"path"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/events"
	"kogge.example/update/fleet"
)

// audit makes events of what operators have done: of every call that changes something
// and went well; and a line of each error (see [inLine]). What a call is about is told by
// [deed]; of one that it does not know the name of its method is.
type audit struct {
	events  *events.Ring
	changes func(procedure string) bool // a method that is for more than looking
}

// note adds the event that a request and its answer amount to.
func (d *audit) note(ctx context.Context, procedure string, request, answer any) bool {
	q, ok := request.(proto.Message)
	if !ok {
		return false
	}
	a, _ := answer.(proto.Message)
	e, done := deed(q, a)
	if !done {
		return false
	}
	if e.Kind == "" {
		e = events.Event{Kind: events.Node, Object: path.Base(procedure), What: "called"}
	}
	e.By = door.Caller(ctx).Name
	d.events.Add(e)
	return true
}

func (d *audit) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		answer, err := next(ctx, r)
		if err == nil && d.changes(r.Spec().Procedure) {
			d.note(ctx, r.Spec().Procedure, r.Any(), answer.Any())
		}
		return answer, inLine(err)
	}
}

func (d *audit) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (d *audit) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if !d.changes(conn.Spec().Procedure) {
			return inLine(next(ctx, conn))
		}
		n := &auditedStream{StreamingHandlerConn: conn, ctx: ctx, audit: d}
		err := next(ctx, n)
		n.over(err)
		return inLine(err)
	}
}

// auditedStream is a stream whose first request and whose answers are looked at.
type auditedStream struct {
	connect.StreamingHandlerConn
	ctx     context.Context
	audit   *audit
	request any
	last    any
	told    bool
}

func (n *auditedStream) Receive(m any) error {
	err := n.StreamingHandlerConn.Receive(m)
	if err == nil && n.request == nil {
		if n.request = m; n.Spec().StreamType == connect.StreamTypeClient {
			n.request = m.(proto.Message).ProtoReflect().New().Interface() // not a part of a tar
		}
	}
	return err
}

func (n *auditedStream) Send(m any) error {
	err := n.StreamingHandlerConn.Send(m)
	n.last = m
	if part, ok := m.(*apiv1.ExecResponse); ok && (part.GetStarted() || part.GetEnd() != nil) {
		n.told = n.audit.note(n.ctx, n.Spec().Procedure, n.request, m)
	}
	return err
}

// over is the end of the stream: of a command that was told of already, and did not end
// by itself, that it was cut off.
func (n *auditedStream) over(err error) {
	part, command := n.last.(*apiv1.ExecResponse)
	switch {
	case command && n.told && part.GetEnd() == nil:
		n.audit.note(n.ctx, n.Spec().Procedure, n.request, &apiv1.ExecResponse{})
	case err == nil && !command:
		n.audit.note(n.ctx, n.Spec().Procedure, n.request, n.last)
	}
}

// deed says what a request that was granted has changed, and false for nothing. Of what
// may be a secret, such as the arguments of a command, it says nothing. An event without
// a kind is one that it does not know.
func deed(request, answer proto.Message) (events.Event, bool) {
	switch q := request.(type) {
	case *apiv1.RunRequest:
		what := strings.ToLower(strings.TrimPrefix(q.Action.String(), "ACTION_"))
		return events.Event{Kind: events.Container, Object: q.Container, What: what + " requested"}, true
	case *apiv1.ApplyRequest:
		a, _ := answer.(*apiv1.ApplyResponse)
		return events.Event{Kind: events.Project, Object: q.Project, What: "applied", Text: steps(a)}, !q.Check
	case *apiv1.RemoveProjectRequest:
		a, _ := answer.(*apiv1.ApplyResponse)
		return events.Event{Kind: events.Project, Object: q.Project, What: "removed", Text: steps(a)}, true
	case *apiv1.LoadImagesRequest:
		a, _ := answer.(*apiv1.LoadImagesResponse)
		return events.Event{Kind: events.Image, Object: strings.Join(a.GetNames(), " "), What: "loaded"}, true
	case *apiv1.PullImageRequest:
		a, _ := answer.(*apiv1.PullImageResponse)
		return events.Event{Kind: events.Image, Object: a.GetName(), What: "pulled", Text: a.GetDigest()}, true
	case *apiv1.RemoveImageRequest:
		return events.Event{Kind: events.Image, Object: q.Name, What: "removed"}, true
	case *apiv1.ExecRequest:
		return commandDeed(q, answer)
	case *apiv1.LoginRequest:
		return events.Event{Kind: events.Registry, Object: q.Host, What: "logged in"}, true
	case *apiv1.LogoutRequest:
		return events.Event{Kind: events.Registry, Object: q.Host, What: "logged out"}, true
	case *apiv1.SetRegistryRequest:
		return events.Event{Kind: events.Registry, Object: q.Host, What: "set"}, true
	case *apiv1.RestartServiceRequest:
		return events.Event{Kind: events.Service, Object: q.Service, What: "restart requested"}, true
	case *apiv1.RebootRequest:
		return events.Event{Kind: events.Node, Object: map[bool]string{false: "reboot", true: "poweroff"}[q.Poweroff], What: "requested"}, true
	case *apiv1.UpdateRequest:
		return slotDeed(answer)
	case *apiv1.RollbackRequest:
		return slotDeed(answer)
	case *apiv1.ForgetFailureRequest:
		return events.Event{Kind: events.Node, Object: "release " + q.Release, What: "may be tried again"}, true
	case *apiv1.AdoptRequest:
		return events.Event{Kind: events.Node, Object: "fleet", What: "adopted"}, len(q.Certificate) > 0
	case *apiv1.SucceedRequest:
		return events.Event{Kind: events.Node, Object: "fleet", What: "succeeded"}, true
	case *apiv1.TakeRequest:
		return events.Event{Kind: events.Node, Object: fmt.Sprintf("record %d", q.GetEntry().GetHeight()), What: "taken"}, true
	case *apiv1.RevokeRequest:
		var keys []string
		for _, k := range q.Keys {
			keys = append(keys, fleet.Short(k))
		}
		return events.Event{Kind: events.Operator, Object: strings.Join(keys, " "), What: "revoked"}, true
	case *apiv1.RenewRequest:
		return events.Event{Kind: events.Node, Object: "certificate", What: "renewed"}, true
	case *apiv1.SetTimeRequest:
		return events.Event{Kind: events.Node, Object: "clock", What: "set"}, true
	case *apiv1.SetConfigRequest:
		return events.Event{Kind: events.Node, Object: "node.yaml", What: "set"}, true
	case *apiv1.GetConfigRequest, *apiv1.OrderRequest, *apiv1.SubmitRequest, *apiv1.RestoreRequest, *apiv1.ProbeRequest: // the node tells of what follows
		return events.Event{}, false
	case *apiv1.BackupRequest:
		return events.Event{Kind: events.Node, Object: "etcd", What: "copied"}, true
	case *apiv1.SupportRequest:
		return events.Event{Kind: events.Node, Object: "support", What: "packed"}, true
	case *apiv1.ResetRequest:
		return events.Event{Kind: events.Node, Object: "reset", What: "requested"}, true
	case *apiv1.ConfirmConfigRequest:
		return events.Event{Kind: events.Node, Object: "node.yaml", What: "confirmed"}, true
	case *apiv1.UndoConfigRequest:
		return events.Event{Kind: events.Node, Object: "node.yaml", What: "undone"}, true
	}
	return events.Event{}, true
}

// steps counts what becomes of the containers of a project.
func steps(a *apiv1.ApplyResponse) string {
	var parts []string
	for _, change := range []string{"new", "replaced", "restarted", "unchanged", "gone"} {
		n := 0
		for _, s := range a.GetSteps() {
			if s.Change == change {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, change))
		}
	}
	return strings.Join(parts, ", ")
}

// slotDeed is about a slot that an update, or a rollback, has done with.
func slotDeed(answer proto.Message) (events.Event, bool) {
	a, _ := answer.(*apiv1.UpdateResponse)
	step := a.GetStep()
	if step == nil {
		return events.Event{}, false
	}
	return events.Event{Kind: events.Node, Object: "slot " + step.Slot, What: "armed", Text: "release " + step.Version}, true
}

// commandDeed is about a command in a container: its program, not its arguments.
func commandDeed(q *apiv1.ExecRequest, answer proto.Message) (events.Event, bool) {
	start := q.GetStart()
	if start == nil || len(start.Command) == 0 {
		return events.Event{}, false
	}
	e := events.Event{Kind: events.Command, Object: start.Container, What: "started", Text: start.Command[0]}
	a, _ := answer.(*apiv1.ExecResponse)
	switch end := a.GetEnd(); {
	case end != nil && end.Reason != "":
		e.What, e.Text = "start failed", end.Reason
	case end != nil:
		e.What, e.Text = "ended", fmt.Sprintf("%s: exit code %d", start.Command[0], end.Code)
	case !a.GetStarted():
		e.What, e.Text = "cut off", start.Command[0]
	}
	return e, true
}

var _ connect.Interceptor = (*audit)(nil)
