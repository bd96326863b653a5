package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// A connection keeps its translation for as long as it lives, which is right for TCP: it
// ends when its container does. A UDP flow ends when nothing is sent for a while, so
// whoever sends all the time, a client of DNS or syslog, would talk to the container that
// was for ever. Hence what is led to another place than a new flow would be is forgotten.

// forgetFlows forgets the UDP flows whose translation is not that of r.
func forgetFlows(r Ruleset) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("addresses of the node: %w", err)
	}
	local := map[netip.Addr]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP)
			local[ip.Unmap()] = true
		}
	}
	_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, staleFlows{r, local})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // of those that came in between the rules are new
		return fmt.Errorf("forget UDP flows to replaced containers: %w", err)
	}
	return nil
}

// staleFlows picks them, as [netlink.CustomConntrackFilter] does.
type staleFlows struct {
	rules Ruleset
	local map[netip.Addr]bool // addresses of the node
}

// MatchConntrackFlow says whether a flow is led to another place than a new one would be.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	node, ok := netip.AddrFromSlice(f.Forward.DstIP)
	answers, also := netip.AddrFromSlice(f.Reverse.SrcIP)
	if node, answers = node.Unmap(), answers.Unmap(); !ok || !also || !s.local[node] {
		return false
	}
	is := netip.AddrPortFrom(answers, f.Reverse.SrcPort)
	return is != s.rules.leadsTo(workload.UDP, netip.AddrPortFrom(node, f.Forward.DstPort))
}

// leadsTo is where a packet for one of the node's ports goes: to a container, or, where
// none publishes it, to the node itself.
func (r Ruleset) leadsTo(protocol workload.Protocol, port netip.AddrPort) netip.AddrPort {
	if _, own := workload.NodeOwns(protocol, port.Port()); own {
		return port
	}
	for _, p := range r.Bound {
		if p.Protocol == protocol && p.HostIP == port.Addr() && p.HostPort == port.Port() {
			return p.To
		}
	}
	for _, p := range r.Any {
		if p.Protocol == protocol && p.HostPort == port.Port() {
			return p.To
		}
	}
	return port
}

// publishesUDP tells whether any of the ports is one.
func (r Ruleset) publishesUDP() bool {
	for _, p := range append(r.Bound[:len(r.Bound):len(r.Bound)], r.Any...) {
		if p.Protocol == workload.UDP {
			return true
		}
	}
	return false
}

// flowsOf picks the flows that one of the addresses began or answers: those of a container
// that is gone would count for its network, and lead to whom has its addresses next.
type flowsOf map[netip.Addr]bool

// addressesOf are those that the container id has in its namespace; none without one.
func (b *Bridges) addressesOf(id string) (flowsOf, error) {
	file := filepath.Join(b.netns, id)
	if !isNamespace(file) {
		return nil, nil
	}
	ns, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("namespace of %s: %w", id, err)
	}
	defer ns.Close()
	inside, err := handleAt(ns)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	addrs, err := inside.AddrList(nil, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("addresses of %s: %w", id, err)
	}
	its := make(flowsOf)
	for _, a := range addrs {
		// What else it has given itself is somebody else's.
		if p, ok := prefix(a.IPNet); ok && slices.ContainsFunc(b.subnets(), func(s workload.Subnet) bool { return s.Contains(p.Addr()) && s.Gateway() != p.Addr() }) {
			its[p.Addr()] = true
		}
	}
	return its, nil
}

// forget has the kernel forget them.
func (all flowsOf) forget() error {
	if len(all) == 0 {
		return nil
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, all)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("forget flows: %w", err)
	}
	return nil
}

// MatchConntrackFlow is for [netlink.CustomConntrackFilter].
func (all flowsOf) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	began, _ := netip.AddrFromSlice(f.Forward.SrcIP)
	answers, _ := netip.AddrFromSlice(f.Reverse.SrcIP)
	return all[began.Unmap()] || all[answers.Unmap()]
}

// flowsIn picks the flows that somebody in one of the subnets began or answers. Those in a
// subnet that a network has left never end by themselves, and count for it: what their
// containers still send is dropped.
type flowsIn []netip.Prefix

// forgetLeft forgets them. By then the table lets no packet of such a container make
// another one.
func (b *Bridges) forgetLeft() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.left) == 0 {
		return nil
	}
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, b.left)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("forget flows of subnets that networks have left: %w", err)
	}
	b.left = nil
	return nil
}

// MatchConntrackFlow is for [netlink.CustomConntrackFilter].
func (all flowsIn) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	began, _ := netip.AddrFromSlice(f.Forward.SrcIP)
	answers, _ := netip.AddrFromSlice(f.Reverse.SrcIP)
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(began.Unmap()) || p.Contains(answers.Unmap()) })
}
