package main

import (
	"net/netip"
	"slices"
	"testing"

	"kogge.example/agent/api"
	"kogge.example/agent/mdns"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
)

// TestNodePorts holds the one list of the node's own ports to where the node listens.
func TestNodePorts(t *testing.T) {
	for _, p := range []struct {
		protocol workload.Protocol
		port     int
	}{{workload.TCP, api.Port}, {workload.UDP, mdns.Port}} {
		if _, own := workload.NodeOwns(p.protocol, uint16(p.port)); !own {
			t.Errorf("%d/%s is not among the node's own ports", p.port, p.protocol)
		}
	}
}

// TestAsked: the servers that the network names are the node's, and of containers nobody's.
func TestAsked(t *testing.T) {
	run := t.TempDir()
	if got := serversOf(run); got != nil {
		t.Errorf("before the network is up: %v", got)
	}
	addr := netip.MustParseAddr
	status := control.Network{
		Interfaces: []control.Interface{{Name: "eth0", Lease: &control.Lease{Server: addr("10.88.0.1")}}, {Name: "eth1"}},
		DNS:        []netip.Addr{addr("10.88.0.53")}, NTP: []netip.Addr{addr("10.88.0.123")},
	}
	if err := status.Write(run); err != nil {
		t.Fatal(err)
	}
	if got := serversOf(run); !slices.Equal(got, []netip.Addr{addr("10.88.0.53"), addr("10.88.0.123"), addr("10.88.0.1")}) {
		t.Errorf("servers: %v", got)
	}
}

// TestRouted: the links between which the node routes are those that the network service
// names, and none before it has spoken.
func TestRouted(t *testing.T) {
	run := t.TempDir()
	if got := routed(run); got != nil {
		t.Errorf("before the network is up: %v", got)
	}
	status := control.Network{Interfaces: []control.Interface{{Name: "eth0", Forward: true}, {Name: "eth1"}, {Name: "eth2", Forward: true}}}
	if err := status.Write(run); err != nil {
		t.Fatal(err)
	}
	if got := routed(run); !slices.Equal(got, []string{"eth0", "eth2"}) {
		t.Errorf("links that are routed: %v", got)
	}
}
