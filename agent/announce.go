package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"

	"kogge.example/agent/identity"
	"kogge.example/agent/mdns"
)

// announce has the node found on its own links, until ctx ends: those that the network
// service has set up, and not the containers'. run is the folder of what the node's
// other services say.
func announce(ctx context.Context, node *identity.Node, run string, port int) {
	var boot struct{ Version, Board string }
	readFacts(filepath.Join(run, "boot.json"), &boot)
	mdns.Run(ctx, mdns.Config{
		Links: func() []mdns.Link { return links(filepath.Join(run, "network.json")) },
		Announcement: func() mdns.Announcement {
			a := mdns.Announcement{Port: port, Node: node.Name(), Release: boot.Version, Board: boot.Board, Key: identity.Short(node.Key())}
			if host, err := os.Hostname(); err == nil && identity.CheckName(host) == nil {
				a.Host = host
			}
			if g := node.Genesis(); g != nil {
				a.Fleet, a.FleetID = g.Name, identity.Short(g.ID())
			}
			return a
		},
	})
}

// links are those on which the node may say its name, and is connected.
func links(file string) []mdns.Link {
	var status struct {
		Interfaces []struct {
			Name      string
			Carrier   bool
			MDNS      bool
			Addresses []netip.Prefix
		}
	}
	readFacts(file, &status)
	var all []mdns.Link
	for _, i := range status.Interfaces {
		if i.MDNS && i.Carrier {
			all = append(all, mdns.Link{Name: i.Name, Addresses: i.Addresses})
		}
	}
	return all
}

// readFacts reads a file that another service of the node wrote; what is not there yet
// is nothing so far.
func readFacts(file string, into any) {
	if data, err := os.ReadFile(file); err == nil {
		_ = json.Unmarshal(data, into)
	}
}
