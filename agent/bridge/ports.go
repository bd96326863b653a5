package bridge

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"kogge.example/agent/workload"
)

// Ruleset is what the table is to contain: the networks that it is about, by name, and
// two maps of ports. testdata/table.nft shows one as the kernel has it, once [Apply] is done.
type Ruleset struct {
	Networks []workload.Subnet
	Bound    []workload.Publish // by address, protocol and port; looked up first
	Any      []workload.Publish // by protocol and port, for every local address
	// Routed are the node's own links between which it routes, by name.
	Routed []string
}

// Rules sorts the ports into the two maps. A port that is published twice for the
// same address is an error that names both containers by address. What is wrong with one
// port stops no other: it is left out, and the error says so.
func Rules(networks []workload.Subnet, ports []workload.Publish) (Ruleset, error) {
	r := Ruleset{Networks: networks}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, compare)
	var wrong []error
	for i, p := range ports {
		switch {
		case p.Protocol != workload.TCP && p.Protocol != workload.UDP:
			wrong = append(wrong, fmt.Errorf("port %d: protocol %q is neither tcp nor udp", p.HostPort, p.Protocol))
		case !slices.ContainsFunc(networks, func(n workload.Subnet) bool { return n.Contains(p.To.Addr()) }):
			wrong = append(wrong, fmt.Errorf("port %d: container address %s is not on a network", p.HostPort, p.To.Addr()))
		case i > 0 && key(ports[i-1]) == key(p):
			wrong = append(wrong, fmt.Errorf("port %s is published by both %s and %s", key(p), ports[i-1].To, p.To))
		case !p.HostIP.IsValid() || p.HostIP.IsUnspecified() && p.HostIP.Is4():
			p.HostIP = netip.Addr{}
			r.Any = append(r.Any, p)
		case p.HostIP.Is4():
			r.Bound = append(r.Bound, p)
		default:
			wrong = append(wrong, fmt.Errorf("port %s: host address %s is not IPv4", key(p), p.HostIP))
		}
	}
	return r, errors.Join(wrong...)
}

// key is what must be unique among published ports.
func key(p workload.Publish) string {
	ip := "*"
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		ip = p.HostIP.String()
	}
	return fmt.Sprintf("%s:%d/%s", ip, p.HostPort, p.Protocol)
}

// compare sorts them so that two of one key are neighbours.
func compare(a, b workload.Publish) int {
	return cmp.Or(
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostPort, b.HostPort),
		a.HostIP.Compare(b.HostIP), a.To.Compare(b.To))
}

// routed are the links between which the node routes, by name.
func (b *Bridges) routed() []string {
	if b.Routed == nil {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(b.Routed())))
}

// Publish makes exactly these ports lead to containers, and keeps the networks that are
// made apart; see [Rules] and [Apply]. What goes wrong keeps from nothing that can be done
// without it.
func (b *Bridges) Publish(ports []workload.Publish) error {
	r, wrong := Rules(b.subnets(), ports)
	r.Routed = b.routed()
	err := errors.Join(wrong, b.bounds.bound(len(r.Networks))) // ports without bounds are better than neither
	if failed := Apply(r); failed != nil {
		return errors.Join(failed, err)
	}
	var closed error
	if b.applied == nil { // before there is a table that says what may, nothing is forwarded
		closed = enable("ip_forward")
	}
	if closed == nil {
		b.applied = &r
	}
	err = errors.Join(err, closed, b.forgetLeft())
	if udp := r.publishesUDP(); udp || b.udp {
		stale := forgetFlows(r)
		b.udp = udp || stale != nil
		err = errors.Join(err, stale)
	}
	return err
}
