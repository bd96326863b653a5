// Package nodeconfig turns node.yaml, the one file in which an operator tells a
// node what it is, into checked settings.
//
// In comes the text of the file, from the boot partition, from QEMU or from the
// API; out comes a [Config] in which every value is valid and every default is
// filled in, or [Problems]: each with file, line, column and a caret under the
// text it is about. The package is strict on purpose: an unknown key, a wrong
// type or a key given twice is a problem, since a setting that is silently
// ignored is found out on the day it was needed.
//
// It reads and writes no network and no device, and it leaves the workloads
// alone: their text goes to compose-go as it was written, which init is too
// small to contain.
package nodeconfig

import (
	"net/netip"

	"kogge.example/init/rights"
)

// Config is a node's settings. The zero Config is a node that was told nothing:
// DHCP and IPv6 autoconfiguration on every wired link, no workloads.
type Config struct {
	// Hostname is one DNS label: lower-case letters, digits and hyphens, at most
	// 63. Default: "kogge-" and the first six digits of the machine id, made by
	// PID 1. The node is found on the LAN as <hostname>.local.
	Hostname string `yaml:"hostname,omitempty"`

	// Network lists the interfaces to set up; an interface that no entry matches
	// stays down. Of several entries that match, the most specific counts: MAC
	// address, name, name pattern, "wired"; of two patterns the first.
	// Default: one entry, [DefaultInterface].
	Network []Interface `yaml:"network,omitempty"`

	Time  Time  `yaml:"time,omitempty"`
	State State `yaml:"state,omitempty"`

	Update Update `yaml:"update,omitempty"`

	// Labels describe the node to people and to placement rules. A key has
	// lower-case letters, digits, '.', '-', '_' and '/', a value any printable
	// text; at most 63 characters each, 64 labels. Default: none.
	Labels map[string]string `yaml:"labels,omitempty"`

	// Allow says what containers may have that none has by itself. Default: nothing. At
	// most 64 entries.
	Allow []rights.Allow `yaml:"allow,omitempty"`

	Containers Containers `yaml:"containers,omitempty"`

	Assess Assess `yaml:"assess,omitempty"`

	// Workloads are the containers of a node that is on its own. Default: none.
	Workloads Workloads `yaml:"-"`
}

// Interface says how the links that match it get addresses and routes.
type Interface struct {
	// Match chooses links: "wired" (every Ethernet link with hardware behind it),
	// a kernel name or a pattern of one ("eth0", "en*"), or a MAC address
	// ("52:54:00:12:34:56"). Required.
	Match string `yaml:"match"`

	// DHCP asks for an IPv4 address, and with it routes, resolvers, search domains,
	// MTU and time servers. Default: true, and false where addresses has an IPv4
	// one. With both, the link has both.
	DHCP bool `yaml:"dhcp"`

	// IPv6 says where IPv6 addresses come from. Default: auto.
	IPv6 IPv6 `yaml:"ipv6"`

	// Addresses are static, each with the length of its prefix ("192.0.2.7/24").
	// Others are removed. Default: none; where DHCP gives none either, those that
	// somebody else gave the link stay. At most 16.
	Addresses []netip.Prefix `yaml:"addresses,omitempty,flow"`

	// Gateway is the default router: one address, or a list of one for each
	// family. It lies in one of Addresses or is link-local. An IPv4 gateway and
	// DHCP exclude each other. Default: what DHCP and router advertisements say.
	Gateway []netip.Addr `yaml:"gateway,omitempty,flow"`

	// Routes are further static routes. Default: none. At most 32.
	Routes []Route `yaml:"routes,omitempty"`

	// DNS are resolvers by address, instead of those that DHCP and router
	// advertisements name. A link-local one is on each link of the entry, or on the
	// one that it names ("fe80::1%eth0"). Default: none. At most 3, as resolvers read
	// no more.
	DNS []netip.Addr `yaml:"dns,omitempty,flow"`

	// Search are domains tried behind short names, instead of those that DHCP and
	// router advertisements name. Default: none. At most 6.
	Search []string `yaml:"search,omitempty,flow"`

	// MTU in bytes, 576 to 65535, and at least 1280 unless IPv6 is off.
	// Default: what DHCP says, or the driver's.
	MTU int `yaml:"mtu,omitempty"`

	// MDNS has the node answer to its name on these links, <hostname>.local, and to
	// those who look for nodes (kogge node find). Default: true.
	MDNS bool `yaml:"mdns"`

	// Forward lets the node route IPv4 between these links and others that say the same.
	// Without it nothing is routed between the node's links, only from containers to
	// them. Addresses are not translated. Default: false.
	Forward bool `yaml:"forward,omitempty"`
}

