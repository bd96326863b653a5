package network

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/init/control"
	"kogge.example/update/golden"
)

const stranger = "02:00:00:00:00:99"

// TestClaimStep shows the answer of a claim to every event in every state, of a lease and
// of an address from node.yaml.
func TestClaimStep(t *testing.T) {
	var out strings.Builder
	for _, leased := range []bool{false, true} {
		for _, s := range []Standing{Waiting, Probing, New, Held, Checking, Taken} {
			fmt.Fprintf(&out, "%s, %s\n", s, map[bool]string{false: "from node.yaml", true: "leased"}[leased])
			for _, e := range []Event{Timer, Conflict, Asked, CarrierUp, CarrierDown} {
				got, action := Claim{State: s, Leased: leased, Next: t0}.Step(e, stranger, t0)
				fmt.Fprintf(&out, "  %-12s → %-8s %s\n", e, action, shownClaim(got))
			}
			for _, after := range []time.Duration{9 * time.Second, 11 * time.Second} {
				if s == Held {
					got, action := Claim{State: s, Leased: leased, By: stranger, Conflict: t0}.Step(Conflict, stranger, t0.Add(after))
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", fmt.Sprintf("again, %s", after), action, shownClaim(got))
				}
			}
		}
	}
	golden.Compare(t, "claim-step.txt", out.String())
}

func shownClaim(c Claim) string {
	next := "-"
	if !c.Next.IsZero() {
		next = c.Next.Sub(t0).String()
	}
	return fmt.Sprintf("%-9s next %-6s %s", c.State, next, c.By)
}

// TestClaimTimes walks a claim whose address nobody else has to its rest.
func TestClaimTimes(t *testing.T) {
	var got []string
	c, now := claim(false, false, true, t0), t0
	for i := 0; !c.Next.IsZero() && i < 100; i++ {
		var action Action
		now = c.Next
		if c, action = c.Step(Timer, "", now); action != Wait {
			got = append(got, fmt.Sprintf("%s %s %v", now.Sub(t0), action, c.InUse()))
		}
	}
	want := []string{"0s probe false", "60ms probe false", "120ms probe false", "200ms announce true", "1.2s probe true", "2.2s announce true", "4.2s probe true"}
	if c.State != Held || !slices.Equal(got, want) || now.Sub(t0) < 7*time.Second {
		t.Errorf("%s after %s: %q, want %q", c.State, now.Sub(t0), got, want)
	}
}

// TestHeard: who has the address, who asks, and who is one of us.
func TestHeard(t *testing.T) {
	a, other := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1")
	none := netip.IPv4Unspecified()
	foreign, _ := net.ParseMAC(stranger)
	mine, _ := net.ParseMAC("02:00:00:00:00:01")
	own := map[string]bool{mine.String(): true}
	for _, c := range []struct {
		p    arp
		want Event
	}{
		{arp{false, foreign, a, other}, Conflict}, // an answer
		{arp{true, foreign, a, a}, Conflict},      // an announcement
		{arp{true, foreign, a, other}, Conflict},  // a question by whoever has it
		{arp{true, foreign, none, a}, Asked},
		{arp{true, foreign, other, a}, ""}, // somebody looks for us
		{arp{true, foreign, none, other}, ""},
		{arp{false, mine, a, other}, ""},
		{arp{true, mine, none, a}, ""},
	} {
		if got := heard(c.p, a, own); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}

func FuzzARP(f *testing.F) {
	mac, _ := net.ParseMAC(stranger)
	whole := arp{true, mac, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1")}.bytes()
	f.Add(whole)
	f.Add(whole[:27])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := parseARP(data)
		if !ok {
			return
		}
		if len(p.senderMAC) != 6 || !p.sender.Is4() || !p.target.Is4() {
			t.Errorf("%+v", p)
		}
		again, ok := parseARP(p.bytes())
		if !ok || !bytes.Equal(again.senderMAC, p.senderMAC) || again.sender != p.sender || again.target != p.target || !again.request {
			t.Errorf("%+v became %+v", p, again)
		}
	})
}

// listen hears in a segment what is said about addresses until the test ends.
func (s *segment) listen(about ...string) <-chan arpEvent {
	s.t.Helper()
	told := make(chan arpEvent, 100)
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		sock, err := openARP(Facts{Index: l.Attrs().Index, Name: s.port, MAC: l.Attrs().HardwareAddr.String()}, told)
		if err == nil {
			cares := addrs(strings.Join(about, " "))
			sock.cares.Store(&cares)
			s.t.Cleanup(sock.Close)
		}
		return err
	})
	return told
}

// say sends an announcement of a from the segment.
func (s *segment) say(a string) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err != nil {
			return err
		}
		sock, err := openARP(Facts{Index: l.Attrs().Index, Name: s.port, MAC: l.Attrs().HardwareAddr.String()}, nil)
		if err != nil {
			return err
		}
		defer sock.Close()
		return sock.send(Announce, netip.MustParseAddr(a))
	})
}

