package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

const (
	// shortest is the least time that a lease is taken to be valid for: a server
	// that says less would have us ask without end.
	shortest = 10 * time.Second
	// longest stands for "for ever".
	longest = 10 * 365 * 24 * time.Hour
	// maxLeaseRoutes bounds what a server can have us keep. Default routes come before others.
	maxLeaseRoutes = 64
)

// leaseFrom checks a server's acknowledgement. What is wrong with the address is
// an error; of the options, what makes no sense is left out.
//
// Sources: RFC 2131, RFC 2132, RFC 3397 (search), RFC 3442 (classless routes).
func leaseFrom(ack *dhcpv4.DHCPv4, now time.Time) (*control.Lease, error) {
	address := addrOf(ack.YourIPAddr)
	if !address.Is4() || !Usable(address) {
		return nil, fmt.Errorf("server offers %v, which is not a host address", ack.YourIPAddr)
	}
	bits, width := ack.SubnetMask().Size()
	if width != 32 || bits < 1 {
		// No mask, or one with holes: RFC 950 would guess by class, 24 is what is meant.
		bits = 24
	} else if p := netip.PrefixFrom(address, bits); bits < 31 && (address == p.Masked().Addr() || address == broadcast(p)) {
		return nil, fmt.Errorf("server offers %s, which is no host's address: it is that of the whole network", p)
	}
	l := &control.Lease{Address: netip.PrefixFrom(address, bits), Server: addrOf(ack.ServerIdentifier()), Since: now}
	l.Routes = leaseRoutes(ack)
	l.DNS = addresses(ack.DNS(), 3)
	l.NTP = addresses(ack.NTPServers(), 4)
	l.Search = searchOf(ack)
	if raw := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(raw) == 2 {
		if mtu := int(raw[0])<<8 | int(raw[1]); mtu >= 576 {
			l.MTU = mtu
		}
	}
	l.Valid = min(max(ack.IPAddressLeaseTime(time.Hour), shortest), longest)
	l.Renew = ack.IPAddressRenewalTime(l.Valid / 2)
	l.Rebind = ack.IPAddressRebindingTime(l.Valid * 7 / 8)
	if l.Renew < shortest/2 || l.Renew >= l.Rebind || l.Rebind >= l.Valid {
		l.Renew, l.Rebind = l.Valid/2, l.Valid*7/8
	}
	return l, nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	return netip.AddrFrom4([4]byte{a[0] | byte(host>>24), a[1] | byte(host>>16), a[2] | byte(host>>8), a[3] | byte(host)})
}

// leaseRoutes returns the routes of an acknowledgement. With classless routes the
// routers and the static routes do not count (RFC 3442).
func leaseRoutes(ack *dhcpv4.DHCPv4) []nodeconfig.Route {
	var routes []nodeconfig.Route
	for _, r := range ack.ClasslessStaticRoute() {
		bits, _ := r.Dest.Mask.Size()
		to := netip.PrefixFrom(addrOf(r.Dest.IP), bits).Masked()
		via := addrOf(r.Router)
		switch {
		case !to.IsValid():
		case via.IsUnspecified():
			routes = append(routes, nodeconfig.Route{To: to})
		case Usable(via):
			routes = append(routes, nodeconfig.Route{To: to, Via: via})
		}
	}
	if len(routes) == 0 {
		for _, via := range addresses(ack.Router(), 1) {
			routes = append(routes, nodeconfig.Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: via})
		}
		routes = append(routes, staticRoutes(ack.Options.Get(dhcpv4.OptionStaticRoutingTable))...)
	}
	// Where there are too many, the node is to find out all the same.
	for len(routes) > maxLeaseRoutes {
		last := len(routes) - 1
		for last > 0 && routes[last].To.Bits() == 0 {
			last--
		}
		routes = slices.Delete(routes, last, last+1)
	}
	return routes
}

// staticRoutes reads option 33: pairs of a destination and a router. The destination is a
// network by its class, or a host where it is more than that.
//
// Source: RFC 2132, section 5.8.
func staticRoutes(raw []byte) (routes []nodeconfig.Route) {
	for ; len(raw) >= 8; raw = raw[8:] {
		to, via := addrOf(raw[:4]), addrOf(raw[4:8])
		if !Usable(to) || !Usable(via) {
			continue
		}
		bits, _ := net.IP(raw[:4]).DefaultMask().Size()
		network := netip.PrefixFrom(to, bits)
		if network.Masked().Addr() != to {
			network = netip.PrefixFrom(to, 32)
		}
		routes = append(routes, nodeconfig.Route{To: network, Via: via})
	}
	return routes
}

// searchOf returns the search domains, or the node's domain. They end up in
// resolv.conf, so whatever is no domain name is left out.
func searchOf(ack *dhcpv4.DHCPv4) []string {
	var names []string
	if labels := ack.DomainSearch(); labels != nil {
		names = labels.Labels
	}
	if len(names) == 0 {
		names = strings.Fields(strings.TrimRight(ack.DomainName(), "\x00"))
	}
	return searchDomains(names)
}

// searchDomains returns those that are domain names, at most six, none twice.
func searchDomains(names []string) []string {
	var good []string
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if IsDomain(name) && !slices.Contains(good, name) && len(good) < 6 {
			good = append(good, name)
		}
	}
	return good
}

// IsDomain says whether s can be a search domain in resolv.conf: 1 to 253 lower case letters,
// digits, "-", "." and "_".
func IsDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}) < 0
}

// addresses returns the usable addresses of a list, at most so many, none twice.
func addresses(ips []net.IP, most int) []netip.Addr {
	var good []netip.Addr
	for _, ip := range ips {
		if a := addrOf(ip); Usable(a) && !slices.Contains(good, a) && len(good) < most {
			good = append(good, a)
		}
	}
	return good
}

// Usable says whether a machine on a network can have the address.
func Usable(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return false
	}
	const reserved = 240 // and above, 255.255.255.255 as well; 0 is "this network" (RFC 6890)
	return !a.Is4() || a.As4()[0] != 0 && a.As4()[0] < reserved
}

// addrOf turns a message's form of an address into ours, IPv4 always as IPv4.
func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
