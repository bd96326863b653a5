package change

import (
	"bytes"
	"reflect"
	"slices"

	"kogge.example/init/nodeconfig"
)

// readers are the services that read each part of node.yaml when they start. The
// names are those of [nodeconfig.Config]'s fields.
var readers = map[string][]string{
	"Hostname":   {network, "agent"}, // DHCP and /etc/hosts; the name on the LAN
	"Network":    {network},
	"Time":       {"clock"}, // the agent, which keeps networks off its servers, rereads it
	"State":      nil,       // see warnings
	"Update":     nil,       // the agent rereads it: for networks, before a reboot, for a stick
	"Labels":     {"agent"},
	"Allow":      {"agent"},
	"Containers": {"agent"}, // it moves their networks
	"Assess":     {"agent"}, // and PID 1 at the next boot: its timeout is running, or over
	"Workloads":  {"agent"}, // containers outlive it, and those that stay the same go on
}

// network is the service whose start tells that other settings are in use.
const network = "network"

// restarts are the services that have to start anew to come from one configuration
// to the other, by name.
func restarts(from, to nodeconfig.Config) []string {
	var all []string
	for _, part := range differing(from, to) {
		services, known := readers[part]
		if !known {
			services = []string{"agent"}
		}
		for _, s := range services {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return all
}

// differing are the parts in which two configurations differ. Where in the file the
// workloads stand is no difference.
func differing(a, b nodeconfig.Config) []string {
	for _, c := range []*nodeconfig.Config{&a, &b} {
		c.Network = c.Interfaces()
		if len(c.Labels) == 0 {
			c.Labels = nil
		}
		c.Workloads = nodeconfig.Workloads{Text: bytes.TrimLeft(c.Workloads.Text, "\n")}
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	var parts []string
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			parts = append(parts, x.Type().Field(i).Name)
		}
	}
	return parts
}

// warnings are about settings that a change on the running node does not reach, or that
// reach further than they look.
func warnings(from, to nodeconfig.Config) (all []string) {
	parts := differing(from, to)
	if slices.Contains(parts, "State") {
		all = append(all, "state.onCorrupt counts only in the node.yaml on the boot partition: when STATE is corrupt, this copy on it cannot be read")
	}
	if slices.Contains(parts, "Containers") {
		all = append(all, "containers.pool: networks of containers that lie outside of it move, and their containers are restarted")
	}
	return all
}
