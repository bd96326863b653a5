package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

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
