package bridge

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kogge.example/agent/workload"
)

// TestMany: a node with forty networks and thousands of ports keeps networks apart, leads
// ports to containers and forwards what they say, as one with two of each does.
func TestMany(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	b, err := Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	var wanted []workload.Network
	for i := range 40 {
		wanted = append(wanted, workload.Network{Name: fmt.Sprintf("n%02d", i), Internal: i%2 == 1})
	}
	made, err := b.Make(wanted)
	must(t, err)
	in := func(network string, host int) netip.Addr {
		a := made[network].Prefix.Addr().As4()
		a[3] = byte(host)
		return netip.AddrFrom4(a)
	}
	join := func(id, network string, host int) string {
		ns := attach(t, b, id, []workload.Address{{Network: network, Addr: in(network, host)}})
		serve(t, ns, id)
		return ns
	}
	first, last := join("first", "n00", 2), join("last", "n38", 2)
	beside, hidden := join("beside", "n38", 3), join("hidden", "n39", 2)
	ports := published(4096, netip.Addr{}, in("n38", 2))
	ports = append(ports, published(1, netip.MustParseAddr("192.0.2.1"), in("n00", 2))...)
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644))
	wrong := workload.Publish{Protocol: workload.TCP, HostPort: 1, To: to("203.0.113.1:80")}
	if err := b.Publish(append(ports, wrong)); err == nil || !strings.Contains(err.Error(), "203.0.113.1 is not on a network") || strings.Contains(err.Error(), "\n") {
		t.Errorf("of one port that cannot be it says %v", err)
	}
	for _, c := range []struct{ name, from, addr, want string }{
		{"to the world", last, "192.0.2.2:80", "uplink"},
		{"on a network", beside, in("n38", 2).String() + ":80", "last"},
		{"the first port", first, "127.0.0.1:80", "first"},
		{"a port by one address", lan, "192.0.2.1:10000", "first"},
		{"the second port", lan, "192.0.2.1:10001", "last"},
		{"the last port", lan, "192.0.2.1:14095", "last"},
		{"a port of the network itself", beside, "192.0.2.1:14095", "last"},
	} {
		if got, err := ask(t, c.from, "tcp4", c.addr); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	var together sync.WaitGroup
	for _, c := range []struct{ name, from, addr string }{
		{"another network", first, in("n38", 2).String() + ":80"},
		{"an internal network to the world", hidden, "192.0.2.2:80"},
	} {
		together.Go(func() {
			if got, err := ask(t, c.from, "tcp4", c.addr); err == nil {
				t.Errorf("%s: got an answer: %q", c.name, got)
			}
		})
	}
	together.Wait()
}

// published are so many ports that lead to a container's port 80.
func published(count int, host, to netip.Addr) (all []workload.Publish) {
	for i := range count {
		all = append(all, workload.Publish{Protocol: workload.TCP, HostIP: host, HostPort: uint16(10000 + i), To: netip.AddrPortFrom(to, 80)})
	}
	return all
}

// TestApplyMany reads back what the kernel has, of more than fits into one attribute of
// netlink, one message, and its buffers.
func TestApplyMany(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, c := range []struct{ networks, ports int }{{1, 1821}, {100, 1}, {256, 20000}} {
		var networks []workload.Subnet
		for i := range c.networks {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88 + byte(i>>8), byte(i), 0}), 24)
			networks = append(networks, workload.Subnet{Network: workload.Network{Name: fmt.Sprint(i)}, Device: fmt.Sprintf("kogge-%08x", i), Prefix: p})
		}
		to := netip.MustParseAddr("10.88.0.2")
		r, err := Rules(networks, append(published(c.ports, netip.Addr{}, to), published(c.ports, netip.MustParseAddr("192.0.2.7"), to)...))
		must(t, err)
		if err := Apply(r); err != nil {
			t.Errorf("%d networks, twice %d ports: %v", c.networks, c.ports, err)
			continue
		}
		for family, want := range map[string]map[string]int{
			"ip":  {" : 10.88.0.2 . 80": 2 * c.ports, fmt.Sprintf("%q", networks[c.networks-1].Device): 3},
			"arp": {fmt.Sprintf("%q", networks[c.networks-1].Device): 1},
		} {
			text, err := exec.CommandContext(t.Context(), "nft", "list", "table", family, table).Output()
			must(t, err)
			for what, times := range want {
				if got := strings.Count(string(text), what); got != times {
					t.Errorf("%d networks, twice %d ports: table %s has %q %d times, want %d", c.networks, c.ports, family, what, got, times)
				}
			}
		}
	}
}
