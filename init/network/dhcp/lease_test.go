package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestLeaseFrom shows what becomes of acknowledgements, as servers send and mean them, or not.
func TestLeaseFrom(t *testing.T) {
	option := func(code uint8, b ...byte) dhcpv4.Modifier {
		return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), b)
	}
	seconds := func(code uint8, s uint32) dhcpv4.Modifier {
		return option(code, byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
	}
	mask := func(bits int) dhcpv4.Modifier { return option(1, net.CIDRMask(bits, 32)...) }
	const us = "192.0.2.50"
	var out strings.Builder
	for _, c := range []struct {
		name, address string
		options       []dhcpv4.Modifier
	}{
		{"nothing but an address", us, nil},
		{"of no time at all", us, []dhcpv4.Modifier{seconds(51, 0)}},
		{"of 20 s", us, []dhcpv4.Modifier{seconds(51, 20)}},
		{"of 20 s, with times", us, []dhcpv4.Modifier{seconds(51, 20), seconds(58, 8), seconds(59, 16)}},
		{"of 45 s", us, []dhcpv4.Modifier{seconds(51, 45)}},
		{"for ever", us, []dhcpv4.Modifier{seconds(51, 1<<32-1), seconds(58, 1<<32-1), seconds(59, 1<<32-1)}},
		{"T1 after T2", us, []dhcpv4.Modifier{seconds(51, 3600), seconds(58, 3000), seconds(59, 2000)}},
		{"the network's own address", "192.0.2.0", []dhcpv4.Modifier{mask(24)}},
		{"its broadcast", "192.0.2.255", []dhcpv4.Modifier{mask(24)}},
		{"the same in a larger network", "192.0.2.255", []dhcpv4.Modifier{mask(22)}},
		{"the first of two", "192.0.2.0", []dhcpv4.Modifier{mask(31)}},
		{"the only one", "192.0.2.0", []dhcpv4.Modifier{mask(32)}},
		{"of this network", "0.1.2.3", nil},
		{"of no class", "240.1.2.3", nil},
		{"a multicast one", "224.1.2.3", nil},
		{"a server of no class", us, []dhcpv4.Modifier{option(6, 240, 0, 0, 1, 0, 0, 0, 9, 192, 0, 2, 53)}},
		{"static routes (33)", us, []dhcpv4.Modifier{option(3, 192, 0, 2, 1), option(33, 198, 51, 100, 1, 192, 0, 2, 9, 10, 0, 0, 0, 192, 0, 2, 8, 203, 0, 113, 0, 192, 0, 2, 7)}},
		{"static routes to nowhere", us, []dhcpv4.Modifier{option(3, 192, 0, 2, 1), option(33, 0, 0, 0, 0, 192, 0, 2, 9, 224, 0, 0, 1, 192, 0, 2, 9, 198, 51, 100, 1, 0, 0, 0, 0, 198, 51)}},
		{"static routes beside classless ones (121)", us, []dhcpv4.Modifier{option(33, 198, 51, 100, 1, 192, 0, 2, 9), option(121, 0, 192, 0, 2, 1)}},
		{"a small MTU", us, []dhcpv4.Modifier{option(26, 0, 68)}},
	} {
		m := append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.ParseIP(c.address)), dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)}, c.options...)
		ack, err := dhcpv4.New(m...)
		must(t, err)
		ack, err = dhcpv4.FromBytes(ack.ToBytes())
		must(t, err)
		l, err := leaseFrom(ack, t0)
		if err != nil {
			fmt.Fprintf(&out, "%-42s refused: %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&out, "%-42s %s for %s, renew %s, rebind %s, dns %v, mtu %d\n", c.name, l.Address, l.Valid, l.Renew, l.Rebind, l.DNS, l.MTU)
		for _, r := range l.Routes {
			fmt.Fprintf(&out, "%-42s   %s via %s\n", "", r.To, r.Via)
		}
	}
	golden.Compare(t, "lease4.txt", out.String())
}

