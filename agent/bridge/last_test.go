package bridge

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"kogge.example/agent/workload"
)

// TestLast: a network that has moved out of the way of what the node learned late does not
// have to at the next boot, however late the node learns it then.
func TestLast(t *testing.T) {
	if !alone(t) {
		return
	}
	lan(t)
	l, err := netlink.LinkByName("uplink")
	must(t, err)
	_, dst, err := net.ParseCIDR("10.88.0.128/25")
	must(t, err)
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Gw: net.IPv4(192, 0, 2, 2)}
	folder := t.TempDir()
	file := filepath.Join(folder, "kogge", "subnets.json")
	now := time.Now()
	boot := func() *Bridges {
		b, err := Open(filepath.Join(folder, "netns"))
		must(t, err)
		must(t, b.Prune(nil))
		b.Last, b.now = file, func() time.Time { return now }
		return b
	}
	are := func(b *Bridges, want string, names ...string) {
		t.Helper()
		var all []workload.Network
		for _, name := range names {
			all = append(all, workload.Network{Name: name})
		}
		made, err := b.Make(all)
		must(t, err)
		var got []string
		for _, name := range slices.Sorted(maps.Keys(made)) {
			got = append(got, name+" "+made[name].Prefix.String())
		}
		if text := strings.Join(got, ", "); text != want {
			t.Fatalf("networks are %s, want %s", text, want)
		}
	}
	follow := func(b *Bridges, want bool) {
		t.Helper()
		_, err := b.Follow()
		must(t, err)
		now = now.Add(patience)
		if moving, err := b.Follow(); err != nil || (moving["front"] != "") != want {
			t.Errorf("moving: %q, %v", moving, err)
		}
	}

	b := boot()
	are(b, "back 10.88.1.0/24, front 10.88.0.0/24", "front", "back")
	follow(b, false)
	must(t, netlink.RouteAdd(route)) // late
	follow(b, true)
	are(b, "back 10.88.1.0/24, front 10.88.2.0/24", "front", "back")
	follow(b, false)

	must(t, netlink.RouteDel(route))
	b = boot()
	are(b, "back 10.88.1.0/24, front 10.88.2.0/24", "front", "back")
	must(t, netlink.RouteAdd(route))
	follow(b, false)

	// What is in the way at once is so for them, too, and one that is new takes nobody's place.
	must(t, netlink.RouteDel(route))
	b = boot()
	address(t, nil, "uplink", "10.88.1.7/24")
	are(b, "another 10.88.0.0/24, back 10.88.3.0/24, front 10.88.2.0/24", "another", "front", "back")
	follow(b, false)

	// What cannot be read or written stops nothing, and what can be is whole again.
	must(t, os.WriteFile(file, []byte("{"), 0o600))
	b = boot()
	are(b, "front 10.88.0.0/24", "front")
	must(t, os.Remove(file))
	must(t, os.Mkdir(file, 0o700))
	follow(b, false)
	must(t, os.Remove(file))
	follow(b, false)
	text, err := os.ReadFile(file)
	must(t, err)
	if all, err := parseLast(text); err != nil || len(all) != 1 || all["front"].String() != "10.88.0.0/24" {
		t.Errorf("the file is %s: %v", text, err)
	}
}

func FuzzLast(f *testing.F) {
	f.Add([]byte(`{"version": 1, "subnets": {"front": "10.88.2.0/24", "": "::/0", "b": ""}}`))
	f.Add([]byte(`{"version": 2, "subnets": {"front": "10.88.2.0/24"}}`))
	f.Add([]byte(`{"version": 1, "subnets": null}`))
	pool := netip.MustParsePrefix("10.88.0.0/22")
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseLast(text)
		if err != nil {
			return
		}
		g := ground{pools: []netip.Prefix{pool}, last: all}
		for name := range all {
			if got, err := g.choose(name); err != nil || got.Bits() != subnetBits || got != got.Masked() || !pool.Contains(got.Addr()) {
				t.Errorf("%q: network %q gets %v, %v", text, name, got, err)
			}
		}
	})
}
