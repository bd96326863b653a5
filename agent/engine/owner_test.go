package engine

import (
	"testing"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// TestApart: who runs in a user namespace of its own.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		name string
		workload.Container
		want bool
	}{
		{"as it is", workload.Container{}, true},
		{"a user", workload.Container{User: "65535:65535"}, true},
		{"a user by name", workload.Container{User: "www-data"}, true},
		{"a user beyond", workload.Container{User: "65536"}, true},
		{"a group beyond", workload.Container{User: "app:100000"}, true},
		{"a bind", workload.Container{Rights: workload.Rights{Binds: []workload.Bind{{Path: "/state/data"}}}}, true},
		{"without seccomp", workload.Container{Rights: workload.Rights{Unconfined: []rights.Profile{rights.Seccomp}}}, true},
		{"without masks", workload.Container{Rights: workload.Rights{Unconfined: []rights.Profile{rights.SystemPaths}}}, false},
		{"its own network's administrator", workload.Container{Rights: workload.Rights{Capabilities: []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}}}, true},
		{"who sets the clock", workload.Container{Rights: workload.Rights{Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}}}, false},
		{"a device", workload.Container{Rights: workload.Rights{Devices: []workload.Device{{Path: "/dev/ttyUSB0"}}}}, false},
		{"on the node's network", workload.Container{Rights: workload.Rights{Host: []rights.Namespace{rights.HostNetwork}}}, false},
		{"by userns_mode", workload.Container{Rights: workload.Rights{Host: []rights.Namespace{rights.HostUser}}}, false},
		{"privileged", workload.Container{Rights: workload.Rights{Privileged: true}}, false},
	} {
		if got := c.Apart(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
