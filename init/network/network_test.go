package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"kogge.example/init/control"
	"kogge.example/init/network/advert"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/golden"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func office() *control.Lease {
	return &control.Lease{
		Address: netip.MustParsePrefix("192.0.2.50/24"), Server: netip.MustParseAddr("192.0.2.1"),
		Routes: []nodeconfig.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1")}},
		MTU:    1400, Since: t0, Renew: 30 * time.Minute, Rebind: 52 * time.Minute, Valid: time.Hour,
	}
}

// lease6 is one of DHCPv6.
func lease6(preferred time.Duration) *control.Lease {
	return &control.Lease{Address: netip.MustParsePrefix("2001:db8::1000/128"), Preferred: preferred, Since: t0, Valid: 2 * time.Hour}
}

// TestPlan shows what each kind of setting makes of a link: fresh from power-on,
// and once it is as wanted.
func TestPlan(t *testing.T) {
	wired := Facts{Index: 2, Name: "eth0", MAC: "52:54:00:12:34:56", Carrier: true, Wired: true}
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		lease      *control.Lease
		lease6     *control.Lease
	}{
		{"default, no lease yet", "", wired, nil, nil},
		{"default, lease", "", wired, office(), nil},
		{"default, a bridge", "", Facts{Index: 3, Name: "br0", Carrier: true}, nil, nil},
		{"default, loopback", "", Facts{Index: 1, Name: "lo", Carrier: true}, nil, nil},
		{"static", "network: [{match: eth0, addresses: [192.0.2.7/24, '2001:db8::7/64'], gateway: [192.0.2.1, 'fe80::1'], mtu: 9000, ipv6: static, routes: [{to: 10.0.0.0/8, via: 192.0.2.254}, {to: 198.51.100.0/24}]}]", wired, nil, nil},
		{"static and dhcp, own mtu", "network: [{match: 'eth*', dhcp: true, addresses: [10.0.0.7/8], mtu: 1300, ipv6: off}]", wired, office(), nil},
		{"router outside of the network", "network: [{match: eth0, addresses: [192.0.2.7/32], routes: [{to: default, via: 198.51.100.1}]}]", wired, nil, nil},
		{"by mac before name", "network: [{match: eth0, mtu: 1300}, {match: '52:54:00:12:34:56', mtu: 1400}, {match: wired}]", wired, nil, nil},
		{"name before pattern", "network: [{match: 'e*', mtu: 1300}, {match: eth0, mtu: 1400}, {match: wired}]", wired, nil, nil},
		{"pattern before wired", "network: [{match: wired}, {match: 'e*', mtu: 1300}, {match: 'et*', mtu: 1400}]", wired, nil, nil},
		{"no entry", "network: [{match: eth7}]", wired, nil, nil},
		{"dhcpv6", "", wired, office(), lease6(time.Hour)},
		{"dhcpv6, no longer preferred", "", wired, nil, lease6(0)},
		{"dhcpv6 of resolvers alone", "", wired, nil, &control.Lease{DNS: addrs("2001:db8::53")}},
		{"dhcpv6, but static", "network: [{match: eth0, dhcp: false, ipv6: static, addresses: ['2001:db8::7/64']}]", wired, nil, lease6(time.Hour)},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := nodeconfig.Parse("node.yaml", []byte(c.yaml))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			fmt.Fprintf(&out, "%s\n", strings.ReplaceAll(c.yaml, "}, {", "},\n           {"))
			entry, ok := Match(cfg.Interfaces(), c.facts)
			if !ok {
				out.WriteString("left alone\n")
			} else {
				want := Want(entry, c.facts, Leases{c.lease, c.lease6}, t0)
				for _, op := range Diff(want, State{MTU: 1500}) {
					fmt.Fprintf(&out, "  %s\n", op)
				}
				if want.MTU == 0 {
					want.MTU = 1500
				}
				if again := Diff(want, want); len(again) > 0 {
					t.Errorf("not at rest: %v", again)
				}
			}
			golden.Compare(t, "plan-"+strings.NewReplacer(" ", "-", ",", "").Replace(c.name)+".txt", out.String())
		})
	}
}

