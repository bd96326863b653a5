package serve

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/logs"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

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
	Generation() uint64
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
	var taken uint64
	if projects := s.projects(); projects != nil {
		taken = projects.Generation()
	}
	status := keeper.Snapshot() // after that: whoever applies next hears of it from the next list
	answer := &apiv1.ListResponse{Trouble: status.Trouble, Behind: !status.Seen || status.Generation < taken}
	for _, u := range status.All() {
		answer.Containers = append(answer.Containers, container(u))
	}
	return connect.NewResponse(answer), nil
}

// container is one line of the list.
func container(u workload.UnitStatus) *apiv1.Container {
	project, _ := workload.Split(u.ID)
	c := &apiv1.Container{
		Name: u.ID, Project: project, OldServes: u.OldServes, Image: u.Image, State: string(u.State), Health: string(u.Health.State), HealthOutput: u.Health.Output,
		Exits: int32(u.Exits), Restarts: int32(u.Restarts), ExitCode: int32(u.ExitCode), Reason: u.Reason,
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
	if !workload.ValidID(r.Msg.Container) {
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
	o := &logs.Output{File: filepath.Join(s.logs, id+".log"), To: &logs.Batch{Send: out.Send}, Gone: func() bool {
		keeper := s.containers()
		return keeper != nil && !slices.ContainsFunc(keeper.Snapshot().Units, func(u workload.UnitStatus) bool { return u.ID == id })
	}}
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
