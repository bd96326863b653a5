package nameserver

import (
	"net/netip"
	"slices"
)

// Table is all that the server knows. Nobody changes one that was handed over.
type Table struct {
	Networks []Network
	// Clients are those that may ask, by address. Who is not here is answered about
	// the network that he asks from, and nothing else.
	Clients map[netip.Addr]Client
}

// Network is a network of containers.
type Network struct {
	Name    string
	Device  string // its bridge: nobody else is listened to
	Gateway netip.Addr
	Prefix  netip.Prefix
	// Names are its containers', in lower case and without a dot at the end.
	Names map[string][]netip.Addr
}

// Client is a container that asks.
type Client struct {
	Name     string   // of the container, whatever its addresses
	Networks []string // that it is on, the one that counts most first
	// Outside says that it may ask for what no container is called.
	Outside bool
	// Servers are asked then, instead of the node's.
	Servers []netip.Addr
}

func (t Table) network(name string) (Network, bool) {
	i := slices.IndexFunc(t.Networks, func(n Network) bool { return n.Name == name })
	if i < 0 {
		return Network{}, false
	}
	return t.Networks[i], true
}

// client is who asks from addr on the network: somebody known, if he is on it.
func (t Table) client(network string, addr netip.Addr) Client {
	if c, ok := t.Clients[addr]; ok && slices.Contains(c.Networks, network) {
		return c
	}
	return Client{Networks: []string{network}}
}

// addresses are those of name, on the first of c's networks that knows it.
func (t Table) addresses(c Client, name string) []netip.Addr {
	for _, network := range c.Networks {
		if n, ok := t.network(network); ok && len(n.Names[name]) > 0 {
			return n.Names[name]
		}
	}
	return nil
}

// named are the names of addr among c's networks, and whether it is an address of
// containers at all: then nobody outside knows more.
func (t Table) named(c Client, addr netip.Addr) (all []string, ours bool) {
	for _, n := range t.Networks {
		if !n.Prefix.Contains(addr) {
			continue
		}
		if ours = true; !slices.Contains(c.Networks, n.Name) {
			continue
		}
		for name, has := range n.Names {
			if slices.Contains(has, addr) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all, ours
}
