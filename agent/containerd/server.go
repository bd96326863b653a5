// Package containerd is containerd's server as a call, and what becomes of its databases
// beside a release on trial: paths come in, a serving gRPC socket goes out. It runs in a
// process of its own, as the agent's role "containerd"; containers are children of their
// shims and outlive it.
//
// It leaves alone what the server is asked to run: package engine is the client. No other
// package may import containerd's server.
package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// Config says where the server keeps its things.
type Config struct {
	// Root holds images and metadata and outlives a boot. Not on an overlay.
	Root string
	// State holds what a boot forgets: bundles, task state. A tmpfs.
	State string
	// Socket is the gRPC socket. Beside it lie Socket + ".ttrpc", on which shims
	// report, and the folder "shim" with a socket of each. Its own folder has at
	// most 37 bytes: those sockets have long names and the kernel takes 107.
	Socket string
	// Bin is the folder of containerd-shim-runc-v2. It becomes the PATH of the
	// process, so nothing else is found by accident.
	Bin string
}

// maxShims is the longest folder of the shims' sockets that containerd takes.
const maxShims = 42

// Server is a containerd that serves.
type Server struct{ s *server.Server }

// Start returns when the server answers on its socket; ctx ends with the
// process, not before [Server.Stop]. The sockets belong to root alone (0600).
//
// A plugin that does not start is an error: containerd by itself would log a
// line and serve without it.
func Start(ctx context.Context, c Config) (*Server, error) {
	shims := filepath.Join(filepath.Dir(c.Socket), "shim")
	if len(shims) > maxShims {
		return nil, fmt.Errorf("sockets of shims in %s: longer than %d bytes", shims, maxShims)
	}
	if err := log.SetLevel("warn"); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	sc := &config.Config{
		Version: 4,
		Root:    c.Root,
		State:   c.State,
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc":  map[string]any{"address": c.Socket},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": c.Socket + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{"socket_dir": shims},
			// The first collection would fall into the busiest second of the boot.
			"io.containerd.gc.v1.scheduler": map[string]any{"startup_delay": "3m"},
			// Without it an unpacked layer can be empty after a power cut while
			// the metadata, which is synced, says that it is there.
			"io.containerd.service.v1.diff-service": map[string]any{"default": []string{"walking"}, "sync_fs": true},
		},
		DisabledPlugins: disabled,
		RequiredPlugins: required(registry.Graph(func(*plugin.Registration) bool { return false })),
	}
	if err := os.Setenv("PATH", c.Bin); err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.Socket), 0o755); err != nil {
		return nil, fmt.Errorf("folder of the socket: %w", err)
	}
	if err := server.CreateTopLevelDirectories(sc); err != nil {
		return nil, fmt.Errorf("create %s and %s: %w", c.Root, c.State, err)
	}
	s, err := server.New(ctx, sc)
	if err != nil {
		return nil, fmt.Errorf("load plugins: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("serve %s: %w", c.Socket, err)
	}
	s.Wait()
	return &Server{s}, nil
}

// Stop closes the sockets and the stores; containers go on.
func (s *Server) Stop() { s.s.Stop() }

// disabled plugins come with the listener's package: a TCP listener, and counters
// and traces of every call that nobody would read.
var disabled = []string{
	"io.containerd.server.v1.grpc-tcp",
	"io.containerd.metrics.v1.grpc-prometheus",
	"io.containerd.metrics.v1.grpc-otel",
}

// required is every registered plugin but the disabled ones.
func required(all []plugin.Registration) []string {
	var ids []string
	for _, r := range all {
		if !slices.Contains(disabled, r.URI()) {
			ids = append(ids, r.URI())
		}
	}
	return ids
}