// TestSmallMTU has servers ask for MTUs that IPv6 cannot have: the least that it can is set,
// and the operator hears of it.
func TestSmallMTU(t *testing.T) {
	facts := Facts{Index: 2, Name: "eth0", MAC: "52:54:00:12:34:56", Wired: true, MTU: 1500}
	for _, c := range []struct {
		yaml    string
		server  int
		mtu     int
		problem string
	}{
		{"network: [{match: eth0}]", 1400, 1400, ""},
		{"network: [{match: eth0}]", 1280, 1280, ""},
		{"network: [{match: eth0}]", 1279, 1280, `the DHCP server asks for an MTU of 1279 and IPv6 needs 1280, which is used: say "ipv6: off" or "mtu" in this link's entry of node.yaml`},
		{"network: [{match: eth0}]", 576, 1280, `the DHCP server asks for an MTU of 576 and IPv6 needs 1280, which is used: say "ipv6: off" or "mtu" in this link's entry of node.yaml`},
		{"network: [{match: eth0, ipv6: off}]", 576, 576, ""},
		{"network: [{match: eth0, mtu: 1400}]", 576, 1400, ""},
		{"network: [{match: eth0}]", 0, 1500, ""},
		{"network: [{match: eth0, addresses: [192.0.2.7/24]}]", 576, 1500, ""},
	} {
		cfg, err := nodeconfig.Parse("node.yaml", []byte(c.yaml))
		must(t, err)
		lease := office()
		lease.MTU = c.server
		want := Want(cfg.Network[0], facts, Leases{V4: lease}, t0)
		if want.MTU != c.mtu || want.Problem != c.problem {
			t.Errorf("%s, the server says %d: mtu %d, problem %q", c.yaml, c.server, want.MTU, want.Problem)
		}
	}
}

// TestApart shows the metrics of several links' routes.
func TestApart(t *testing.T) {
	route := func(text string) (r Route) {
		f := strings.Fields(text)
		r.To, r.Via = netip.MustParsePrefix(f[0]), netip.MustParseAddr(f[1])
		fmt.Sscan(f[2], &r.Metric)
		return r
	}
	var out strings.Builder
	for _, c := range []struct {
		name  string
		links [][]string
	}{
		{"none", nil},
		{"two links, each with its own", [][]string{{"0.0.0.0/0 192.0.2.1 100"}, {"0.0.0.0/0 203.0.113.1 101"}}},
		{"the same of node.yaml on three", [][]string{{"10.0.0.0/8 192.0.2.1 50"}, {"10.0.0.0/8 203.0.113.1 50"}, {"10.0.0.0/8 198.51.100.1 50"}}},
		{"what the second has by itself", [][]string{{"0.0.0.0/0 192.0.2.1 101"}, {"0.0.0.0/0 203.0.113.1 101"}, {"0.0.0.0/0 198.51.100.1 102"}}},
		{"two on one link", [][]string{{"10.0.0.0/8 192.0.2.1 50", "10.0.0.0/8 192.0.2.2 50"}, {"10.0.0.0/8 203.0.113.1 51"}}},
		{"other networks are no matter", [][]string{{"10.0.0.0/8 192.0.2.1 50", "10.0.0.0/9 192.0.2.1 50"}, {"::/0 fe80::1 50"}}},
		{"the last metric there is", [][]string{{"10.0.0.0/8 192.0.2.1 4294967294"}, {"10.0.0.0/8 203.0.113.1 4294967294"}, {"10.0.0.0/8 203.0.113.1 4294967293"}}},
	} {
		links := make([][]Route, len(c.links))
		for i, texts := range c.links {
			for _, text := range texts {
				links[i] = append(links[i], route(text))
			}
		}
		fmt.Fprintf(&out, "%s\n", c.name)
		for i, routes := range Apart(links) {
			for _, r := range routes {
				fmt.Fprintf(&out, "  link %d: %s\n", i, r)
			}
		}
	}
	golden.Compare(t, "apart.txt", out.String())
}

