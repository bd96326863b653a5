package bridge

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"kogge.example/agent/workload"
)

// Ruleset is what the table is to contain: the networks that it is about, by name, and
// two maps of ports; see [Ruleset.String].
type Ruleset struct {
	Networks []workload.Subnet
	Bound    []workload.Publish // by address, protocol and port; looked up first
	Any      []workload.Publish // by protocol and port, for every local address
}

// Rules sorts the ports into the two maps. A port that is published twice for the
// same address is an error that names both containers by address.
func Rules(networks []workload.Subnet, ports []workload.Publish) (Ruleset, error) {
	r := Ruleset{Networks: networks}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, compare)
	for i, p := range ports {
		if p.Protocol != workload.TCP && p.Protocol != workload.UDP {
			return Ruleset{}, fmt.Errorf("port %d: protocol %q is neither tcp nor udp", p.HostPort, p.Protocol)
		}
		if !slices.ContainsFunc(networks, func(n workload.Subnet) bool { return n.Contains(p.To.Addr()) }) {
			return Ruleset{}, fmt.Errorf("port %d: container address %s is not on a network", p.HostPort, p.To.Addr())
		}
		if i > 0 && key(ports[i-1]) == key(p) {
			return Ruleset{}, fmt.Errorf("port %s is published by both %s and %s", key(p), ports[i-1].To, p.To)
		}
		switch {
		case !p.HostIP.IsValid() || p.HostIP.IsUnspecified() && p.HostIP.Is4():
			p.HostIP = netip.Addr{}
			r.Any = append(r.Any, p)
		case p.HostIP.Is4():
			r.Bound = append(r.Bound, p)
		default:
			return Ruleset{}, fmt.Errorf("port %s: host address %s is not IPv4", key(p), p.HostIP)
		}
	}
	return r, nil
}

// key is what must be unique among published ports.
func key(p workload.Publish) string {
	ip := "*"
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		ip = p.HostIP.String()
	}
	return fmt.Sprintf("%s:%d/%s", ip, p.HostPort, p.Protocol)
}

func compare(a, b workload.Publish) int {
	return strings.Compare(
		fmt.Sprintf("%s %05d %s %s", a.Protocol, a.HostPort, key(a), a.To),
		fmt.Sprintf("%s %05d %s %s", b.Protocol, b.HostPort, key(b), b.To))
}

// String writes the table in the language of nft(8), as `nft list ruleset` shows
// it: this text is the picture of what apply builds.
func (r Ruleset) String() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("table ip %s {", table)
	p("\tmap bound { # ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service")
	for _, e := range r.Bound {
		p("\t\t%s . %s . %d : %s . %d", e.HostIP, e.Protocol, e.HostPort, e.To.Addr(), e.To.Port())
	}
	p("\t}\n\tmap any { # inet_proto . inet_service : ipv4_addr . inet_service")
	for _, e := range r.Any {
		p("\t\t%s . %d : %s . %d", e.Protocol, e.HostPort, e.To.Addr(), e.To.Port())
	}
	p("\t}")
	for _, c := range []struct{ name, hook, priority string }{
		{"prerouting", "nat", "dstnat"}, {"output", "nat", "-100"},
	} {
		p("\tchain %s { type %s hook %s priority %s; policy accept;", c.name, c.hook, c.name, c.priority)
		for _, n := range r.Networks {
			if c.name == "prerouting" {
				p("\t\tiifname %q ip daddr %s th dport %d accept", n.Device, n.Gateway(), namePort)
			}
		}
		p("\t\tfib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @bound")
		p("\t\tfib daddr type local dnat ip to meta l4proto . th dport map @any\n\t}")
	}
	p("\tchain guard { type filter hook prerouting priority raw; policy accept;")
	for _, u := range unreachable {
		p("\t\tiifname \"%s*\" ip daddr %s drop", Prefix, u)
	}
	p("\t}\n\tchain input { type filter hook input priority filter; policy accept;")
	p("\t\tiifname != \"%s*\" accept", Prefix)
	p("\t\tct state established,related accept")
	p("\t\tmeta l4proto icmp accept")
	p("\t\tth dport %d accept", namePort)
	p("\t\treject\n\t}")
	p("\tchain forward { type filter hook forward priority filter; policy accept;")
	p("\t\tct state established,related accept")
	for _, end := range []string{"sport", "dport"} {
		p("\t\tiifname \"%s*\" oifname != \"%[1]s*\" udp %s %d drop", Prefix, end, mdnsPort)
	}
	p("\t\toifname \"%s*\" ct status dnat accept", Prefix)
	for _, n := range r.Networks {
		p("\t\tiifname %q oifname %q accept # %s", n.Device, n.Device, n.Name)
		if n.Internal {
			p("\t\tiifname %q drop", n.Device)
		}
	}
	p("\t\toifname \"%s*\" drop\n\t}", Prefix)
	p("\tchain postrouting { type nat hook postrouting priority srcnat; policy accept;")
	p("\t\toifname \"%s*\" ct status dnat ip saddr 127.0.0.0/8 masquerade", Prefix)
	for _, n := range r.Networks {
		from := " ip saddr " + n.Prefix.String()
		if n.Internal {
			from = ""
		}
		p("\t\toifname %q ct status dnat%s masquerade", n.Device, from)
		p("\t\toifname != \"%s*\" ip saddr %s masquerade", Prefix, n.Prefix)
	}
	p("\t}\n}")
	return b.String()
}
