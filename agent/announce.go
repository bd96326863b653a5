package main

import (
	"context"
	"os"

	"kogge.example/agent/identity"
	"kogge.example/agent/mdns"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
)

// announce has the node found on its own links, until ctx ends: those that the network
// service has set up, and not the containers'. run is the folder of what the node's
// other services say; twin hears of others that are this node too.
func announce(ctx context.Context, node *identity.Node, run string, port int, twin *mdns.Twin) {
	boot, _ := control.ReadBoot(run) // outside of a node nothing is known of it
	mdns.Run(ctx, mdns.Config{
		Links: func() []mdns.Link { return links(run) },
		Announcement: func() mdns.Announcement {
			a := mdns.Announcement{Port: port, Node: node.Name(), Release: boot.Version, Board: boot.Board, Key: fleet.Short(node.Key())}
			if host, err := os.Hostname(); err == nil && fleet.CheckName(host) == nil {
				a.Host = host
			}
			if g := node.Genesis(); g != nil {
				a.Fleet, a.FleetID = g.Name, fleet.Short(g.ID())
			}
			return a
		},
		Twin: twin,
	})
}

// links are those on which the node may say its name, and is connected.
func links(run string) []mdns.Link {
	network, err := control.ReadNetwork(run)
	if err != nil {
		return nil // not up yet
	}
	var all []mdns.Link
	for _, i := range network.Named() {
		all = append(all, mdns.Link{Name: i.Name, Addresses: i.Addresses})
	}
	return all
}
