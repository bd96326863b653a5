package main

import (
	"net/netip"
	"slices"
	"testing"

	"kogge.example/init/control"
)

// TestAddresses: the console says where the node is found, and what is wrong with its network.
func TestAddresses(t *testing.T) {
	run := t.TempDir()
	if got := addresses(run); got != nil {
		t.Errorf("before the network is up: %q", got)
	}
	const unmatched = `no link matches "eth9" of node.yaml`
	n := control.Network{Problem: unmatched, Interfaces: []control.Interface{
		{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}, {Name: "eth1", Problem: "is sick"},
	}}
	if err := n.Write(run); err != nil {
		t.Fatal(err)
	}
	if got := addresses(run); !slices.Equal(got, []string{unmatched, "eth0 192.0.2.7/24", "eth1 is sick"}) {
		t.Errorf("%q", got)
	}
}
