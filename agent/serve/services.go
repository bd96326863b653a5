package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/identity"
	"kogge.example/agent/logs"
	"kogge.example/agent/machine"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/fleet"
)

// nodeService answers for the machine.
type nodeService struct {
	node    *identity.Node
	machine machine.Machine
	end     func(keys []string) // ends the calls of those who have them
}

func (s *nodeService) Status(ctx context.Context, _ *connect.Request[apiv1.StatusRequest]) (*connect.Response[apiv1.StatusResponse], error) {
	status := s.machine.Status(ctx)
	status.Fleet, status.Node = s.node.Genesis().ID(), s.node.Name()
	return connect.NewResponse(status), nil
}

func (s *nodeService) ServiceLogs(ctx context.Context, r *connect.Request[apiv1.ServiceLogsRequest], out *connect.ServerStream[apiv1.LogLines]) error {
	c, err := s.machine.Pid1(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &logs.Batch{Send: out.Send}
	err = c.Logs(ctx, r.Msg.Service, int(r.Msg.Tail), r.Msg.Follow, func(line string) {
		err := b.Add(line)
		if err == nil && r.Msg.Follow {
			err = b.Flush()
		}
		if err != nil {
			cancel(err) // the caller has gone
		}
	})
	switch {
	case errors.Is(err, control.ErrNoService):
		return api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_SERVICE, err)
	case err != nil:
		return connect.NewError(connect.CodeUnavailable, err)
	}
	return b.Flush()
}

func (s *nodeService) KernelLog(ctx context.Context, r *connect.Request[apiv1.KernelLogRequest], out *connect.ServerStream[apiv1.LogLines]) error {
	return logs.Kernel(ctx, s.machine.KernelLog(), r.Msg.Follow, &logs.Batch{Send: out.Send})
}

func (s *nodeService) RestartService(ctx context.Context, r *connect.Request[apiv1.RestartServiceRequest]) (*connect.Response[apiv1.RestartServiceResponse], error) {
	err := s.ask(ctx, func(c *control.Client) error { return c.Restart(ctx, r.Msg.Service) })
	return connect.NewResponse(&apiv1.RestartServiceResponse{}), err
}

func (s *nodeService) Reboot(ctx context.Context, r *connect.Request[apiv1.RebootRequest]) (*connect.Response[apiv1.RebootResponse], error) {
	err := s.ask(ctx, func(c *control.Client) error {
		if r.Msg.Poweroff {
			return c.Poweroff(ctx)
		}
		return c.Reboot(ctx)
	})
	return connect.NewResponse(&apiv1.RebootResponse{}), err
}

// ask has PID 1 do something.
func (s *nodeService) ask(ctx context.Context, what func(*control.Client) error) error {
	c, err := s.machine.Pid1(ctx)
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	defer c.Close()
	if err := what(c); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return nil
}

func (s *nodeService) Adopt(ctx context.Context, r *connect.Request[apiv1.AdoptRequest]) (*connect.Response[apiv1.AdoptResponse], error) {
	if len(r.Msg.Nonce) != api.NonceSize {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("nonce has %d bytes, expected %d", len(r.Msg.Nonce), api.NonceSize))
	}
	answer := &apiv1.AdoptResponse{Hostname: s.machine.Hostname()}
	if len(r.Msg.Certificate) > 0 {
		err := notOwnKey(ctx, r.Msg.Revoked)
		if err == nil {
			err = s.node.AdoptKnowing(r.Msg.Revoked, r.Msg.Certificate)
		}
		if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
		return connect.NewResponse(answer), nil
	}
	var err error
	if answer.Request, answer.Mac, err = s.node.Answer(r.Msg.Nonce); err != nil {
		if errors.Is(err, identity.ErrAdopted) {
			return nil, connect.NewError(connect.CodeAlreadyExists, err)
		}
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(answer), nil
}

func (s *nodeService) Renew(_ context.Context, r *connect.Request[apiv1.RenewRequest]) (*connect.Response[apiv1.RenewResponse], error) {
	if bytes.Equal(r.Msg.Certificate, s.node.Certificate().Certificate[0]) {
		return connect.NewResponse(&apiv1.RenewResponse{}), nil
	}
	if err := s.node.Renew(r.Msg.Certificate); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	log.Printf("api: the certificate of this node is now valid until %s", s.node.Certificate().Leaf.NotAfter.UTC().Format(time.DateOnly))
	return connect.NewResponse(&apiv1.RenewResponse{}), nil
}

