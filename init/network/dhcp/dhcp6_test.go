package dhcp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

// TestModeOf shows what is asked of DHCPv6 servers, by flags, what was asked before, and
// whether the cable has long been in.
func TestModeOf(t *testing.T) {
	var out strings.Builder
	words := map[Mode]string{NoDHCPv6: "nothing", Stateless: "servers", Stateful: "address"}
	for _, f := range []Flags{{}, {Other: true}, {Managed: true}, {true, true}} {
		for _, before := range []Mode{NoDHCPv6, Stateless, Stateful} {
			fmt.Fprintf(&out, "managed %-5v other %-5v before %-7s → just plugged in %-7s later %-7s ipv6: static %s\n", f.Managed, f.Other, words[before],
				words[ModeOf(nodeconfig.IPv6Auto, f, before, false)], words[ModeOf(nodeconfig.IPv6Auto, f, before, true)], words[ModeOf(nodeconfig.IPv6Static, f, before, true)])
		}
	}
	golden.Compare(t, "mode.txt", out.String())
}

var (
	testMAC    = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	testIAID   = newV6("eth0", testMAC.String(), Stateful).iaid()
	testServer = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
)

// reply is a server's, with these in the one identity association.
func reply(t1, t2 time.Duration, options ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
	m.AddOption(dhcpv6.OptServerID(testServer))
	ia := &dhcpv6.OptIANA{IaId: testIAID, T1: t1, T2: t2}
	for _, o := range options {
		ia.Options.Add(o)
	}
	m.AddOption(ia)
	return m
}

func iaAddress(a string, preferred, valid time.Duration) dhcpv6.Option {
	return &dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a), PreferredLifetime: preferred, ValidLifetime: valid}
}

// TestLease6 shows what becomes of servers' answers.
func TestLease6(t *testing.T) {
	var out strings.Builder
	full := reply(30*time.Minute, 48*time.Minute, iaAddress("2001:db8::5", time.Hour, 2*time.Hour))
	full.AddOption(dhcpv6.OptDNS(net.ParseIP("fe80::1"), net.ParseIP("2001:db8::53"), net.ParseIP("::"), net.ParseIP("ff02::1")))
	dhcpv6.WithDomainSearchList("lan.example", "a b", "LAN.example.")(full)
	full.AddOption(&dhcpv6.OptNTPServer{Suboptions: dhcpv6.Options{(*dhcpv6.NTPSuboptionSrvAddr)(ptr(net.ParseIP("fe80::123")))}})
	refused := reply(0, 0)
	refused.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusUnspecFail})
	foreign := reply(0, 0, iaAddress("2001:db8::5", time.Hour, time.Hour))
	foreign.Options.OneIANA().IaId = [4]byte{9}
	const forever = 0xffffffff * time.Second
	for _, c := range []struct {
		name string
		m    *dhcpv6.Message
	}{
		{"whole", full},
		{"no times", reply(0, 0, iaAddress("2001:db8::5", time.Hour, 2*time.Hour))},
		{"times out of order", reply(2*time.Hour, time.Hour, iaAddress("2001:db8::5", time.Hour, 2*time.Hour))},
		{"a second", reply(0, 0, iaAddress("2001:db8::5", time.Second, time.Second))},
		{"for ever", reply(forever, forever, iaAddress("2001:db8::5", forever, forever))},
		{"renumbered", reply(0, 0, iaAddress("2001:db8::5", 0, time.Hour), iaAddress("2001:db8:1::5", time.Hour, time.Hour))},
		{"phased out", reply(0, 0, iaAddress("2001:db8::5", 0, time.Hour))},
		{"taken back", reply(0, 0, iaAddress("2001:db8::5", 0, 0))},
		{"preferred for longer than valid", reply(0, 0, iaAddress("2001:db8::5", 2*time.Hour, time.Hour))},
		{"link-local", reply(0, 0, iaAddress("fe80::5", time.Hour, time.Hour))},
		{"multicast", reply(0, 0, iaAddress("ff02::5", time.Hour, time.Hour))},
		{"IPv4 in it", reply(0, 0, iaAddress("::ffff:192.0.2.1", time.Hour, time.Hour))},
		{"no binding", reply(0, 0, &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding})},
		{"no address", reply(0, 0)},
		{"another association's", foreign},
		{"refused", refused},
	} {
		l, err := lease6From(c.m, testIAID, t0)
		if err != nil {
			fmt.Fprintf(&out, "%s: %v (refused: %v)\n", c.name, err, errors.Is(err, ErrNak))
			continue
		}
		fmt.Fprintf(&out, "%s: %s renew %s rebind %s preferred %s valid %s dns %v ntp %v search %v\n", c.name, l.Address, l.Renew, l.Rebind, l.Preferred, l.Valid, l.DNS, l.NTP, l.Search)
	}
	golden.Compare(t, "lease6.txt", out.String())
}

func ptr[T any](v T) *T { return &v }

func FuzzLease6(f *testing.F) {
	for _, m := range []*dhcpv6.Message{
		reply(0, 0, iaAddress("2001:db8::5", time.Hour, 2*time.Hour)),
		reply(time.Minute, time.Hour, &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding}),
	} {
		dhcpv6.WithDNS(net.ParseIP("fe80::1"))(m)
		dhcpv6.WithDomainSearchList("lan.example", "a b\n")(m)
		f.Add(m.ToBytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv6.MessageFromBytes(data)
		if err != nil {
			return
		}
		newV6("eth0", testMAC.String(), Stateful).answers(dhcpv6.MessageTypeReply)(m)
		for _, l := range []*control.Lease{informed(m, t0), first(lease6From(m, testIAID, t0))} {
			if l == nil {
				continue
			}
			if l.Renew <= 0 || l.Renew >= l.Rebind || l.Rebind >= l.Valid || l.Preferred < 0 || l.Preferred > l.Valid || l.Valid < shortest {
				t.Errorf("times out of order: %s %s %s %s", l.Renew, l.Rebind, l.Preferred, l.Valid)
			}
			if a := l.Address.Addr(); l.Address.IsValid() && (!a.Is6() || !Usable(a) || a.IsLinkLocalUnicast()) {
				t.Errorf("address %s", l.Address)
			}
			if _, err := hex.DecodeString(l.ServerID); err != nil {
				t.Errorf("%+v", l)
			}
			checkServers(t, l)
		}
	})
}

func first[T any](v T, _ error) T { return v }