// TestRankOf has links come and go: what stays keeps its place, what comes is behind it.
func TestRankOf(t *testing.T) {
	full := make([]int, ranks)
	for i := range full {
		full[i] = i
	}
	for _, c := range []struct {
		others []int
		want   int
	}{
		{nil, 0}, {[]int{0}, 1}, {[]int{1}, 2}, {[]int{3, 0, 7}, 8},
		{[]int{0, ranks - 1}, 1}, {full, ranks - 1},
	} {
		if got := RankOf(c.others); got != c.want {
			t.Errorf("%v: %d", c.others[:min(len(c.others), 5)], got)
		}
	}
}

// TestWithout shows what is left of a link where addresses may not be used.
func TestWithout(t *testing.T) {
	facts := Facts{Index: 2, Name: "eth0", Wired: true, MTU: 1500}
	static := nodeconfig.Interface{
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")},
		Gateway:   addrs("192.0.2.1 2001:db8::1"), Routes: []nodeconfig.Route{{To: netip.MustParsePrefix("198.51.100.0/24")}}, IPv6: nodeconfig.IPv6Static,
	}
	both := static
	both.DHCP, both.Gateway = true, nil
	var out strings.Builder
	for _, c := range []struct {
		name, without string
		entry         nodeconfig.Interface
	}{
		{"static, none is taken", "", static},
		{"static, IPv4 is taken", "192.0.2.7", static},
		{"leased, it is taken", "192.0.2.50", nodeconfig.DefaultInterface},
		{"both, the lease is taken", "192.0.2.50", both},
		{"both, all of IPv4 is taken", "192.0.2.7 192.0.2.50", both},
	} {
		fmt.Fprintf(&out, "%s\n", c.name)
		want := Want(c.entry, facts, Leases{V4: office()}, t0, addrs(c.without)...)
		for _, a := range want.Addresses {
			fmt.Fprintf(&out, "  %s\n", a)
		}
		for _, r := range want.Routes {
			fmt.Fprintf(&out, "  %s\n", r)
		}
	}
	golden.Compare(t, "without.txt", out.String())
}

// TestRecall shows what becomes of addresses that the kernel made up and gave up: what the
// node keeps of them, and what it does while the claim on them says no, and once it says yes.
func TestRecall(t *testing.T) {
	made := func(p string, valid time.Duration) Made {
		m := Made{Prefix: netip.MustParsePrefix(p)}
		if valid > 0 {
			m.Valid, m.Preferred = t0.Add(valid), t0.Add(valid/2)
		}
		return m
	}
	prefixes := func(all ...string) (p []netip.Prefix) {
		for _, one := range all {
			p = append(p, netip.MustParsePrefix(one))
		}
		return p
	}
	tentative := made("2001:db8::5/64", time.Hour)
	tentative.Tentative = true
	var many []Made
	for i := range mostMade {
		many = append(many, made(fmt.Sprintf("2001:db8:%x::5/64", i+1), time.Hour))
	}
	var out strings.Builder
	for _, c := range []struct {
		name   string
		before []Made
		more   Made
		actual State
	}{
		{"nothing", nil, Made{}, State{}},
		{"all is well", nil, Made{}, State{Made: []Made{made("fe80::5/64", 0), made("2001:db8::5/64", time.Hour)}}},
		{"a router's is given up", nil, made("2001:db8::5/64", time.Hour), State{}},
		{"given up again", []Made{made("2001:db8::5/64", time.Hour)}, made("2001:db8::5/64", 2*time.Hour), State{}},
		{"the kernel asks again", []Made{made("2001:db8::5/64", time.Hour)}, Made{}, State{Made: []Made{tentative}}},
		{"in use again, and the router says it is good for longer", []Made{made("2001:db8::5/64", time.Minute)}, Made{}, State{Made: []Made{made("2001:db8::5/64", 3*time.Hour)}}},
		{"its time is over", []Made{made("2001:db8::5/64", -1)}, made("2001:db8::6/64", time.Nanosecond), State{}},
		{"the link-local one is given up", nil, Made{}, State{Taken: prefixes("fe80::5/64")}},
		{"given up once more", []Made{made("fe80::5/64", 0)}, Made{}, State{Taken: prefixes("fe80::5/64")}},
		{"one of node.yaml is, set by somebody else", nil, Made{}, State{Taken: prefixes("2001:db8::7/64")}},
		{"more than one keeps", many, made("2001:db8:ffff::5/64", time.Hour), State{Taken: prefixes("fe80::5/64")}},
	} {
		if c.name == "its time is over" {
			c.before[0].Valid = t0
		}
		more := &c.more
		if !more.Prefix.IsValid() {
			more = nil
		}
		all := Recall(c.before, more, c.actual, t0)
		fmt.Fprintf(&out, "%s: %d\n", c.name, len(all))
		for i, m := range all {
			if i < 2 || i >= mostMade {
				valid := "for ever"
				if !m.Valid.IsZero() {
					valid = m.Valid.Sub(t0).String()
				}
				fmt.Fprintf(&out, "  %s valid %s\n", m.Prefix, valid)
			}
		}
		if len(all) > 2 {
			continue
		}
		for _, op := range Diff(State{}, c.actual) {
			fmt.Fprintf(&out, "  claimed by another: %s\n", op)
		}
		for _, op := range Diff(State{Made: all}, c.actual) {
			fmt.Fprintf(&out, "  ours: %s\n", op)
		}
	}
	golden.Compare(t, "recall.txt", out.String())
}