// DefaultInterface is what a node without a network section does.
var DefaultInterface = Interface{Match: Wired, DHCP: true, IPv6: IPv6Auto, MDNS: true}

// Wired as a match means every Ethernet link that has hardware behind it, or a
// virtual machine's; not bridges, container links and tunnels.
const Wired = "wired"

// IPv6 says where a link's IPv6 addresses come from.
type IPv6 string

const (
	IPv6Auto   IPv6 = "auto"   // from router advertisements, and Addresses
	IPv6Static IPv6 = "static" // from Addresses alone; router advertisements are ignored
	IPv6Off    IPv6 = "off"    // the link speaks no IPv6, not even link-local
)

// Route sends packets for a network to a router.
type Route struct {
	// To is the network, without host bits; in the file also "default".
	To netip.Prefix `yaml:"to" json:"to"`
	// Via is the router. Default: none, the network is on the link itself.
	Via netip.Addr `yaml:"via,omitempty" json:"via,omitzero"`
	// Metric chooses between routes to the same network, the lowest wins; 0 to
	// 4294967294. Default: the one of the link, see init/network.
	Metric uint32 `yaml:"metric,omitempty" json:"metric,omitempty"`
}

// Containers are settings of all containers together.
type Containers struct {
	// Pool are the IPv4 networks that the networks of containers are made in: each gets
	// a /24 that overlaps with nothing that the node has an address in or a route to. A
	// network that is wider than the pool is no obstacle: within it the pool is said to
	// be free. 8 to 24 bits each. Default: what is in use least of the private ones, see
	// agent/bridge. At most 8.
	Pool []netip.Prefix `yaml:"pool,omitempty,flow"`
}

// Time says where the node gets its clock from.
type Time struct {
	// Servers are NTP servers by name or address; of two or more that answer two must
	// agree before the clock follows them, a single one is believed and marked as such,
	// also where the others do not answer for a while. They replace those that DHCP
	// names (option 42). Default: those of DHCP, else none: no vendor's pool is asked
	// unless the file says so, and the clock then runs on its own from the floor. At
	// most 8.
	Servers []string `yaml:"servers,omitempty"`
}

// State says what happens to the STATE partition.
type State struct {
	// OnCorrupt says what to do when STATE is damaged and e2fsck cannot repair it. Default: hold.
	OnCorrupt OnCorrupt `yaml:"onCorrupt,omitempty"`
}

// OnCorrupt is an answer to a STATE partition that cannot be repaired.
type OnCorrupt string

const (
	// Hold leaves the partition as it is and comes up without workloads, so that
	// somebody can save what is on it. The empty value means the same.
	Hold OnCorrupt = "hold"
	// Reformat makes a new, empty file system: identity and data are gone.
	Reformat OnCorrupt = "reformat"
)

// Workloads is a Compose file inside node.yaml, unread. Its YAML is well-formed,
// has no key twice and stays within bounds when its aliases are expanded; whether
// it is Compose, agent/workload knows.
type Workloads struct {
	// Text is the section as it was written. It starts with as many empty lines as
	// node.yaml has lines before it and keeps its indentation, so that lines and
	// columns in a message about Text are those of File. Empty: no workloads.
	Text []byte
	// File is the name that the whole file had when it was parsed.
	File string
	// Line is where the section's first line stands in File, counted from 1.
	Line int
}

// Interfaces returns Network, or the one default entry where there is none.
func (c Config) Interfaces() []Interface {
	if len(c.Network) == 0 {
		return []Interface{DefaultInterface}
	}
	return c.Network
}
