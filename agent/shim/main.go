// Command shim is containerd-shim-runc-v2, the process between containerd and a
// container: it keeps the container's exit code and output while containerd and
// the agent come and go. A program of its own because each start of a container
// runs it three times, and a small one pays less for its packages.
//
// In come containerd's calls, over ttrpc; out go containers made by runc and
// their output, in a [ring] of bounded size. It is containerd's own task service
// with two additions: it understands output to "ring:///PATH", of a container and of a
// process beside it, and a start waits for nobody who was to read a FIFO.
//
// Called "init" it is none of this but process 1 of a container (see [reap]), where
// it lies as a bind mount of the same file: that costs the disk nothing, and its code
// is in memory already.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	if filepath.Base(os.Args[0]) == initName {
		os.Exit(reap(os.Args[1:]))
	}
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newService,
	})
	shim.RunShim(context.Background(), starter{manager.NewShimManager("io.containerd.runc.v2")})
}

// starter is containerd's own but for what it says of runc.
type starter struct{ shim.Shim }

// Info says what containerd wants to know before each container with mounts whose owners
// are mapped: that runc maps them. Theirs asks runc, a process more for each start, and
// ours came in the same image.
func (s starter) Info(context.Context, io.Reader) (*types.RuntimeInfo, error) {
	yes := true
	all, err := typeurl.MarshalAnyToProto(&features.Features{Linux: &features.Linux{
		MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
	}})
	if err != nil {
		return nil, err
	}
	return &types.RuntimeInfo{Name: s.Name(), Version: &types.RuntimeVersion{Version: version.Version}, Features: all}, nil
}

func newService(ic *plugin.InitContext) (any, error) {
	// There is one of us for each container, and nearly always it sleeps. RunShim has set
	// 40 just before.
	debug.SetGCPercent(10)
	if err := hurryRunc(); err != nil {
		return nil, err
	}
	if err := boundWrites(); err != nil {
		return nil, err
	}
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
	return &service{TTRPCTaskService: s, outputs: make(map[key]*output), held: make(map[key][]*os.File)}, nil
}

// boundWrites has the quotas of STATE bind what the container writes to its root file
// system: overlayfs writes with the capabilities of who mounted it, which is this process,
// and who has CAP_SYS_RESOURCE is bound by none. Programs that it starts, runc above all,
// have it again.
//
// Source: Documentation/filesystems/overlayfs.rst, "Permission model", in the kernel tree;
// ignore_hardlimit in fs/quota/dquot.c.
func boundWrites() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	// Capabilities belong to a thread.
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return fmt.Errorf("capabilities: %w", errno)
	}
	return nil
}

// hurryRunc is for the calls of runc that this process will make: each lives for a few
// milliseconds, in which a second processor and a collector only cost. None may grow
// without bounds for that.
func hurryRunc() error {
	return errors.Join(os.Setenv("GOMAXPROCS", "1"), os.Setenv("GOGC", "off"), os.Setenv("GOMEMLIMIT", "64MiB"))
}

// service is containerd's task service, whose containers write into rings.
type service struct {
	taskapi.TTRPCTaskService

	mu      sync.Mutex // guards what follows
	outputs map[key]*output
	held    map[key][]*os.File
}

// key names a process: the container's own has no exec.
type key struct{ container, exec string }

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
	o, err := collect(filepath.Join(r.Bundle, "output"), path, ringSize)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	r.Stdout, r.Stderr = o.path, o.path
	response, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		o.end()
		return nil, err
	}
	s.keep(key{r.ID, ""}, o)
	return response, nil
}

// Exec does the same for a process beside the container's own. Where somebody talks with
// it, the FIFOs are the agent's, and held.
func (s *service) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	path, ok := ringPath(r.Stdout)
	if !ok {
		return s.hold(ctx, r)
	}
	if s.kept(key{r.ID, r.ExecID}) {
		return nil, errgrpc.ToGRPCf(errdefs.ErrAlreadyExists, "id %s", r.ExecID)
	}
	// Of a shim that was killed. Nobody else makes a file there.
	fifo := path + ".fifo"
	if err := os.Remove(fifo); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errgrpc.ToGRPC(err)
	}
	o, err := collect(fifo, path, execSize)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	r.Stdout, r.Stderr = o.path, o.path
	response, err := s.TTRPCTaskService.Exec(ctx, r)
	if err != nil {
		o.end()
		_ = os.Remove(fifo) // or the next Exec does
		return nil, err
	}
	s.keep(key{r.ID, r.ExecID}, o)
	return response, nil
}

// hold opens the FIFOs of a process until its start is over: a start would wait for an
// agent that was killed meanwhile, and give up a process that runs.
func (s *service) hold(ctx context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	k := key{r.ID, r.ExecID}
	for _, path := range []string{r.Stdin, r.Stdout, r.Stderr} {
		if path == "" {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			s.release(k)
			return nil, errgrpc.ToGRPC(err)
		}
		s.mu.Lock()
		s.held[k] = append(s.held[k], f)
		s.mu.Unlock()
	}
	response, err := s.TTRPCTaskService.Exec(ctx, r)
	if err != nil {
		s.release(k)
	}
	return response, err
}

func (s *service) release(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.held[k] {
		f.Close()
	}
	delete(s.held, k)
}

// Start lets go of what was held for it.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	defer s.release(key{r.ID, r.ExecID})
	return s.TTRPCTaskService.Start(ctx, r)
}

func (s *service) keep(k key, o *output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs[k] = o
}

func (s *service) kept(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outputs[k] != nil
}

// Delete lets the last output of the process reach its ring.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	response, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil {
		return response, err
	}
	s.release(key{r.ID, r.ExecID}) // it may never have been started
	s.mu.Lock()
	o := s.outputs[key{r.ID, r.ExecID}]
	delete(s.outputs, key{r.ID, r.ExecID})
	s.mu.Unlock()
	if o == nil {
		return response, nil
	}
	o.end()
	if r.ExecID != "" { // the container's own FIFO goes with its bundle
		if err := os.Remove(o.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errgrpc.ToGRPC(err)
		}
	}
	return response, nil
}
