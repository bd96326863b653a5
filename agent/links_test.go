package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kogge.example/agent/api"
	"kogge.example/agent/bridge"
	"kogge.example/agent/compose"
	"kogge.example/agent/mdns"
	"kogge.example/agent/namespace"
	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// TestNodePorts holds the one list of the node's own ports to where the node listens.
func TestNodePorts(t *testing.T) {
	for _, p := range []struct {
		protocol workload.Protocol
		port     int
	}{{workload.TCP, api.Port}, {workload.TCP, api.MemberPort}, {workload.UDP, mdns.Port}} {
		if _, own := workload.NodeOwns(p.protocol, uint16(p.port)); !own {
			t.Errorf("%d/%s is not among the node's own ports", p.port, p.protocol)
		}
	}
}

// TestAsked: the servers that the network names are the node's, and of containers nobody's.
func TestAsked(t *testing.T) {
	run := t.TempDir()
	if got := serversOf(run); got != nil {
		t.Errorf("before the network is up: %v", got)
	}
	addr := netip.MustParseAddr
	status := control.Network{
		Interfaces: []control.Interface{{Name: "eth0", Lease: &control.Lease{Server: addr("10.88.0.1")}}, {Name: "eth1"}},
		DNS:        []netip.Addr{addr("10.88.0.53")}, NTP: []netip.Addr{addr("10.88.0.123")},
	}
	if err := status.Write(run); err != nil {
		t.Fatal(err)
	}
	if got := serversOf(run); !slices.Equal(got, []netip.Addr{addr("10.88.0.53"), addr("10.88.0.123"), addr("10.88.0.1")}) {
		t.Errorf("servers: %v", got)
	}
}

// TestNamedServers: what people name by an address is the node's as well, but for what may
// be a container of its own: with the checks and the dns: that were right for the release
// before, the network of those stays where it is.
func TestNamedServers(t *testing.T) {
	settings, err := nodeconfig.Parse("node.yaml", []byte(`
time: {servers: [10.88.0.1, ntp.example, "fd00::1"]}
update: {source: "https://10.88.0.2:8443/os"}
assess:
  peers: ["10.88.0.3:443", "peer.example:443", "[fd00::3]:443"]
  checks: [{http: "http://10.88.0.6/health?deep=1"}, {tcp: "10.88.0.7:5432"}, {tcp: "localhost:80"}, {container: web, command: [/check]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	registries, err := registry.Parse([]byte(`{"10.88.0.4:5000": {"mirrors": [{"url": "https://10.88.0.5/mirror"}]}, "docker.io": {"mirrors": [{"url": "https://mirror.example"}, {"url": "https://[fd00::5]:5000"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	containers, _, err := compose.ParseTaken("shop", "shop.yaml", []byte(`
services:
  web: {image: "10.88.0.9:5000/web:1", dns: [10.88.0.53, "fd00::53"]}
  db: {image: "registry.example/db:1"}
`))
	if err != nil {
		t.Fatal(err)
	}
	const want = "[10.88.0.1 fd00::1 10.88.0.3 fd00::3 10.88.0.2 10.88.0.9 10.88.0.4 10.88.0.5 fd00::5]"
	if got := fmt.Sprint(namedServers(settings, registries, containers)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for name, want := range map[string]string{"": "", "192.0.2.1/os:stable": "192.0.2.1", "192.0.2.1:5000/os:stable": "192.0.2.1", "registry.example:5000/os": "",
		"https://ada@192.0.2.1/x": "192.0.2.1", "https://ada:secret@192.0.2.1": "192.0.2.1", "http://192.0.2.1?a=/@192.0.2.2": "192.0.2.1",
		"https://[fd00::1]/x": "fd00::1", "https://": "", "10.88": "", ":80": ""} {
		if a, ok := addressIn(name); ok != (want != "") || ok && a.String() != want {
			t.Errorf("%s: %s, %v", name, a, ok)
		}
	}
}

// TestReread: the servers are those of the settings as they are now; a file that cannot be
// read leaves the last ones.
func TestReread(t *testing.T) {
	config := filepath.Join(t.TempDir(), "node.yaml")
	read := reread(config, nodeconfig.Config{Hostname: "n1"})
	for _, step := range []struct{ text, servers string }{
		{"time: {servers: [10.88.0.1]}\n", "[10.88.0.1]"},
		{"time: {servers: [10.88.0.2]}\n", "[10.88.0.2]"},
		{"time: nonsense\n", "[10.88.0.2]"},
		{"update: {source: \"https://10.88.0.3/os\"}\n", "[10.88.0.3]"},
	} {
		// A new file each time: two writes may be at the same time, by its clock.
		if err := errors.Join(os.WriteFile(config+".new", []byte(step.text), 0o600), os.Rename(config+".new", config)); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(namedServers(read(), nil, nil)); got != step.servers {
			t.Errorf("%q: %s, want %s", step.text, got, step.servers)
		}
	}
	if err := os.Remove(config); err != nil || len(namedServers(read(), nil, nil)) != 1 {
		t.Errorf("without the file: %v, %v", err, read())
	}
}

// TestRouted: the links between which the node routes are those that the network service
// names, and none before it has spoken.
func TestRouted(t *testing.T) {
	run := t.TempDir()
	if got := routed(run); got != nil {
		t.Errorf("before the network is up: %v", got)
	}
	status := control.Network{Interfaces: []control.Interface{{Name: "eth0", Forward: true}, {Name: "eth1"}, {Name: "eth2", Forward: true}}}
	if err := status.Write(run); err != nil {
		t.Fatal(err)
	}
	if got := routed(run); !slices.Equal(got, []string{"eth0", "eth2"}) {
		t.Errorf("links that are routed: %v", got)
	}
}

// TestNetworkStays: a check and dns: that name a container leave its network where it was at
// the last boot.
func TestNetworkStays(t *testing.T) {
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return
	}
	settings, err := nodeconfig.Parse("node.yaml", []byte(`assess: {checks: [{tcp: "10.88.0.2:8080"}]}`))
	must(t, err)
	containers, _, err := compose.ParseTaken("shop", "shop.yaml", []byte("services: {web: {image: \"registry.example/web:1\", dns: [10.88.0.2]}}\n"))
	must(t, err)
	folder := t.TempDir()
	for _, boot := range []string{"first", "next"} {
		network, err := bridge.Open(filepath.Join(folder, "netns"))
		must(t, err)
		network.Last = filepath.Join(folder, "subnets.json")
		network.Asked = func() []netip.Addr { return namedServers(settings, registry.Registries{}, containers) }
		all, err := network.Make([]workload.Network{{Name: "front"}})
		must(t, err)
		if got := all["front"].Prefix.String(); got != "10.88.0.0/24" {
			t.Errorf("%s boot: %s", boot, got)
		}
		must(t, network.Prune(nil))
	}
}