func (s *segment) mac() (mac string) {
	s.t.Helper()
	s.in(func() error {
		l, err := netlink.LinkByName(s.port)
		if err == nil {
			mac = l.Attrs().HardwareAddr.String()
		}
		return err
	})
	return mac
}

// problem is what the status says about the first link.
func problem(paths Paths) string {
	s, err := control.ReadNetwork(paths.Run)
	if err != nil || len(s.Interfaces) == 0 {
		return ""
	}
	return s.Interfaces[0].Problem
}

// TestProbed wants a static address to be asked for before it is used, and announced; and
// to be defended later.
func TestProbed(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newPeer(t, "lan0", "192.0.2.1/24")
	told := s.listen("192.0.2.7")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], gateway: 192.0.2.1, ipv6: off}]", paths)
	next := func(what string) (p arp) {
		t.Helper()
		select {
		case e := <-told:
			p = e.arp
		case <-time.After(2 * time.Minute):
			t.Fatalf("no %s", what)
		}
		return p
	}
	for range probes {
		if p := next("probe"); !p.request || !p.sender.IsUnspecified() || p.target.String() != "192.0.2.7" {
			t.Fatalf("no probe: %+v", p)
		}
	}
	announced := func(what string) {
		t.Helper()
		if p := next(what); p.sender.String() != "192.0.2.7" || p.target != p.sender || !has("lan0", "192.0.2.7/24") {
			t.Fatalf("no %s, or not in use: %+v", what, p)
		}
	}
	announced("announcement")
	next("late probe")
	announced("second announcement")
	next("last probe")
	// Somebody takes it later, once the node holds it.
	last := time.Now()
	until(t, "the address to be disputed and kept", func() bool {
		if time.Since(last) > 5*time.Second {
			s.say("192.0.2.7")
			last = time.Now()
		}
		return strings.Contains(problem(paths), s.mac()+" says that 192.0.2.7 is its own")
	})
	announced("defence")
	if !has("lan0", "192.0.2.7/24") || !slices.Equal(gateways(t), []string{"192.0.2.1"}) {
		t.Error("a static address was given up")
	}
}

// TestDuplicateStatic has somebody else hold the addresses from node.yaml: neither is used,
// the status says who has it, and once he is gone they are taken.
func TestDuplicateStatic(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	other := s.neighbour("192.0.2.7/24", "2001:db8::7/64")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24, '2001:db8::7/64'], gateway: 192.0.2.1, ipv6: static}]", paths)
	until(t, "the status to name both", func() bool {
		text := problem(paths)
		return strings.Contains(text, "192.0.2.7 is not used: "+other.mac()+" has it") && strings.Contains(text, "2001:db8::7 is not used: another machine has it")
	})
	if has("lan0", "192.0.2.7/24") || len(gateways(t)) > 0 {
		t.Errorf("the address is in use, routers %v", gateways(t))
	}
	other.remove("192.0.2.7/24", "2001:db8::7/64")
	until(t, "the address that is free now", func() bool { return has("lan0", "192.0.2.7/24") && len(gateways(t)) == 1 })
	// The cable out and in asks anew, also for those of IPv6.
	s.cable(false)
	until(t, "the loss of the carrier", func() bool { n, _ := control.ReadNetwork(paths.Run); return !n.Interfaces[0].Carrier })
	s.cable(true)
	until(t, "no problem any more", func() bool { return problem(paths) == "" })
}

// TestDuplicateLease has a server give out an address that somebody has: the node declines
// it and takes the next.
func TestDuplicateLease(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	other := s.neighbour("192.0.2.50/24")
	l, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	s.dnsmasq("dhcp-range=192.0.2.50,192.0.2.51,1h", "dhcp-host="+l.Attrs().HardwareAddr.String()+",192.0.2.50")
	node(t, "network: [{match: lan0, ipv6: off}]", paths)
	until(t, "the status to say so", func() bool {
		return problem(paths) == "the lease of 192.0.2.50 was declined: "+other.mac()+" has the address"
	})
	if has("lan0", "192.0.2.50/24") {
		t.Error("the address is in use")
	}
	until(t, "another lease", func() bool { return has("lan0", "192.0.2.51/24") && problem(paths) == "" })
}

// TestMovedCable takes a static address along into a network where somebody has it.
func TestMovedCable(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "192.0.2.1/24")
	node(t, "network: [{match: lan0, addresses: [192.0.2.7/24], ipv6: off}]", paths)
	until(t, "the address", func() bool { return has("lan0", "192.0.2.7/24") })
	s.cable(false)
	until(t, "the loss of the carrier", func() bool { n, _ := control.ReadNetwork(paths.Run); return !n.Interfaces[0].Carrier })
	s.address("192.0.2.7/24")
	s.cable(true)
	until(t, "the address given up", func() bool {
		return !has("lan0", "192.0.2.7/24") && strings.Contains(problem(paths), "192.0.2.7 is not used: "+s.mac()+" has it")
	})
}
