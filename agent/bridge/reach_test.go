package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// reachPage is where operators read what a container reaches, below reachTitle.
const (
	reachPage  = "../../cmd/kogge/pages/compose.md"
	reachTitle = "\n## What a container reaches\n"
)

// reachRows are the rows of the page's table: what a container calls, and whether it is
// answered, first from a network, then from an internal one.
func reachRows(t *testing.T) map[string][2]bool {
	t.Helper()
	page, err := os.ReadFile(reachPage)
	must(t, err)
	_, text, found := strings.Cut(string(page), reachTitle)
	if !found {
		t.Fatalf("%s has no section %q", reachPage, reachTitle)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	rows, begun := make(map[string][2]bool), false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if !begun || len(f) == 0 {
			begun = begun && len(rows) == 0 || strings.HasPrefix(line, "    CALLED")
			continue
		}
		var says [2]bool
		for i, word := range f[len(f)-2:] {
			if word != "yes" && word != "no" {
				t.Fatalf("%s: %q says neither yes nor no", reachPage, line)
			}
			says[i] = word == "yes"
		}
		rows[strings.Join(f[:len(f)-2], " ")] = says
	}
	return rows
}

// TestReach tries every row of the page from inside of two containers: one on a network,
// one on an internal network, which has made itself a default route through its gateway,
// as one with the right to it would.
func TestReach(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	must(t, writeSetting("ipv6/conf/uplink/accept_dad", "0"))
	address(t, nil, "uplink", "2001:db8::1/64")
	address(t, nil, "uplink", "169.254.9.9/16")
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	made, err := b.Make([]workload.Network{{Name: "front"}, {Name: "back", Internal: true}, {Name: "other"}, {Name: "vault", Internal: true}})
	must(t, err)
	addr := func(network string, last byte) netip.Addr {
		a := made[network].Masked().Addr().As4()
		a[3] = last
		return netip.AddrFrom4(a)
	}
	container := func(id, network string, last byte) string {
		ns := attach(t, b, id, []workload.Address{{Network: network, Addr: addr(network, last)}})
		serve(t, ns, id)
		return ns
	}
	front, back := container("front", "front", 2), container("back", "back", 2)
	container("beside", "front", 3)
	container("within", "back", 3)
	container("other", "other", 2)
	container("vault", "vault", 2)
	defaultRoute(t, back, made["back"].Gateway())

	// What listens on the node: services of its own, and of containers that share its network.
	serve(t, "", "node")
	serveOn(t, "", fmt.Sprintf(":%d", workload.APIPort), "api")
	serveOn(t, "", ":5353", "mdns")
	for _, n := range made {
		serveOn(t, "", netip.AddrPortFrom(n.Gateway(), workload.NamePort).String(), "names of "+n.Name)
	}
	serveOn(t, "", "192.0.2.1:53", "a name server on the node's network")
	serveOn(t, lan, ":5353", "mdns of a neighbour")
	serveOn(t, lan, ":67", "dhcp")
	var ports []workload.Publish
	for i, to := range []netip.Addr{addr("other", 2), addr("vault", 2), addr("back", 3)} {
		for _, protocol := range []workload.Protocol{workload.TCP, workload.UDP} {
			ports = append(ports, workload.Publish{Protocol: protocol, HostPort: uint16(8080 + i), To: netip.AddrPortFrom(to, 80)})
		}
	}
	apply(t, b, ports)

	gateways := func(own string) []string {
		all := []string{"192.0.2.1"} // any address of the node, the network's own first
		for _, name := range []string{"front", "back", "other"} {
			if name == own {
				all = append([]string{made[name].Gateway().String()}, all...)
			} else {
				all = append(all, made[name].Gateway().String())
			}
		}
		return all
	}
	type place struct {
		ns, network string
		limit       time.Duration // for an answer
	}
	call := func(p place, network string, port int, hosts ...string) (string, bool) {
		var all []packet
		for _, host := range hosts {
			all = append(all, packet{network: network, to: net.JoinHostPort(host, fmt.Sprint(port))})
		}
		return first(t, p.ns, p.limit, all...)
	}
	both := func(p place, port int, hosts ...string) (string, bool) {
		var all []packet
		for _, host := range hosts {
			to := net.JoinHostPort(host, fmt.Sprint(port))
			all = append(all, packet{network: "tcp4", to: to}, packet{network: "udp4", to: to})
		}
		return first(t, p.ns, p.limit, all...)
	}
	tries := map[string]func(place) (string, bool){
		"containers of its networks": func(p place) (string, bool) { return both(p, 80, addr(p.network, 3).String()) },
		"containers of other networks, by their addresses": func(p place) (string, bool) {
			return both(p, 80, addr("other", 2).String(), addr("vault", 2).String())
		},
		"published ports, by any address of the node": func(p place) (string, bool) {
			answer, ok := both(p, 8080, gateways(p.network)...)
			for port := 8081; port <= 8082 && !ok; port++ {
				answer, ok = both(p, port, gateways(p.network)...)
			}
			return answer, ok
		},
		"the node's name server, at its gateway": func(p place) (string, bool) {
			return both(p, workload.NamePort, made[p.network].Gateway().String())
		},
		"name servers at other addresses of the node": func(p place) (string, bool) {
			return both(p, workload.NamePort, gateways(p.network)[1:]...)
		},
		"the node's echo (ping)":           func(p place) (string, bool) { return ping(t, p.ns, "192.0.2.1", p.limit) },
		"the node's API":                   func(p place) (string, bool) { return both(p, workload.APIPort, gateways(p.network)...) },
		"other services on the node":       func(p place) (string, bool) { return both(p, 80, gateways(p.network)...) },
		"the node's loopback":              func(p place) (string, bool) { return loopback(t, p.ns, made[p.network].Gateway(), p.limit) },
		"the node's neighbours and beyond": func(p place) (string, bool) { return both(p, 80, "192.0.2.2") },
		"multicast DNS and DHCP, for others": func(p place) (string, bool) {
			return first(t, p.ns, p.limit,
				packet{"udp4", "", "192.0.2.2:5353"}, packet{"udp4", "", "192.0.2.2:67"},
				packet{"udp4", ":5353", "192.0.2.2:80"}, packet{"udp4", ":68", "192.0.2.2:80"}, packet{"tcp4", ":7443", "192.0.2.2:80"})
		},
		"link-local addresses (169.254.0.0/16)": func(p place) (string, bool) { return both(p, 80, "169.254.9.9") },
		"broadcast and multicast to the node": func(p place) (string, bool) {
			return call(p, "udp4", 80, "255.255.255.255", last(made[p.network].Prefix).String(), "224.0.0.1")
		},
		"anybody, under an address not its own": func(p place) (string, bool) {
			lo(t, p.ns, "198.51.100.7/32")
			const from = "198.51.100.7:0"
			return first(t, p.ns, p.limit, packet{"udp4", from, "192.0.2.2:80"}, packet{"udp4", from, "192.0.2.1:8080"},
				packet{"udp4", from, netip.AddrPortFrom(made[p.network].Gateway(), workload.NamePort).String()})
		},
		"IPv6": func(p place) (string, bool) {
			must(t, in(t, p.ns, func() error { return writeSetting("ipv6/conf/eth0/disable_ipv6", "0") })) // as one may that has the right to
			return call(p, "udp6", 80, linkLocal(t, made[p.network].Device), "2001:db8::1", "ff02::1%eth0")
		},
	}
	serveOn6(t, "[::]:80", "node by IPv6")
	rows := reachRows(t)
	check := func(row string, p place, says bool) {
		if p.limit = time.Second; says {
			p.limit = 20 * time.Second
		}
		answer, got := tries[row](p)
		if got != says {
			t.Errorf("%s, from network %s: %v %q, and %s says %v", row, p.network, got, answer, reachPage, says)
		}
		if row == "the node's name server, at its gateway" && answer != "names of "+p.network {
			t.Errorf("%s, from network %s: %q", row, p.network, answer)
		}
	}
	const alone = "the node's loopback" // it takes the container's away for a while
	var together sync.WaitGroup
	for row, says := range rows {
		if tries[row] == nil {
			t.Errorf("%s: nobody tries %q", reachPage, row)
		} else if row != alone {
			together.Go(func() { check(row, place{ns: front, network: "front"}, says[0]) })
			together.Go(func() { check(row, place{ns: back, network: "back"}, says[1]) })
		}
	}
	together.Wait()
	check(alone, place{ns: front, network: "front"}, rows[alone][0])
	check(alone, place{ns: back, network: "back"}, rows[alone][1])
	for row := range tries {
		if _, there := rows[row]; !there {
			t.Errorf("%s lacks the row %q", reachPage, row)
		}
	}
}

