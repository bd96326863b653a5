package api

import (
	"context"
	"path"
	"runtime"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api/kogge/v1"
)

func (s *observeService) Usage(context.Context, *connect.Request[apiv1.UsageRequest]) (*connect.Response[apiv1.UsageResponse], error) {
	clock, node, err := nodeUse()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	answer := &apiv1.UsageResponse{Clock: durationpb.New(clock), Processors: int32(runtime.NumCPU()), Node: useOf("node", node)}
	groups := s.machine.groups()
	for _, group := range groups.services() {
		if u, ok := groups.of(group); ok {
			answer.Services = append(answer.Services, useOf(path.Base(group), u))
		}
	}
	if keeper := s.containers(); keeper != nil {
		for _, unit := range keeper.Snapshot().Units {
			group := s.machine.containerGroup(unit.Instance)
			if u, ok := groups.of(group); ok {
				groups.network(group, &u)
				answer.Containers = append(answer.Containers, useOf(unit.ID, u))
			}
		}
	}
	return connect.NewResponse(answer), nil
}

func useOf(name string, u use) *apiv1.Use {
	return &apiv1.Use{
		Name: name, Cpu: durationpb.New(u.cpu), Memory: u.memory - u.cache, MemoryLimit: u.limit,
		Processes: u.processes, ProcessesLimit: u.mostOfThem, Received: u.received, Sent: u.sent,
	}
}