// TestManyRoutes has a server name more routes than there is room for, the way out last.
func TestManyRoutes(t *testing.T) {
	var raw []byte
	for i := range byte(100) {
		raw = append(raw, 24, 10, 0, i, 192, 0, 2, 1)
	}
	raw = append(raw, 0, 192, 0, 2, 9)
	ack, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithGeneric(dhcpv4.OptionClasslessStaticRoute, raw))
	must(t, err)
	l, err := leaseFrom(ack, t0)
	must(t, err)
	way := nodeconfig.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.9")}
	if len(l.Routes) != maxLeaseRoutes || !slices.Contains(l.Routes, way) || l.Routes[0].To != netip.MustParsePrefix("10.0.0.0/24") {
		t.Errorf("%d routes, the way out among them: %v", len(l.Routes), slices.Contains(l.Routes, way))
	}
}

// TestShortLease walks a client with a lease of 20 s through ten minutes with its server: it
// renews in time and does not ask without end; and then without: the address goes on time.
func TestShortLease(t *testing.T) {
	ack, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithLeaseTime(20))
	must(t, err)
	c, _ := Client{State: Selecting, Down: true}.Step(CarrierUp, nil, t0)
	now, given, asked := t0, t0, 0
	for now.Before(t0.Add(10 * time.Minute)) {
		var action Action
		if c, action = c.Step(Timer, nil, now); action == Drop {
			t.Fatalf("dropped after %s", now.Sub(t0))
		} else if action != Wait {
			asked++
			given = now
			lease, err := leaseFrom(ack, now)
			must(t, err)
			c, _ = c.Step(Got, lease, now)
		}
		now = c.Next
	}
	if asked > 61 {
		t.Errorf("%d questions in ten minutes", asked)
	}
	for action := Wait; action != Drop; now = c.Next {
		if c, action = c.Step(Timer, nil, now); action != Drop && action != Wait {
			c, action = c.Step(Failed, nil, now.Add(time.Second))
		}
		if now.After(given.Add(21 * time.Second)) {
			t.Fatalf("%s after a lease of 20 s the address is still in use", now.Sub(given))
		}
	}
}

func FuzzLease(f *testing.F) {
	for _, options := range [][]dhcpv4.Modifier{
		nil,
		{dhcpv4.WithYourIP([]byte{192, 0, 2, 9}), dhcpv4.WithLeaseTime(1), dhcpv4.WithDomainSearchList("a b\n", "x.example")},
		{dhcpv4.WithYourIP([]byte{192, 0, 2, 9}), dhcpv4.WithGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{8, 10, 1, 2, 3, 4, 33}), dhcpv4.WithGeneric(dhcpv4.OptionSubnetMask, []byte{255, 0, 255, 0})},
	} {
		p, err := dhcpv4.New(options...)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.ToBytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ack, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		l, err := leaseFrom(ack, t0)
		if err != nil {
			return
		}
		if l.Valid < shortest || l.Renew <= 0 || l.Renew >= l.Rebind || l.Rebind >= l.Valid {
			t.Errorf("times out of order: %s %s %s", l.Renew, l.Rebind, l.Valid)
		}
		if !l.Address.IsValid() || !Usable(l.Address.Addr()) {
			t.Errorf("address %s", l.Address)
		}
		checkServers(t, l)
	})
}

// checkServers wants of a lease what init/network rests on: addresses that can be asked,
// search domains that are no more than that in resolv.conf, and networks to have routes to.
func checkServers(t *testing.T, l *control.Lease) {
	t.Helper()
	for _, a := range slices.Concat(l.DNS, l.NTP) {
		if !Usable(a) {
			t.Errorf("server %s", a)
		}
	}
	for _, name := range l.Search {
		if !IsDomain(name) || strings.ContainsAny(name, " \n") {
			t.Errorf("search domain %q", name)
		}
	}
	for _, r := range l.Routes {
		if !r.To.IsValid() || r.To != r.To.Masked() || r.Via.IsValid() && !Usable(r.Via) {
			t.Errorf("route to %s by %s", r.To, r.Via)
		}
	}
	if len(l.DNS) > 3 || len(l.NTP) > 4 || len(l.Search) > 6 || len(l.Routes) > maxLeaseRoutes {
		t.Errorf("%+v", l)
	}
}