// packet is the first one of a conversation; from may be empty.
type packet struct{ network, from, to string }

// first is the answer to any of the packets, which leave ns together, and false if none
// comes within the limit.
func first(t *testing.T, ns string, limit time.Duration, all ...packet) (answer string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	answers := make(chan string, len(all)) // empty: none
	for _, p := range all {
		go func() {
			answer, err := p.send(ctx, t, ns)
			if err != nil {
				answer = ""
			}
			answers <- answer
		}()
	}
	for range all { // none of them outlives the test
		if one := <-answers; one != "" && answer == "" {
			answer = one
			cancel()
		}
	}
	return answer, answer != ""
}

func (p packet) send(ctx context.Context, t *testing.T, ns string) (answer string, err error) {
	var c net.Conn
	err = in(t, ns, func() (err error) {
		d := net.Dialer{Control: broadcasts}
		switch {
		case p.from != "" && p.network == "udp4":
			d.LocalAddr, err = net.ResolveUDPAddr(p.network, p.from)
		case p.from != "":
			d.LocalAddr, err = net.ResolveTCPAddr(p.network, p.from)
		}
		if err == nil {
			c, err = d.DialContext(ctx, p.network, p.to)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if strings.HasPrefix(p.network, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// ping asks for an echo.
func ping(t *testing.T, ns, host string, limit time.Duration) (string, bool) {
	t.Helper()
	var fd int
	must(t, in(t, ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	}))
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(limit.Nanoseconds())
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	echo := []byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1} // type, code, sum, id, number
	if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(host).As4()}); err != nil {
		return err.Error(), false
	}
	buf := make([]byte, 256)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err.Error(), false
		}
		if n >= 28 && buf[20] == 0 { // behind the IP header
			return "echo", true
		}
	}
	return "no echo", false
}

