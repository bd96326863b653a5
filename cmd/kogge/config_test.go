package main

import (
	"testing"

	"kogge.example/agent/api/kogge/v1"
)

// TestRestarted: a service counts once it has started again, and runs.
func TestRestarted(t *testing.T) {
	status := func(agent, network int32, state string) *apiv1.StatusResponse {
		return &apiv1.StatusResponse{Services: []*apiv1.Service{
			{Name: "agent", Starts: agent, State: "starting"}, {Name: "network", Starts: network, State: state},
		}}
	}
	before := status(1, 1, "running")
	for _, c := range []struct {
		now      *apiv1.StatusResponse
		services []string
		want     bool
	}{
		{before, nil, true},
		{before, []string{"agent"}, false},
		{status(2, 1, "running"), []string{"agent"}, true},
		{status(2, 1, "running"), []string{"agent", "network"}, false},
		{status(2, 2, "starting"), []string{"agent", "network"}, false},
		{status(2, 2, "running"), []string{"agent", "network"}, true},
		{&apiv1.StatusResponse{}, []string{"network"}, false},
	} {
		if got := restarted(c.services, before, c.now); got != c.want {
			t.Errorf("%v in %v: %v", c.services, c.now, got)
		}
	}
}
