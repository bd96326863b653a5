package serve

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

// TestUsage asks a node with a container, and then again: nothing runs backwards.
func TestUsage(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"cgroup.controllers":               "cpu memory pids\n",
		"workload/db/memory.current":       "5000000\n",
		"workload/db/memory.stat":          "anon 3000000\ninactive_file 1500000\n",
		"workload/db/pids.current":         "7\n",
		"workload/shop.old/memory.current": "100\n",
		"workload/db/cgroup.procs":         fmt.Sprintln(os.Getpid()),
		"system/agent/memory.current":      "100\n",
		"system/agent/memory.stat":         "inactive_file 200\n", // read later than the other
		"init/memory.current":              "42\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(root, name), text)
	}
	address, f, _ := ready(t, func(c *Config) { c.Machine.Cgroups = root })
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	ask := func() *apiv1.UsageResponse {
		answer, err := c.Usage(timeout(t), connect.NewRequest(&apiv1.UsageRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return answer.Msg
	}
	first, second := ask(), ask()
	if len(first.Containers) != 2 || first.Containers[0].Name != "db" || first.Containers[0].Memory != 3500000 || first.Containers[0].Processes != 7 || first.Containers[1].Name != "shop.old" {
		t.Errorf("containers %v", first.Containers)
	}
	if len(first.Services) != 2 || first.Services[0].Name != "init" || first.Services[1].Name != "agent" || first.Services[1].Memory != 0 {
		t.Errorf("services %v", first.Services)
	}
	if n := first.Node; n.Memory == 0 || n.Memory >= n.MemoryLimit || n.Processes == 0 || n.Cpu.AsDuration() <= 0 || first.Processors < 1 {
		t.Errorf("node %v", n)
	}
	if second.Clock.AsDuration() <= first.Clock.AsDuration() || second.Node.Cpu.AsDuration() < first.Node.Cpu.AsDuration() {
		t.Errorf("%v, then %v", first, second)
	}
}
