package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/compose/project"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestJSONAnswer prints a container that has something of everything, as programs get it:
// names like those of other tables, the writer's own keys as they are, and no secret.
func TestJSONAnswer(t *testing.T) {
	c := workload.Container{
		ID: "shop.web", Image: "registry.example/web:1", Env: []string{"COLOUR=blue"}, WorkingDir: "/srv", Hostname: "web",
		Networks: []workload.Attachment{{Network: "shop.default", Aliases: []string{"www"}}},
		Ports:    []workload.Port{{Protocol: workload.TCP, HostIP: netip.MustParseAddr("192.0.2.7"), HostPort: 80, Container: 8080}},
		Restart:  workload.Restart{Policy: workload.OnFailure, Max: 3},
		ReadOnly: true, Tmpfs: []workload.Tmpfs{{Target: "/tmp", NoExec: true, UID: 7}},
		Volumes: []workload.Volume{{Name: "shop.data", Target: "/data", NoCopy: true}},
		CPUs:    0.5, Pids: 100, ShmBytes: 1 << 20, StopGrace: 90 * time.Second,
		Labels: map[string]string{"Owner.Name": "Ada"}, Sysctls: map[string]string{"net.core.somaxconn": "7"},
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, DNSOptions: []string{"ndots:1"},
		Files:  []workload.File{{Target: "/run/secrets/key", Mode: 0o400, Data: []byte("hunter2"), Secret: true}, {Target: "/motd", Data: []byte("hello")}},
		Health: &workload.Health{Test: []string{"/check"}, Interval: 30 * time.Second},
		After:  []workload.Dependency{{ID: "shop.db", Condition: workload.WhenHealthy}},
	}
	var out bytes.Buffer
	must(t, jsonAnswer(&out, &project.Answer{Containers: []workload.Container{c}}, &nodeconfig.Problems{}))
	golden.Compare(t, "answer.json", out.String())
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "aHVudGVyMg") {
		t.Error("it shows a secret")
	}
	var again struct {
		Done []map[string]any
	}
	must(t, json.Unmarshal(out.Bytes(), &again))
	if got := again.Done[0]["id"]; got != c.ID {
		t.Errorf("id %v", got)
	}
}
