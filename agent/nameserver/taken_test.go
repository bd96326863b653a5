package nameserver

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"kogge.example/agent/workload"
)

// TestTaken: another program on the node has port 53, as a name server for the LAN does in
// a container on the host's network. It is said for as long as that is so, and no longer.
func TestTaken(t *testing.T) {
	bridges, subnets := node(t)
	if bridges == nil {
		return
	}
	web := attach(t, bridges, "web", workload.Address{Network: "front", Addr: addr("10.88.0.2")})
	const inUse = "another program of the node has port 53, as a container with network_mode: host may: " +
		"containers cannot ask for names on "
	for name, c := range map[string]struct {
		network, at string
		want        string
	}{
		"by UDP":                   {"udp", ":53", inUse + "networks back, front, other: "},
		"by UDP on IPv4":           {"udp4", ":53", inUse + "networks back, front, other: "},
		"by TCP":                   {"tcp", ":53", inUse + "networks back, front, other: "},
		"on one network's gateway": {"udp4", "10.88.0.1:53", inUse + "network front: "},
		"on an address elsewhere":  {"udp4", "127.0.0.53:53", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var other interface{ Close() error }
			var err error
			if strings.HasPrefix(c.network, "udp") {
				other, err = net.ListenPacket(c.network, c.at)
			} else {
				other, err = net.Listen(c.network, c.at)
			}
			must(t, err)
			s := New(func() []netip.Addr { return nil })
			s.again = 10 * time.Millisecond
			defer s.Close()
			s.Set(fleet(subnets))
			answers := func() bool {
				a, err := ask(t, web, "udp", "10.88.0.1", new(dns.Msg).SetQuestion("web.", dns.TypeA))
				return err == nil && len(a.Answer) == 1
			}
			switch err := s.Problem(); {
			case c.want == "":
				if err != nil || !answers() {
					t.Errorf("problem %v", err)
				}
			case err == nil || !strings.Contains(err.Error(), c.want):
				t.Errorf("problem %v, want %s", err, c.want)
			}
			must(t, other.Close())
			until(t, "an end of the problem", func() bool { return s.Problem() == nil })
			until(t, "an answer", answers)
		})
	}
	t.Run("a socket that ends", func(t *testing.T) {
		s := New(func() []netip.Addr { return nil })
		s.again = 10 * time.Millisecond
		defer s.Close()
		s.Set(fleet(subnets))
		s.mu.Lock()
		before := s.listening["front"]
		s.mu.Unlock()
		must(t, before.servers[0].PacketConn.Close())
		until(t, "another one", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			now := s.listening["front"]
			return now != before && len(now.servers) > 0
		})
		if got := s.String(); got != "back (10.88.1.1), front (10.88.0.1), other (10.88.2.1)" || s.Problem() != nil {
			t.Errorf("listening on %s, %v", got, s.Problem())
		}
	})
}
