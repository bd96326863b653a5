package containerd

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"kogge.example/update/golden"
)

// TestPlugins shows what the server consists of: a new version of containerd that
// brings or takes a plugin changes this list, and somebody has to look.
func TestPlugins(t *testing.T) {
	ids := required(registry.Graph(func(*plugin.Registration) bool { return false }))
	slices.Sort(ids)
	got := strings.Join(ids, "\n") + "\n"
	golden.Compare(t, "plugins.txt", got)
}

func TestStartRefuses(t *testing.T) {
	folder, err := os.MkdirTemp("/tmp", "k") // short: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := Config{Root: folder + "/root", State: folder + "/state", Socket: folder + "/c.sock", Bin: folder}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"long socket", func(c *Config) { c.Socket = "/" + strings.Repeat("x", maxShims) + "/c.sock" }, "longer than 42 bytes"},
		{"root is a file", func(c *Config) { c.Root = file }, "create " + file},
		{"one folder for both", func(c *Config) { c.State = c.Root }, "root and state must be different"},
		{"socket below a file", func(c *Config) { c.Socket = file + "/c.sock" }, "folder of the socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PATH", os.Getenv("PATH")) // Start sets it
			config := good
			c.change(&config)
			s, err := Start(context.Background(), config)
			if err == nil {
				s.Stop()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