func (s *nodeService) Revoke(ctx context.Context, r *connect.Request[apiv1.RevokeRequest]) (*connect.Response[apiv1.RevokeResponse], error) {
	err := notOwnKey(ctx, r.Msg.Keys)
	if err == nil {
		err = s.node.Revoke(r.Msg.Keys...)
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	s.end(r.Msg.Keys)
	return connect.NewResponse(&apiv1.RevokeResponse{}), nil
}

// notOwnKey wants that the caller's own key is not among keys: with it he might lock the
// last admin out.
func notOwnKey(ctx context.Context, keys []string) error {
	if peer := door.Caller(ctx); slices.Contains(keys, peer.Key) {
		return fmt.Errorf("revoke key %s: it is your own key", fleet.Short(peer.Key))
	}
	return nil
}

// Containers is the keeper of the containers, as far as the API asks it.
type Containers interface {
	Snapshot() workload.Status
	Request(ctx context.Context, id string, want workload.Want) error
}

// Projects are the Compose files that were applied to the node.
type Projects interface {
	Apply(project string, text []byte, check bool) (wanted.Plan, []nodeconfig.Problem, error)
	Remove(project string) (wanted.Plan, error)
	Projects() ([]string, error)
	// Check says what would become of the node's containers if own were those of its
	// node.yaml.
	Check(own []workload.Container) (wanted.Plan, error)
}

// workloadService answers for the containers.
type workloadService struct {
	containers func() Containers
	projects   func() Projects
	commands   func() Commands
	logs       string
}

// errNotReady is the answer before containerd serves.
var errNotReady = errors.New("the containers are not known yet: containerd is still starting, or the workloads were refused")

// known is what get returns, or the answer of a node that has nothing there yet.
func known[T comparable](get func() T) (T, error) {
	var none T
	if got := get(); got != none {
		return got, nil
	}
	return none, api.Refuse(connect.CodeUnavailable, apiv1.Reason_REASON_NOT_READY, errNotReady)
}

func (s *workloadService) List(context.Context, *connect.Request[apiv1.ListRequest]) (*connect.Response[apiv1.ListResponse], error) {
	keeper, err := known(s.containers)
	if err != nil {
		return nil, err
	}
	status := keeper.Snapshot()
	answer := &apiv1.ListResponse{Trouble: status.Trouble}
	for _, u := range status.Units {
		answer.Containers = append(answer.Containers, container(u))
	}
	return connect.NewResponse(answer), nil
}

// container is one line of the list.
func container(u workload.UnitStatus) *apiv1.Container {
	project, _ := workload.Split(u.ID)
	c := &apiv1.Container{
		Name: u.ID, Project: project, OldServes: u.OldServes, Image: u.Image, State: string(u.State), Health: string(u.Health.State), HealthOutput: u.Health.Output,
		Exits: int32(u.Exits), Restarts: int32(u.Restarts), Reason: u.Reason,
	}
	for _, a := range u.At {
		c.Networks = append(c.Networks, &apiv1.ContainerNetwork{Name: a.Network, Address: a.Addr.String()})
	}
	for _, p := range u.Ports {
		host := ""
		if p.HostIP.IsValid() {
			host = p.HostIP.String() + ":"
		}
		c.Ports = append(c.Ports, fmt.Sprintf("%s%d:%d/%s", host, p.HostPort, p.Container, p.Protocol))
	}
	if u.Pull != nil {
		c.Pull = &apiv1.Pull{Done: u.Pull.Done, Total: u.Pull.Total}
	}
	if !u.StartedAt.IsZero() {
		c.Started = timestamppb.New(u.StartedAt)
	}
	return c
}

// containerName is what a container can be called: its service, with its project before
// it where it has one. Anything else would be a path.
var containerName = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]{0,62}\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// find returns the container that the caller calls name.
func find(keeper Containers, name string) (workload.UnitStatus, error) {
	u, err := keeper.Snapshot().Find(name)
	switch {
	case errors.Is(err, workload.ErrAmbiguous):
		err = connect.NewError(connect.CodeInvalidArgument, err)
	case err != nil:
		err = api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_CONTAINER, fmt.Errorf("there is no container %s here", name))
	}
	return u, err
}

