package workload

import (
	"testing"

	"kogge.example/init/nodeconfig"
)

// TestApart: who runs in a user namespace of its own.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		name string
		Container
		want bool
	}{
		{"as it is", Container{}, true},
		{"a user", Container{User: "65535:65535"}, true},
		{"a user by name", Container{User: "www-data"}, true},
		{"a user beyond", Container{User: "65536"}, false},
		{"a group beyond", Container{User: "app:100000"}, false},
		{"a bind", Container{Rights: Rights{Binds: []Bind{{Path: "/state/data"}}}}, true},
		{"without seccomp", Container{Rights: Rights{Unconfined: []nodeconfig.Profile{nodeconfig.Seccomp}}}, true},
		{"without masks", Container{Rights: Rights{Unconfined: []nodeconfig.Profile{nodeconfig.SystemPaths}}}, false},
		{"its own network's administrator", Container{Rights: Rights{Capabilities: []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}}}, true},
		{"who sets the clock", Container{Rights: Rights{Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}}}, false},
		{"a device", Container{Rights: Rights{Devices: []Device{{Path: "/dev/ttyUSB0"}}}}, false},
		{"on the node's network", Container{Rights: Rights{Host: []nodeconfig.Namespace{nodeconfig.HostNetwork}}}, false},
		{"by userns_mode", Container{Rights: Rights{Host: []nodeconfig.Namespace{nodeconfig.HostUser}}}, false},
		{"privileged", Container{Rights: Rights{Privileged: true}}, false},
	} {
		if got := c.apart(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