// loopback calls the node's from ns, which gives up its own for that.
func loopback(t *testing.T, ns string, gateway netip.Addr, limit time.Duration) (string, bool) {
	t.Helper()
	h := inside(t, ns)
	own, err := h.LinkByName("lo")
	must(t, err)
	must(t, h.LinkSetDown(own))
	defer func() { must(t, h.LinkSetUp(own)) }()
	eth, err := h.LinkByName("eth0")
	must(t, err)
	must(t, in(t, ns, func() error { return writeSetting("ipv4/conf/eth0/route_localnet", "1") }))
	_, dst, err := net.ParseCIDR("127.0.0.0/8")
	must(t, err)
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Dst: dst, Gw: net.IP(gateway.AsSlice())}
	must(t, h.RouteAdd(route))
	defer func() { must(t, h.RouteDel(route)) }()
	return first(t, ns, limit, packet{network: "tcp4", to: "127.0.0.1:80"}, packet{network: "udp4", to: "127.0.0.1:8080"})
}

// inside opens route netlink in the namespace of a container.
func inside(t *testing.T, ns string) *netlink.Handle {
	t.Helper()
	f, err := os.Open(ns)
	must(t, err)
	defer f.Close()
	h, err := handleAt(f)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func defaultRoute(t *testing.T, ns string, via netip.Addr) {
	t.Helper()
	h := inside(t, ns)
	eth, err := h.LinkByName("eth0")
	must(t, err)
	must(t, h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(via.AsSlice())}))
}

// lo gives the loopback of ns one more address, if it has not got it.
func lo(t *testing.T, ns, addr string) {
	t.Helper()
	h := inside(t, ns)
	l, err := h.LinkByName("lo")
	must(t, err)
	a, err := netlink.ParseAddr(addr)
	must(t, err)
	if err := h.AddrAdd(l, a); err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
}

// linkLocal is what a container would call the node by, on the link that they share.
func linkLocal(t *testing.T, device string) string {
	t.Helper()
	l, err := netlink.LinkByName(device)
	must(t, err)
	mac := l.Attrs().HardwareAddr
	return fmt.Sprintf("fe80::%02x%02x:%02xff:fe%02x:%02x%02x%%eth0", mac[0]^2, mac[1], mac[2], mac[3], mac[4], mac[5])
}

// last is the broadcast address of a network.
func last(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	a[3] = 255
	return netip.AddrFrom4(a)
}

func writeSetting(file, value string) error {
	return os.WriteFile("/proc/sys/net/"+file, []byte(value), 0o644)
}

func broadcasts(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) }); e != nil {
		return e
	}
	return err
}

// serveOn6 answers every UDP packet with name.
func serveOn6(t *testing.T, addr, name string) {
	t.Helper()
	p, err := net.ListenPacket("udp6", addr)
	must(t, err)
	t.Cleanup(func() { p.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name), from)
		}
	}()
}