// TestDiff shows the change from one lease to another, and to none.
func TestDiff(t *testing.T) {
	facts := Facts{Index: 2, Name: "eth0", Wired: true, MTU: 1500}
	e := nodeconfig.DefaultInterface
	other := office()
	other.Address = netip.MustParsePrefix("192.0.2.50/25")
	other.Routes[0].Via = netip.MustParseAddr("192.0.2.126")
	other.MTU = 0
	var out strings.Builder
	actual := Want(e, facts, Leases{V4: office()}, t0)
	for _, c := range []struct {
		name  string
		lease *control.Lease
	}{{"same lease", office()}, {"other mask and router", other}, {"lease lost", nil}} {
		fmt.Fprintf(&out, "%s\n", c.name)
		for _, op := range Diff(Want(e, facts, Leases{V4: c.lease}, t0), actual) {
			fmt.Fprintf(&out, "  %s\n", op)
		}
	}
	golden.Compare(t, "diff.txt", out.String())
}

// TestUnmatched: an entry that no link matches is named, beside the wired links that may be meant.
func TestUnmatched(t *testing.T) {
	end0 := Facts{Name: "end0", MAC: "52:54:00:00:00:01", Wired: true}
	end1 := Facts{Name: "end1", MAC: "52:54:00:00:00:02", Wired: true}
	lo, bridge, tunnel := Facts{Name: "lo"}, Facts{Name: "kogge0", MAC: "52:54:00:00:00:03"}, Facts{Name: "wg0"}
	for _, c := range []struct {
		yaml  string
		links []Facts
		want  string // in brackets: it is only logged
		had   string // an entry that had a wired link
	}{
		{"{}", []Facts{lo}, "", ""},
		{"network: [{match: wired}]", []Facts{lo, end0}, "", ""},
		{"network: [{match: wired}, {match: end0}, {match: 'end*'}]", []Facts{lo, end0}, "", ""}, // each is about it
		{"network: [{match: wired}]", []Facts{lo, tunnel}, `no link matches "wired" of node.yaml`, ""},
		{"network: [{match: eth0}]", []Facts{lo, end0, bridge, tunnel}, `no link matches "eth0" of node.yaml: no entry is about end0 (52:54:00:00:00:01)`, ""},
		{"network: [{match: '52:54:00:00:00:09'}, {match: 'en[p-s]*'}]", []Facts{end0, end1},
			`no link matches "52:54:00:00:00:09", "en[p-s]*" of node.yaml: no entry is about end0 (52:54:00:00:00:01), end1 (52:54:00:00:00:02)`, ""},
		{"network: [{match: end0}, {match: wg0, dhcp: false}]", []Facts{lo, end0}, `(no link matches "wg0" of node.yaml)`, ""},
		{"network: [{match: end0}, {match: wg0, dhcp: false}]", []Facts{lo, end0, end1}, `no link matches "wg0" of node.yaml: no entry is about end1 (52:54:00:00:00:02)`, ""},
		{"network: [{match: end0}, {match: eth0}]", []Facts{lo, end0}, `(no link matches "eth0" of node.yaml)`, ""},
		{"network: [{match: end9}, {match: eth0}]", []Facts{lo, tunnel}, `no link matches "end9", "eth0" of node.yaml`, ""},
		{"network: [{match: end0}, {match: wg0, dhcp: false}]", []Facts{lo, end0, tunnel}, "", ""},
		{yaml: "network: [{match: end0}, {match: end1}]", links: []Facts{lo, end0}, had: "end1", want: `no link matches "end1" of node.yaml`}, // its card has died
		{"network: [{match: wired}, {match: 'l*'}, {match: 'k*'}]", []Facts{lo, end0, bridge}, `(no link matches "l*", "k*" of node.yaml)`, ""},
	} {
		cfg, err := nodeconfig.Parse("node.yaml", []byte(c.yaml))
		if err != nil {
			t.Fatal(err)
		}
		got, wrong := Unmatched(cfg.Network, c.links, map[string]bool{c.had: true})
		if got != "" && !wrong {
			got = "(" + got + ")"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.yaml, got, c.want)
		}
	}
}

