package bridge

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

var networks = []workload.Subnet{
	{Network: workload.Network{Name: "front"}, Device: "kogge-11111111", Prefix: netip.MustParsePrefix("10.88.0.0/24")},
	{Network: workload.Network{Name: "shop.back", Internal: true}, Device: "kogge-22222222", Prefix: netip.MustParsePrefix("10.88.1.0/24")},
}

func to(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// tableEnv names the file that TestTable writes inside and compares outside.
const tableEnv = "KOGGE_TEST_TABLE"

// TestTable shows what the kernel has once a table is made: nft(8) reads it back. Of the
// table before it nothing is left.
func TestTable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes an nftables table in a network namespace")
	}
	file := filepath.Join(t.TempDir(), "table.nft")
	if !namespace.Run(t, unix.CLONE_NEWNET, tableEnv+"="+file) {
		text, err := os.ReadFile(file)
		must(t, err)
		golden.Compare(t, "table.nft", string(text))
		return
	}
	for _, ports := range [][]workload.Publish{{
		{Protocol: workload.TCP, HostPort: 8080, To: to("10.88.0.2:80")},
	}, {
		{Protocol: workload.UDP, HostPort: 53, To: to("10.88.0.3:5353")},
		{Protocol: workload.TCP, HostPort: 53, To: to("10.88.0.3:5353")},
		{Protocol: workload.TCP, HostPort: 443, HostIP: netip.MustParseAddr("192.0.2.7"), To: to("10.88.0.2:8443")},
		{Protocol: workload.TCP, HostPort: 443, HostIP: netip.MustParseAddr("127.0.0.1"), To: to("10.88.0.4:443")},
		{Protocol: workload.TCP, HostPort: 443, HostIP: netip.IPv4Unspecified(), To: to("10.88.0.5:443")},
	}} {
		r, err := Rules(networks, ports)
		must(t, err)
		must(t, boundsFor(512<<20).bound(len(networks)))
		must(t, Apply(r))
	}
	nft := exec.CommandContext(t.Context(), "nft", "--numeric-priority", "list", "ruleset")
	nft.Stderr = os.Stderr
	text, err := nft.Output()
	if err != nil {
		t.Fatalf("%v (make test-deps installs it)", err)
	}
	must(t, os.WriteFile(os.Getenv(tableEnv), text, 0o600))
}

func TestRulesRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		ports []workload.Publish
		want  string
	}{
		{"twice", []workload.Publish{
			{Protocol: workload.TCP, HostPort: 80, To: to("10.88.0.2:80")},
			{Protocol: workload.TCP, HostPort: 80, HostIP: netip.IPv4Unspecified(), To: to("10.88.0.3:80")},
		}, "port *:80/tcp is published by both 10.88.0.2:80 and 10.88.0.3:80"},
		{"IPv6", []workload.Publish{
			{Protocol: workload.TCP, HostPort: 80, HostIP: netip.MustParseAddr("::1"), To: to("10.88.0.2:80")},
		}, "port ::1:80/tcp: host address ::1 is not IPv4"},
		{"elsewhere", []workload.Publish{
			{Protocol: workload.TCP, HostPort: 80, To: to("10.99.0.2:80")},
		}, "port 80: container address 10.99.0.2 is not on a network"},
		{"protocol", []workload.Publish{
			{Protocol: "sctp", HostPort: 80, To: to("10.88.0.2:80")},
		}, `port 80: protocol "sctp" is neither tcp nor udp`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Rules(networks, c.ports); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("10.88.254.0/23"), netip.MustParsePrefix("172.29.0.0/16")}
	for _, c := range []struct {
		given bool
		taken string
		want  string
	}{
		{false, "", "10.88.254.0/24"},
		{false, "192.168.1.0/24 0.0.0.0/0", "10.88.254.0/24"},
		{false, "0.0.0.0/1 128.0.0.0/1", "10.88.254.0/24"},
		{false, "10.88.254.0/24", "10.88.255.0/24"},
		{false, "10.88.254.77/32", "10.88.255.0/24"},
		{false, "10.88.254.0/24 10.88.255.128/25", "172.29.0.0/24"},
		{false, "10.0.0.0/8", "172.29.0.0/24"},
		{false, "10.0.0.0/8 172.29.0.0/17", "172.29.128.0/24"},
		{false, "10.0.0.0/8 172.16.0.0/12", ""},
		{true, "10.0.0.0/8 172.16.0.0/12", "10.88.254.0/24"},
		{true, "10.0.0.0/8 10.88.254.0/23 172.16.0.0/12", "172.29.0.0/24"},
		{true, "10.88.254.0/23 172.29.0.0/16", ""},
		{true, "10.88.254.1/32", "10.88.255.0/24"},
	} {
		g := ground{pools: all, given: c.given}
		for _, s := range strings.Fields(c.taken) {
			g.taken = append(g.taken, obstacle{netip.MustParsePrefix(s), "eth0", false})
		}
		got, err := g.choose()
		if c.want == "" {
			if !errors.Is(err, ErrNoSubnet) {
				t.Errorf("taken %s: %v, %v", c.taken, got, err)
			}
			continue
		}
		if err != nil || got.String() != c.want {
			t.Errorf("given %v, taken %s: %v, %v, want %s", c.given, c.taken, got, err, c.want)
		}
		if why := g.conflict(got).why; why != "" {
			t.Errorf("given %v, taken %s: chosen all the same: %s", c.given, c.taken, why)
		}
	}
	last := ground{pools: []netip.Prefix{netip.MustParsePrefix("223.255.254.0/23")}, given: true}
	last.ours = []netip.Prefix{netip.MustParsePrefix("223.255.254.0/24"), netip.MustParsePrefix("223.255.255.0/24")}
	if got, err := last.choose(); !errors.Is(err, ErrNoSubnet) {
		t.Errorf("behind the last: %v, %v", got, err)
	}
	if why := last.conflict(netip.MustParsePrefix("10.88.0.0/24")).why; why != "is not in containers.pool" {
		t.Errorf("a subnet of another pool: %q", why)
	}
}

func TestFree(t *testing.T) {
	small := netip.MustParsePrefix("10.88.0.0/29") // .2 to .6 for containers
	used := map[netip.Addr]bool{}
	var got []string
	for {
		a, err := workload.Free(small, used)
		if err != nil {
			break
		}
		used[a] = true
		got = append(got, a.String())
	}
	want := []string{"10.88.0.2", "10.88.0.3", "10.88.0.4", "10.88.0.5", "10.88.0.6"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	delete(used, netip.MustParseAddr("10.88.0.4"))
	if a, err := workload.Free(small, used); err != nil || a.String() != "10.88.0.4" {
		t.Errorf("freed address: got %v, %v", a, err)
	}
}

func TestVethName(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"web", "db", strings.Repeat("long", 16)} {
		for _, addr := range []string{"10.88.0.2", "10.88.0.254", "192.168.188.2"} {
			for i, network := range []string{"default", "shop.back"} {
				name := vethName(id, i, workload.Address{Network: network, Addr: netip.MustParseAddr(addr)}, i > 0)
				if len(name) > 15 || !strings.HasPrefix(name, vethPrefix(id)) {
					t.Errorf("%s at %s: bad interface name %q", id, addr, name)
				}
				if before, twice := seen[name]; twice {
					t.Errorf("%s at %s and %s are both %s", id, addr, before, name)
				}
				seen[name] = id + " at " + addr
			}
		}
	}
}
