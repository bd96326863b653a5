package bridge

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/workload"
)

// TestMoves: what the node learns of its networks later counts as what it knew at first.
// Each case begins with a container on 10.88.0.0/24 and a neighbour, 192.0.2.2.
func TestMoves(t *testing.T) {
	if !alone(t) {
		return
	}
	lan := lan(t)
	his := inside(t, lan)
	hold(t, lan)
	add := func(t *testing.T, r *netlink.Route, to string) {
		t.Helper()
		_, dst, err := net.ParseCIDR(to)
		must(t, err)
		r.Dst = dst
		must(t, netlink.RouteAdd(r))
		t.Cleanup(func() { must(t, netlink.RouteDel(r)) })
	}
	// tabled is a route in another table than the main one, as VPNs and policies have them.
	tabled := func(t *testing.T, table, kind int, to string) {
		t.Helper()
		l, err := netlink.LinkByName("uplink")
		must(t, err)
		r := &netlink.Route{Table: table, Type: kind}
		if kind == unix.RTN_UNICAST {
			r.LinkIndex = l.Attrs().Index
		}
		add(t, r, to)
	}
	route := func(t *testing.T, to, via string) {
		t.Helper()
		l, err := netlink.LinkByName("uplink")
		must(t, err)
		add(t, &netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(via), Flags: int(netlink.FLAG_ONLINK)}, to)
	}
	lease := func(t *testing.T, addr, neighbour string) {
		t.Helper()
		for _, end := range []struct {
			h          *netlink.Handle
			link, addr string
		}{{&netlink.Handle{}, "uplink", addr}, {his, "eth0", neighbour}} {
			l, err := end.h.LinkByName(end.link)
			must(t, err)
			a, err := netlink.ParseAddr(end.addr)
			must(t, err)
			must(t, end.h.AddrAdd(l, a))
			t.Cleanup(func() { must(t, end.h.AddrDel(l, a)) })
		}
	}
	for _, c := range []struct {
		name  string
		pool  string
		later func(t *testing.T, b *Bridges)
		want  string // subnet in the end
		why   string // of the move; "": none
		once  bool   // it moves at once
		stuck bool   // it would have to move, and cannot
		reach string // from the node, then
	}{
		{name: "nothing", later: func(*testing.T, *Bridges) {}, want: "10.88.0.0/24"},
		{name: "another network", later: func(t *testing.T, _ *Bridges) { lease(t, "10.88.1.7/24", "10.88.1.1/24") }, want: "10.88.0.0/24", reach: "10.88.1.1:80"},
		{
			name: "a lease of the same network", once: true, later: func(t *testing.T, _ *Bridges) { lease(t, "10.88.0.88/24", "10.88.0.1/24") },
			want: "10.88.1.0/24", why: "10.88.0.0/24 overlaps with 10.88.0.0/24, where link uplink leads", reach: "10.88.0.1:80",
		},
		{
			name: "a lease of a part of it", once: true, later: func(t *testing.T, _ *Bridges) { lease(t, "10.88.0.130/30", "10.88.0.129/30") },
			want: "10.88.1.0/24", why: "10.88.0.0/24 overlaps with 10.88.0.128/30, where link uplink leads", reach: "10.88.0.129:80",
		},
		{
			name: "a lease of a wider one", later: func(t *testing.T, _ *Bridges) { lease(t, "10.88.5.5/16", "10.88.0.1/16") },
			want: "172.29.0.0/24", why: "overlaps with 10.88.0.0/16, where link uplink leads", reach: "10.88.0.1:80",
		},
		{name: "a route", later: func(t *testing.T, _ *Bridges) { route(t, "10.0.0.0/8", "192.0.2.2") }, want: "172.29.0.0/24", why: "10.0.0.0/8, where link uplink leads"},
		{name: "a route to one host", later: func(t *testing.T, _ *Bridges) { route(t, "10.88.0.9/32", "192.0.2.2") }, want: "10.88.1.0/24", why: "10.88.0.9/32, where link uplink leads"},
		{name: "a router in it", later: func(t *testing.T, _ *Bridges) { route(t, "203.0.113.0/24", "10.88.0.254") }, want: "10.88.1.0/24", why: "10.88.0.254/32, where link uplink leads"},
		{
			name: "a route of a VPN, in a table of its own", later: func(t *testing.T, _ *Bridges) { tabled(t, 52, unix.RTN_UNICAST, "10.88.0.0/16") },
			want: "172.29.0.0/24", why: "10.88.0.0/24 overlaps with 10.88.0.0/16, where link uplink leads",
		},
		{
			name: "a route in a table of a high number", later: func(t *testing.T, _ *Bridges) { tabled(t, 51820, unix.RTN_UNICAST, "10.88.0.64/26") },
			want: "10.88.1.0/24", why: "10.88.0.64/26, where link uplink leads",
		},
		{
			name: "what a table leaves to others", later: func(t *testing.T, _ *Bridges) { tabled(t, 52, unix.RTN_THROW, "10.88.0.0/16") },
			want: "10.88.0.0/24",
		},
		{
			name: "what a table refuses", later: func(t *testing.T, _ *Bridges) { tabled(t, 52, unix.RTN_UNREACHABLE, "10.88.0.0/24") },
			want: "10.88.1.0/24", why: "10.88.0.0/24 overlaps with 10.88.0.0/24, which a route of the node refuses",
		},
		{
			name: "default routes in tables of links", later: func(t *testing.T, _ *Bridges) { tabled(t, 27002, unix.RTN_UNICAST, "0.0.0.0/0") },
			want: "10.88.0.0/24",
		},
		{
			name: "routes of a tunnel that takes all", later: func(t *testing.T, _ *Bridges) {
				route(t, "0.0.0.0/1", "192.0.2.2")
				route(t, "128.0.0.0/1", "192.0.2.2")
			},
			want: "10.88.0.0/24",
		},
		{
			name: "all private networks", later: func(t *testing.T, _ *Bridges) {
				for _, to := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} {
					route(t, to, "192.0.2.2")
				}
			}, want: "10.88.0.0/24", stuck: true,
		},
		{name: "a wider route than the given pool", pool: "10.88.0.0/22", later: func(t *testing.T, _ *Bridges) { route(t, "10.0.0.0/8", "192.0.2.2") }, want: "10.88.0.0/24"},
		{
			name: "a lease inside of the given pool", pool: "10.88.0.0/22", once: true, later: func(t *testing.T, _ *Bridges) { lease(t, "10.88.0.88/23", "10.88.1.1/23") },
			want: "10.88.2.0/24", why: "10.88.0.0/23, where link uplink leads", reach: "10.88.1.1:80",
		},
		{
			name: "a resolver behind a router", later: func(_ *testing.T, b *Bridges) {
				b.Asked = func() []netip.Addr {
					return []netip.Addr{netip.MustParseAddr("10.88.0.53"), netip.MustParseAddr("fd00::53")}
				}
			}, want: "10.88.1.0/24", why: "10.88.0.0/24 overlaps with 10.88.0.53/32, a server that the node asks",
		},
		{
			name: "another pool", once: true, later: func(_ *testing.T, b *Bridges) { b.Pool = []netip.Prefix{netip.MustParsePrefix("172.30.4.0/23")} },
			want: "172.30.4.0/24", why: "10.88.0.0/24 is not in containers.pool",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := Open(filepath.Join(t.TempDir(), "netns"))
			must(t, err)
			if c.pool != "" {
				b.Pool = []netip.Prefix{netip.MustParsePrefix(c.pool)}
			}
			front := []workload.Network{{Name: "front"}}
			made, err := b.Make(front)
			must(t, err)
			if got := made["front"].Prefix.String(); got != "10.88.0.0/24" {
				t.Fatalf("begins on %s", got)
			}
			var served netip.Addr
			start := func() {
				at := workload.Address{Network: "front", Addr: made["front"].Gateway().Next()}
				place, err := b.Attach("web", []workload.Address{at}, false)
				must(t, err)
				if at.Addr != served { // else it is the namespace that there was
					served = at.Addr
					serve(t, place.Net, "web")
				}
				apply(t, b, []workload.Publish{{Protocol: workload.TCP, HostPort: 8080, To: netip.AddrPortFrom(at.Addr, 80)}})
			}
			t.Cleanup(func() {
				must(t, b.Detach("web"))
				must(t, b.Prune(nil))
			})
			start()
			follow(t, b)
			was := served
			defer open(t, filepath.Join(b.netns, "web"), "192.0.2.2:81", 1)()
			if tracked(t, was) == 0 {
				t.Error("nothing of it is tracked")
			}
			c.later(t, b)
			now := time.Now()
			b.now = func() time.Time { return now }
			moving, err := b.Follow()
			if !c.once {
				if len(moving) > 0 {
					t.Errorf("moves at once: %q", moving)
				}
				now = now.Add(patience)
				moving, err = b.Follow()
			}
			if text := moving["front"]; (c.why != "") != (len(moving) > 0) || !strings.Contains(text, c.why) {
				t.Errorf("moves: %q, want %q", text, c.why)
			}
			if (err != nil) != c.stuck || c.stuck && !strings.Contains(err.Error(), "network front: 10.88.0.0/24 overlaps with 10.0.0.0/8, where link uplink leads: all subnets") {
				t.Errorf("cannot move: %v", err)
			}
			// A new agent comes to the same as one that goes on.
			again, err := Open(b.netns)
			must(t, err)
			again.Pool, again.Asked = b.Pool, b.Asked
			b = again
			b.now = func() time.Time { return now }
			made, err = b.Make(front)
			if !c.once {
				must(t, err)
				if got := made["front"].Prefix.String(); got != "10.88.0.0/24" {
					t.Errorf("is on %s at once", got)
				}
				now = now.Add(patience)
				made, err = b.Make(front)
			}
			must(t, err)
			if got := made["front"].Prefix.String(); got != c.want {
				t.Fatalf("is on %s in the end, want %s", got, c.want)
			}
			start()
			if !c.stuck {
				follow(t, b)
			}
			if n := tracked(t, was); c.why != "" && n > 0 {
				t.Errorf("%d flows of the subnet that it left are tracked", n)
			}
			for _, one := range []struct{ from, to, want string }{{lan, "192.0.2.1:8080", "web"}, {"", c.reach, "uplink"}} {
				if one.to == "" {
					continue
				}
				if got, ok := first(t, one.from, 20*time.Second, packet{network: "tcp4", to: one.to}); !ok || got != one.want {
					t.Errorf("to %s: %q", one.to, got)
				}
			}
		})
	}
}