// TestResolvConf has a reference read what the node's look-ups go by: they wait a moment for a
// dead server where another one can step in, and as long as ever for the only one.
func TestResolvConf(t *testing.T) {
	for _, c := range []struct {
		dns     string
		timeout int // seconds
	}{{"", 5}, {"192.0.2.1", 5}, {"192.0.2.1 2001:db8::1", 2}, {"192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4", 2}} {
		s := control.Network{DNS: addrs(c.dns), Search: []string{"lan.example"}}
		got, err := dns.ClientConfigFromReader(strings.NewReader(resolvConf(s)))
		if err != nil || got.Timeout != c.timeout || got.Attempts != 2 || len(got.Servers) != min(len(s.DNS), 3) || !slices.Equal(got.Search, s.Search) {
			t.Errorf("%q: %+v, %v", c.dns, got, err)
		}
	}
}

// checkResolvConf wants nothing but servers, domains and options in it, and no server without the
// link that it needs.
func checkResolvConf(t *testing.T, s control.Network) {
	t.Helper()
	conf := resolvConf(s)
	for _, line := range strings.Split(strings.TrimSuffix(conf, "\n"), "\n") {
		address, server := strings.CutPrefix(line, "nameserver ")
		if line != "" && !strings.HasPrefix(line, "search ") && line != "options timeout:2" && !server {
			t.Errorf("a line got in: %q", conf)
		}
		if strings.HasPrefix(address, "fe80:") && server && !strings.HasSuffix(address, "%eth0") {
			t.Errorf("without its link: %q", conf)
		}
	}
}

// FuzzNamed has a router name anything: only servers and domains get into resolv.conf.
func FuzzNamed(f *testing.F) {
	// One option of domains and one of resolvers, see RFC 8106.
	m := append([]byte{10, 0, 40, 0, 7, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0}, 31, 2, 0, 0, 0, 0, 0, 9, 1, 'x', 0, 0, 0, 0, 0, 0)
	one := netip.MustParseAddr("fe80::53").As16()
	m = append(append(m, 25, 3, 0, 0, 0, 0, 0, 60), one[:]...)
	f.Add(m)
	f.Add(m[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		var known advert.Known
		for _, a := range advert.ParseNamed(data) {
			known.Add(a, t0)
		}
		var s control.Network
		merge(&s, []source{{link: "eth0", advertised: known.Resolvers(t0), search: known.Domains(t0)}})
		checkResolvConf(t, s)
	})
}

