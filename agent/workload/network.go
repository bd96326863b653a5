package workload

import (
	"fmt"
	"net/netip"
)

// Network is a network of containers: those on it reach each other, and by no other
// way than a published port anybody on another one.
type Network struct {
	Name string // unique on the node
	// Internal says that its containers reach nothing outside of it. Whoever asks for
	// one of their published ports is answered.
	Internal bool
}

// Subnet is a network as it is set up.
type Subnet struct {
	Network
	Device string // the bridge
	netip.Prefix
}

// Gateway is the node's own address on the network, the first of it.
func (s Subnet) Gateway() netip.Addr { return s.Masked().Addr().Next() }

// Address is a place of a container on a network.
type Address struct {
	Network string
	Addr    netip.Addr
}

// Free returns the lowest address of subnet that is neither the network, the
// gateway, the broadcast address nor in used.
func Free(subnet netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error) {
	first := subnet.Masked().Addr().Next().Next()
	for a := first; subnet.Contains(a) && subnet.Contains(a.Next()); a = a.Next() {
		if !used[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("subnet %s: no free address", subnet)
}

// Protocol of a published port.
type Protocol string

// The protocols that can be published.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Publish leads a port of the node to a container.
type Publish struct {
	Protocol Protocol
	// HostIP limits the port to one of the node's IPv4 addresses; the zero value
	// means all of them, 127.0.0.1 included.
	HostIP   netip.Addr
	HostPort uint16
	To       netip.AddrPort // the container
}

// Namespaces are those that a container is started in: the file of its network namespace,
// and the user namespace that this belongs to. Zero are the node's own.
type Namespaces struct {
	Net   string
	Owner Owner
}

// Owner is the user namespace that a container's network belongs to. The zero Owner is
// the node's.
type Owner struct {
	File string
	// First is the id of the node that is 0 in the namespace. No two namespaces that are
	// there at one time have an id of the node in common, and none has one that the node
	// itself uses.
	First uint32
	// More are its ids beyond [IDs]; see [Owner.Mappings].
	More Extents
}