// TestPatience: what is gone within half a minute moves no network, and begins anew.
func TestPatience(t *testing.T) {
	route, own := conflict{why: "a route"}, conflict{why: "an address", sure: true}
	for _, c := range []struct {
		name string
		each []conflict // what is in the way, every ten seconds
		want int        // the last one that moves; -1: none
	}{
		{"nothing", make([]conflict, 9), -1},
		{"an address of its own", []conflict{{}, own}, 1},
		{"a route", []conflict{{}, route, route, route}, -1},
		{"a route that stays", []conflict{{}, route, route, route, route}, 4},
		{"a route that comes and goes", []conflict{route, route, route, {}, route, route, route, {}, route}, -1},
		{"one that begins as another", []conflict{route, {why: "a server"}, route, {why: "a server"}}, 3},
		{"an address after a route", []conflict{route, own}, 1},
	} {
		now := time.Unix(1, 0)
		b := &Bridges{now: func() time.Time { return now }, since: make(map[string]time.Time)}
		got := -1
		for i, one := range c.each {
			if b.due("front", one) {
				got = i
			}
			b.due("elsewhere", conflict{})
			now = now.Add(10 * time.Second)
		}
		if got != c.want {
			t.Errorf("%s: moves at %d, want %d", c.name, got, c.want)
		}
	}
}
