package network

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/init/control"
)

// These have a container's tunnel and its bridge in an entry that is for forwarding alone:
// what the container gave them stays, before and after the node's restart and without the
// entry. What the node gave them before leaves.
func TestForwardTunnel(t *testing.T) {
	forwardOnly(t, &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}, Mode: netlink.TUNTAP_MODE_TUN}, "{match: wg0, forward: true}")
}

func TestForwardBridge(t *testing.T) {
	forwardOnly(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wg0"}}, "{match: wg0, dhcp: false, forward: true}")
}

func forwardOnly(t *testing.T, link netlink.Link, entry string) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	must(t, netlink.LinkAdd(link))
	known := func(links int) {
		t.Helper()
		until(t, "the node to know", func() bool { n, err := control.ReadNetwork(paths.Run); return err == nil && len(n.Interfaces) == links })
	}
	// looked is after a whole look of the node at all links.
	looked := func(links int) {
		t.Helper()
		one := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other"}}
		must(t, netlink.LinkAdd(one))
		known(links + 1)
		must(t, netlink.LinkDel(one))
		known(links)
	}
	const other = "{match: other, dhcp: false}"
	stop := node(t, "network: ["+other+", {match: wg0, addresses: [192.0.2.9/24]}]", paths)
	until(t, "the address of node.yaml", func() bool { return has("wg0", "192.0.2.9/24") })
	stop()
	yaml := "network: [" + other + ", " + entry + "]"
	stop = node(t, yaml, paths)
	until(t, "it to leave", func() bool { return !has("wg0", "192.0.2.9/24") })
	wg, err := netlink.LinkByName("wg0")
	must(t, err)
	for _, a := range []string{"10.9.0.1/24", "fd09::1/64"} {
		must(t, netlink.AddrAdd(wg, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD}))
	}
	must(t, netlink.LinkSetMTU(wg, 1380))
	stays := func(when string) {
		t.Helper()
		wg, err := netlink.LinkByName("wg0")
		must(t, err)
		if !has("wg0", "10.9.0.1/24") || !has("wg0", "fd09::1/64") || wg.Attrs().Flags&net.FlagUp == 0 || wg.Attrs().MTU != 1380 {
			t.Errorf("%s the container's link is not as it made it: %+v", when, wg.Attrs())
		}
	}
	looked(1)
	stays("at run time")
	stop()
	stop = node(t, yaml, paths)
	looked(1)
	stays("after a restart")
	stop()
	node(t, "network: ["+other+"]", paths)
	looked(0)
	stays("without an entry")
}
