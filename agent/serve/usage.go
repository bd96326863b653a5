package serve

import (
	"context"
	"path"
	"runtime"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/machine"
)

func (s *observeService) Usage(context.Context, *connect.Request[apiv1.UsageRequest]) (*connect.Response[apiv1.UsageResponse], error) {
	clock, node, err := machine.NodeUse()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	answer := &apiv1.UsageResponse{Clock: durationpb.New(clock), Processors: int32(runtime.NumCPU()), Node: useOf("node", node)}
	groups := s.machine.Groups()
	for _, group := range groups.Services() {
		if u, ok := groups.Of(group); ok {
			answer.Services = append(answer.Services, useOf(strings.TrimPrefix(path.Base(group), "."), u))
		}
	}
	if keeper := s.containers(); keeper != nil {
		for _, unit := range keeper.Snapshot().All() {
			group := s.machine.ContainerGroup(unit.Instance)
			if u, ok := groups.Of(group); ok {
				groups.Network(group, &u)
				answer.Containers = append(answer.Containers, useOf(unit.ID, u))
			}
		}
	}
	return connect.NewResponse(answer), nil
}

func useOf(name string, u machine.Use) *apiv1.Use {
	return &apiv1.Use{
		Name: name, Cpu: durationpb.New(u.CPU), Memory: u.Memory - u.Cache, MemoryLimit: u.Limit,
		Processes: u.Processes, ProcessesLimit: u.MostOfThem, Received: u.Received, Sent: u.Sent,
	}
}
