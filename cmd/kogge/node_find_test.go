package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/mdns"
	"kogge.example/agent/namespace"
	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/golden"
)

// TestFound shows what people see of the nodes on their network.
func TestFound(t *testing.T) {
	const ours, other = "0123456789ab", "ffffffffffff"
	fleets := map[string]map[string]operate.Node{ours: {
		"n1": {Address: "192.0.2.7:7443", Adopted: time.Now()}, "n2": {Address: "192.0.2.200:7443"}, "n5": {Address: "n5.example.org:7443"}, "n6": {Address: "web.local:7443"},
	}}
	node := func(host, name, fleet, id string, addresses ...string) mdns.Found {
		f := mdns.Found{Announcement: mdns.Announcement{Host: host, Port: 7443, Node: name, Fleet: fleet, FleetID: id, Release: "1.0", Board: "pc-x86_64", Key: "ba9876543210"}}
		for _, a := range addresses {
			f.Addresses = append(f.Addresses, netip.MustParseAddr(a))
		}
		return f
	}
	silent := node("kogge-000000", "", "", "", "fe80::1%eth0")
	silent.Release, silent.Board = "", ""
	moved := node("n7", "n7", "hanse", ours, "192.0.2.17")
	moved.Port = 443
	var out strings.Builder
	for _, all := range [][]mdns.Found{{
		node("kogge-3f2a9c", "", "hanse", ours, "192.0.2.8"),
		silent,
		node("n1", "n1", "hanse", ours, "192.0.2.7", "2001:db8::7", "fe80::7%eth0"),
		node("n2", "n2", "hanse", ours, "192.0.2.9"),
		node("n5", "n5", "hanse", ours, "192.0.2.15"),
		moved,
		node("web", "n6", "hanse", ours, "192.0.2.16"),
		node("x1", "x1", "hanse", other, "192.0.2.20"),
	}, {
		node("kogge-3f2a9c", "", "hanse", ours, "192.0.2.8"), node("kogge-4f2a9c", "", "other", other, "192.0.2.9"),
		node("n8", "n8", "hanse", ours, "192.0.2.18"), node("n9", "n9", "hanse", ours, "192.0.2.19"),
	}} {
		var rows []foundNode
		for _, f := range all {
			rows = append(rows, newFoundNode(f, fleets))
		}
		if err := printFound(&out, rows); err != nil {
			t.Fatal(err)
		}
		out.WriteString(strings.Join(foundHints(rows), "\n") + "\n\n")
	}
	golden.Compare(t, "found.txt", out.String())
}

// TestFindAndAdopt has an operator's computer and a new node on one cable: the node is
// found, adopted and asked by its name, and found to be known then.
func TestFindAndAdopt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return
	}
	t.Setenv("KOGGE_CONFIG", t.TempDir())
	if err := kogge(t, quietly(fleetCommand()), "create", "hanse", "--no-passphrase", "--operator", "ada"); err != nil {
		t.Fatal(err)
	}
	ring, err := loadFleet("hanse")
	must(t, err)
	token, err := ring.NewToken(keyring.Terms{Node: "n1"}, time.Now())
	must(t, err)
	state := t.TempDir()
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	must(t, err)
	must(t, node.Join(&fleet.JoinFile{Genesis: ring.Genesis, Token: token.Token}))

	// The node's thread is in a namespace of its own, from which its sockets come.
	away, server := make(chan *os.File), make(chan *serve.Server)
	plugged := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		over <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			own, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
			if err != nil {
				return err
			}
			away <- own
			<-plugged
			if err := addressed("lo"); err != nil { // by which Go tries whether there is IPv6 at all
				return err
			}
			if err := addressed("eth0", "192.0.2.7/24", "fe80::7/64"); err != nil {
				return err
			}
			s, err := serve.Listen(":7443", serve.Config{
				Node: node, Machine: machine.Machine{Run: state, State: state}, ClockSure: func() bool { return true }, LogDir: state,
				Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
			})
			if err != nil {
				return err
			}
			server <- s
			mdns.Run(ctx, mdns.Config{
				Links: func() []mdns.Link {
					return []mdns.Link{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}}
				},
				Announcement: func() mdns.Announcement {
					return mdns.Announcement{Host: "kogge-012345", Port: 7443, Node: node.Name(), Fleet: "hanse", FleetID: fleet.Short(ring.Genesis.ID()), Release: "1.0", Board: "pc-x86_64"}
				},
			})
			return nil
		}()
	}()
	defer func() {
		cancel()
		must(t, <-over)
	}()
	ns := <-away
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "lan0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
	must(t, addressed("lan0", "192.0.2.1/24", "fe80::1/64"))
	close(plugged)
	s := <-server
	go func() { _ = s.Serve(ctx) }()

	say := func(args ...string) string {
		t.Helper()
		var out strings.Builder
		cmd := nodeCommand()
		cmd.SetOut(&out)
		must(t, kogge(t, cmd, args...))
		return out.String()
	}
	found := func(want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if got = say("find", "--timeout", "1500ms"); strings.Contains(strings.Join(strings.Fields(got), " "), want) {
				return
			}
		}
		t.Fatalf("found %q, want %q", got, want)
	}
	found("kogge-012345 192.0.2.7 hanse 1.0 pc-x86_64 waits to be adopted")
	if got := say("adopt", "kogge-012345.local"); !strings.Contains(got, "n1 has joined fleet hanse") {
		t.Error(got)
	}
	if got := say("status", "n1"); !strings.Contains(got, "node       n1 (") {
		t.Error(got)
	}
	found("n1 (kogge-012345) 192.0.2.7 hanse 1.0 pc-x86_64 known")
	if got := say("list"); !strings.Contains(got, "kogge-012345.local:7443") {
		t.Error(got)
	}
	// Without an address of its own network it is reached as a neighbour.
	for _, address := range []string{"192.0.2.7", "fe80::7%lan0", "[fe80::7%lan0]:7443"} {
		say("adopt", address)
		if got := say("status", "n1"); !strings.Contains(got, "node       n1 (") {
			t.Errorf("%s: %s", address, got)
		}
	}
}

// addressed gives a link its addresses, and brings it up.
func addressed(link string, addresses ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}
