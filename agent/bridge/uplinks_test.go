package bridge

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"kogge.example/agent/workload"
)

// TestUplinks: a container answers by the uplink where the question came in, though the
// default route is another's; what it begins itself goes by the default route.
func TestUplinks(t *testing.T) {
	if !alone(t) {
		return
	}
	first := neighbour(t, "first", "192.0.2.1/24", "192.0.2.2/24")
	second := neighbour(t, "second", "203.0.113.1/24", "203.0.113.2/24")
	via := func(link, router string, table int) *netlink.Route {
		l, err := netlink.LinkByName(link)
		must(t, err)
		return &netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(router), Table: table}
	}
	must(t, netlink.RouteAdd(via("first", "192.0.2.2", 0)))
	// As init/network has it.
	l, err := netlink.LinkByName("second")
	must(t, err)
	rule := netlink.NewRule()
	rule.Priority, rule.Mark, rule.Table = 29002, uint32(l.Attrs().Index), 27000
	must(t, netlink.RouteAdd(via("second", "203.0.113.2", rule.Table)))
	must(t, netlink.RuleAdd(rule))
	// Somebody far away, behind both.
	for file, gateway := range map[string]string{first: "192.0.2.1", second: "203.0.113.1"} {
		ns, err := os.Open(file)
		must(t, err)
		defer ns.Close()
		h, err := handleAt(ns)
		must(t, err)
		defer h.Close()
		address(t, h, "eth0", "198.51.100.77/32")
		eth, err := h.LinkByName("eth0")
		must(t, err)
		must(t, h.RouteAdd(&netlink.Route{
			LinkIndex: eth.Attrs().Index, Dst: &net.IPNet{IP: net.ParseIP(gateway).To4(), Mask: net.CIDRMask(32, 32)},
			Src: net.ParseIP("198.51.100.77"), Scope: netlink.SCOPE_LINK,
		}))
	}
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	_, err = b.Make([]workload.Network{{Name: "front"}})
	must(t, err)
	inside := attach(t, b, "web", []workload.Address{{Network: "front", Addr: netip.MustParseAddr("10.88.0.2")}})
	serve(t, inside, "web")
	apply(t, b, []workload.Publish{{Protocol: workload.TCP, HostPort: 8080, To: netip.MustParseAddrPort("10.88.0.2:80")}})
	for _, c := range []struct{ from, to, want string }{
		{first, "192.0.2.1:8080", "web"}, {second, "203.0.113.1:8080", "web"},
		{inside, "198.51.100.77:80", "first"}, {inside, "203.0.113.2:80", "second"},
	} {
		if got, err := ask(t, c.from, "tcp4", c.to); err != nil || got != c.want {
			t.Errorf("from %s to %s: %q, %v, want %q", filepath.Base(c.from), c.to, got, err, c.want)
		}
	}
}
