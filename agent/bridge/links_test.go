package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
	"kogge.example/agent/workload"
)

// TestNodePorts: whatever is published, the node's own ports lead to the node.
func TestNodePorts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces, a bridge and an nftables table")
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return
	}
	up(t, "lo")
	lan := lan(t)
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	_, err = b.Make([]workload.Network{{Name: "front"}})
	must(t, err)
	thief := netip.MustParseAddr("10.88.0.2")
	serve(t, attach(t, b, "thief", []workload.Address{{Network: "front", Addr: thief}}), "thief")
	var ports []workload.Publish
	for _, p := range workload.NodePorts {
		serveOn(t, "", fmt.Sprintf(":%d", p.Port), "node")
		for _, at := range []netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")} {
			for _, protocol := range []workload.Protocol{workload.TCP, workload.UDP} {
				ports = append(ports, workload.Publish{Protocol: protocol, HostIP: at, HostPort: p.Port, To: netip.AddrPortFrom(thief, 80)})
			}
		}
	}
	apply(t, b, ports)
	for _, p := range workload.NodePorts {
		network := string(p.Protocol) + "4"
		for from, hosts := range map[string][]string{lan: {"192.0.2.1"}, "": {"192.0.2.1", "127.0.0.1", "10.88.0.1"}} {
			for _, host := range hosts {
				addr := net.JoinHostPort(host, fmt.Sprint(p.Port))
				if got, err := ask(t, from, network, addr); err != nil || got != "node" {
					t.Errorf("%s %s (%s): %q, %v", network, addr, p.What, got, err)
				}
			}
		}
	}
	// Nothing of that is tracked, so that a full table takes none of it away.
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	must(t, err)
	for _, f := range flows {
		if _, own := workload.NodeOwns(map[uint8]workload.Protocol{unix.IPPROTO_TCP: workload.TCP, unix.IPPROTO_UDP: workload.UDP}[f.Forward.Protocol], f.Forward.DstPort); own {
			t.Errorf("tracked: %v", f)
		}
	}
	// What is not the node's under that number may be published.
	if got, err := ask(t, lan, "tcp4", "192.0.2.1:5353"); err != nil || got != "thief" {
		t.Errorf("5353/tcp: %q, %v", got, err)
	}
}

// TestRouted: the node routes between its own links only where node.yaml asks for it, at
// both of them, and the containers between do not matter.
func TestRouted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces, a bridge and an nftables table")
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return
	}
	up(t, "lo")
	office := neighbour(t, "office", "192.0.2.1/24", "192.0.2.2/24")
	machines := neighbour(t, "machines", "198.51.100.1/24", "198.51.100.2/24")
	third := neighbour(t, "third", "203.0.113.1/24", "203.0.113.2/24")
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	_, err = b.Make([]workload.Network{{Name: "front"}})
	must(t, err)
	inside := attach(t, b, "web", []workload.Address{{Network: "front", Addr: netip.MustParseAddr("10.88.0.2")}})
	serve(t, inside, "web")
	var routed []string
	b.Routed = func() []string { return routed }
	apply(t, b, []workload.Publish{{Protocol: workload.TCP, HostPort: 8080, To: netip.MustParseAddrPort("10.88.0.2:80")}})
	for _, step := range []struct {
		routed []string
		open   bool // between office and machines
	}{{nil, false}, {[]string{"machines", "office"}, true}, {[]string{"machines"}, false}} {
		routed = step.routed
		must(t, b.Follow())
		for _, c := range []struct {
			from, to string
			answered bool
		}{
			{office, "198.51.100.2:80", step.open}, {machines, "192.0.2.2:80", step.open},
			{office, "203.0.113.2:80", false}, {third, "192.0.2.2:80", false}, {third, "198.51.100.2:80", false},
			{office, "192.0.2.1:8080", true}, {third, "203.0.113.1:8080", true}, // published
			{office, "10.88.0.2:80", false},
			{inside, "192.0.2.2:80", true}, {inside, "198.51.100.2:80", true}, {inside, "203.0.113.2:80", true},
		} {
			limit := time.Second
			if c.answered {
				limit = 20 * time.Second
			}
			if got, ok := first(t, c.from, limit, packet{network: "tcp4", to: c.to}); ok != c.answered {
				t.Errorf("routed %v: from %s to %s: %q", step.routed, filepath.Base(c.from), c.to, got)
			}
		}
	}
}

// neighbour makes a link of the node with somebody at its other end, who has a default
// route to the node and answers on port 80, and returns his namespace.
func neighbour(t *testing.T, link, node, his string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), link)
	ns, err := newNamespace(file, workload.Owner{})
	must(t, err)
	t.Cleanup(func() { must(t, removeNamespace(file)) })
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	address(t, nil, link, node)
	h, err := handleAt(ns)
	must(t, err)
	defer h.Close()
	address(t, h, "eth0", his)
	eth, err := h.LinkByName("eth0")
	must(t, err)
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(netip.MustParsePrefix(node).Addr().AsSlice())}))
	serve(t, file, link)
	return file
}
