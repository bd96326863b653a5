// Command shim is containerd-shim-runc-v2, the process between containerd and a
// container: it keeps the container's exit code and output while containerd and
// the agent come and go. A program of its own because each start of a container
// runs it three times, and a small one pays less for its packages.
//
// In come containerd's calls, over ttrpc; out go containers made by runc and
// their output, in a [ring] of bounded size. It is containerd's own task service
// with one addition: it understands output to "ring:///PATH".
package main

import (
	"context"
	"sync"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
)

func main() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newService,
	})
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}

func newService(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	down, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	s, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), down.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	return &service{TTRPCTaskService: s, outputs: make(map[string]*output)}, nil
}

// service is containerd's task service, whose containers write into rings.
type service struct {
	taskapi.TTRPCTaskService

	mu      sync.Mutex
	outputs map[string]*output // by container; guarded by mu
}

// RegisterTTRPC is how the shim's server finds the service.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	return nil
}

// Create replaces a ring:// output by a FIFO that this process reads itself: so
// the container never waits for containerd, the agent or a logger to be alive.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	path, ok := ringPath(r.Stdout)
	if !ok {
		return s.TTRPCTaskService.Create(ctx, r)
	}
	o, err := collect(r.Bundle, path)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	r.Stdout, r.Stderr = o.path, o.path
	response, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		o.end()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs[r.ID] = o
	return response, nil
}

// Delete lets the last output of the container reach its ring.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	response, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return response, err
	}
	s.mu.Lock()
	o := s.outputs[r.ID]
	delete(s.outputs, r.ID)
	s.mu.Unlock()
	if o != nil {
		o.end()
	}
	return response, nil
}