// TestMerge shows what several links together say.
func TestMerge(t *testing.T) {
	lease := func(dns, ntp, search string) *control.Lease {
		return &control.Lease{DNS: addrs(dns), NTP: addrs(ntp), Search: strings.Fields(search)}
	}
	var out strings.Builder
	for _, c := range []struct {
		name  string
		links []source
	}{
		{"one link", []source{{link: "eth0", carrier: true, leases: Leases{V4: lease("192.0.2.1", "192.0.2.1", "a.example")}}}},
		{"link-local servers of all kinds", []source{{
			link: "eth0", carrier: true, leases: Leases{lease("192.0.2.1 169.254.7.7", "192.0.2.1", ""), lease("fe80::2 2001:db8::53", "fe80::2", "")},
			advertised: addrs("fe80::1 2001:db8::53"),
		}}},
		{"the same link-local router on two links", []source{
			{link: "eth0", carrier: true, advertised: addrs("fe80::1")}, {link: "eth1", carrier: true, advertised: addrs("fe80::1")},
		}},
		{"of the file, with a link and without", []source{{
			link: "eth0", carrier: true, entry: nodeconfig.Interface{DNS: addrs("fe80::53 fe80::54%eth7"), Search: []string{"own.example"}},
			leases: Leases{V4: lease("192.0.2.1", "192.0.2.1", "a.example")}, advertised: addrs("fe80::1"), search: []string{"b.example"},
		}}},
		{"first link unplugged", []source{
			{link: "eth0", leases: Leases{V4: lease("192.0.2.1 192.0.2.2", "192.0.2.1", "a.example")}, advertised: addrs("fe80::1")},
			{link: "eth1", carrier: true, leases: Leases{V4: lease("203.0.113.1", "203.0.113.1", "b.example")}},
		}},
		{"only link unplugged", []source{{link: "eth0", leases: Leases{V4: lease("192.0.2.1", "", "")}}}},
	} {
		var s control.Network
		merge(&s, c.links)
		fmt.Fprintf(&out, "%s\n  dns %v ntp %v search %v\n", c.name, s.DNS, s.NTP, s.Search)
	}
	golden.Compare(t, "merge.txt", out.String())
}

func addrs(text string) []netip.Addr {
	var all []netip.Addr
	for _, one := range strings.Fields(text) {
		all = append(all, netip.MustParseAddr(one))
	}
	return all
}

func TestFacts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	lease := office()
	in := control.Network{Interfaces: []control.Interface{{Name: "eth0", MAC: "52:54:00:12:34:56", Lease: lease, Addresses: []netip.Prefix{netip.MustParsePrefix("fe80::1/64"), lease.Address}}}}
	merge(&in, []source{{link: "eth0", carrier: true, entry: nodeconfig.DefaultInterface, leases: Leases{V4: lease}}})
	if err := in.Write(dir); err != nil {
		t.Fatal(err)
	}
	out, err := control.ReadNetwork(dir)
	if err != nil || !equal(out, in) {
		t.Errorf("read back %+v, %v", out, err)
	}
	if a, ok := out.FirstAddress(); !ok || a != lease.Address.Addr() {
		t.Errorf("first address %s", a)
	}
	if err := os.WriteFile(filepath.Join(dir, control.NetworkFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.ReadNetwork(dir); err == nil {
		t.Error("half a file is accepted")
	}
}

// TestPace: a burst waits for nothing, a flood of an hour is slowed down, and a quiet while
// makes up for it.
func TestPace(t *testing.T) {
	var p pace
	now := t0
	for range turnsAtOnce {
		if wait := p.take(now, 1); wait != 0 {
			t.Fatalf("a turn of a burst waits %s", wait)
		}
	}
	turns := 0
	for ; now.Before(t0.Add(time.Hour)); turns++ {
		now = now.Add(p.take(now, 1) + time.Millisecond)
	}
	if turns > 3600*turnsPerSecond*11/10 {
		t.Errorf("%d turns in an hour", turns)
	}
	if wait := p.take(now.Add(time.Minute), 1); wait != 0 {
		t.Errorf("after a quiet minute a turn waits %s", wait)
	}
}

func TestWriteNames(t *testing.T) {
	dir := t.TempDir()
	if err := writeNames(dir, "n07"); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"hostname": "n07\n", "hosts": "127.0.1.1 n07\n"} {
		got, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !bytes.Contains(got, []byte(want)) {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
}