func (s *workloadService) Logs(ctx context.Context, r *connect.Request[apiv1.LogsRequest], out *connect.ServerStream[apiv1.LogLines]) error {
	if !containerName.MatchString(r.Msg.Container) {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not the name of a container", r.Msg.Container))
	}
	if r.Msg.Tail < 0 {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("tail is negative"))
	}
	id := r.Msg.Container
	if keeper := s.containers(); keeper != nil {
		u, err := find(keeper, id)
		if err != nil {
			return err
		}
		id = u.ID
	}
	o := &logs.Output{File: filepath.Join(s.logs, id+".log"), To: &logs.Batch{Send: out.Send}}
	if err := o.Send(ctx, int(r.Msg.Tail), r.Msg.Follow); err != nil && !errors.Is(err, logs.ErrNoOutput) {
		return err
	}
	return nil
}

func (s *workloadService) Run(ctx context.Context, r *connect.Request[apiv1.RunRequest]) (*connect.Response[apiv1.RunResponse], error) {
	want, ok := map[apiv1.Action]workload.Want{
		apiv1.Action_ACTION_START: workload.WantStarted, apiv1.Action_ACTION_STOP: workload.WantStopped, apiv1.Action_ACTION_RESTART: workload.WantRestarted,
	}[r.Msg.Action]
	if !ok {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("no action: expected start, stop or restart"))
	}
	keeper, err := known(s.containers)
	if err != nil {
		return nil, err
	}
	u, err := find(keeper, r.Msg.Container)
	if err != nil {
		return nil, err
	}
	r.Msg.Container = u.ID // for the event
	switch err := keeper.Request(ctx, u.ID, want); {
	case errors.Is(err, workload.ErrUnknown):
		return nil, api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_CONTAINER, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&apiv1.RunResponse{}), nil
}

func (s *workloadService) Apply(_ context.Context, r *connect.Request[apiv1.ApplyRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	projects, err := known(s.projects)
	if err != nil {
		return nil, err
	}
	plan, warnings, err := projects.Apply(r.Msg.Project, []byte(r.Msg.Text), r.Msg.Check)
	if err != nil {
		return nil, projectError(err)
	}
	answer := planned(plan)
	for _, w := range warnings {
		answer.Warnings = append(answer.Warnings, w.Error())
	}
	return connect.NewResponse(answer), nil
}

func (s *workloadService) RemoveProject(_ context.Context, r *connect.Request[apiv1.RemoveProjectRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	projects, err := known(s.projects)
	if err != nil {
		return nil, err
	}
	plan, err := projects.Remove(r.Msg.Project)
	if err != nil {
		return nil, projectError(err)
	}
	return connect.NewResponse(planned(plan)), nil
}

func (s *workloadService) ListProjects(context.Context, *connect.Request[apiv1.ListProjectsRequest]) (*connect.Response[apiv1.ListProjectsResponse], error) {
	projects, err := known(s.projects)
	if err != nil {
		return nil, err
	}
	names, err := projects.Projects()
	if err != nil {
		return nil, projectError(err)
	}
	return connect.NewResponse(&apiv1.ListProjectsResponse{Projects: names}), nil
}

func planned(plan wanted.Plan) *apiv1.ApplyResponse {
	answer := &apiv1.ApplyResponse{}
	for _, s := range plan {
		answer.Steps = append(answer.Steps, &apiv1.Step{Container: s.Container, Image: s.Image, Change: string(s.Change)})
	}
	return answer
}

// projectError says whose mistake it is: the file's, or the node's.
func projectError(err error) error {
	var problems *nodeconfig.Problems
	switch {
	case errors.Is(err, wanted.ErrUnknown):
		return api.Refuse(connect.CodeNotFound, apiv1.Reason_REASON_NO_PROJECT, err)
	case errors.Is(err, wanted.ErrConflict):
		return connect.NewError(connect.CodeAlreadyExists, err)
	case errors.Is(err, workload.ErrNotAllowed):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.As(err, &problems), errors.Is(err, wanted.ErrName), errors.Is(err, wanted.ErrSize), errors.Is(err, wanted.ErrFull):
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
