package nodeconfig

import (
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// How many entries a list may have. They also bound the work when aliases repeat
// one list inside another.
const (
	maxInterfaces = 32
	maxAddresses  = 16
	maxRoutes     = 32
	maxDNS        = 3
	maxSearch     = 6
	maxServers    = 8
	maxLabels     = 64
	maxPool       = 8
)

// decoder walks the YAML tree of one file and collects what is wrong with it.
type decoder struct {
	file     string
	lines    []string
	problems Problems
}

// key is one key of a mapping: its name, and what to do with its value.
type key struct {
	name string
	read func(*yaml.Node)
}

// later names keys that people will look for and that this release does not have,
// by the mapping they belong in. Each says so in words: accepting one without
// effect would be a lie.
var later = map[string]map[string]string{
	"node.yaml": {
		"vote":   "not in this release: a node on its own does not vote",
		"health": "assess.checks says what a boot must pass; workloads have Compose healthchecks",
		"log":    "not in this release: logs are kept in memory and in a bounded spool",
		"logs":   "not in this release: logs are kept in memory and in a bounded spool",
		"wifi":   "Wi-Fi is not available in this release: connect the node by cable",
		"users":  "a node has no users and no shell",
		"ssh":    "a node has no shell: use the API",
		"token":  "secrets do not belong in node.yaml: tokens go into join.yaml",
	},
	"network entry": {
		"wifi":     "Wi-Fi is not available in this release: connect the node by cable",
		"ssid":     "Wi-Fi is not available in this release: connect the node by cable",
		"password": "Wi-Fi is not available in this release: connect the node by cable",
		"vlan":     "VLANs are not available in this release",
		"vlans":    "VLANs are not available in this release",
		"bond":     "bonds are not available in this release",
		"pool":     `containers have the pool: say "containers: {pool: [10.88.0.0/16]}" at the top`,
	},
}

// sort brings the problems into the order of the file.
func (d *decoder) sort() {
	sort.SliceStable(d.problems.List, func(i, j int) bool {
		a, b := d.problems.List[i], d.problems.List[j]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
}

func (d *decoder) config(n *yaml.Node, c *Config) {
	d.mapping(n, "node.yaml", []key{
		{"hostname", func(v *yaml.Node) { c.Hostname = d.hostname(v) }},
		{"network", func(v *yaml.Node) { c.Network = d.network(v) }},
		{"time", func(v *yaml.Node) {
			d.mapping(v, "time", []key{{"servers", func(v *yaml.Node) { c.Time.Servers = d.servers(v) }}})
		}},
		{"labels", func(v *yaml.Node) { c.Labels = d.labels(v) }},
		{"state", func(v *yaml.Node) {
			d.mapping(v, "state", []key{{"onCorrupt", func(v *yaml.Node) {
				c.State.OnCorrupt = OnCorrupt(d.choice(v, string(Hold), string(Reformat)))
			}}})
		}},
		{"update", func(v *yaml.Node) { c.Update = d.update(v) }},
		{"allow", func(v *yaml.Node) { c.Allow = d.allow(v) }},
		{"containers", func(v *yaml.Node) {
			d.mapping(v, "containers", []key{{"pool", func(v *yaml.Node) { c.Containers.Pool = d.pool(v) }}})
		}},
		{"assess", func(v *yaml.Node) { c.Assess = d.assess(v) }},
		{"workloads", func(v *yaml.Node) { c.Workloads = d.workloads(n, v) }},
	})
}

func (d *decoder) network(n *yaml.Node) []Interface {
	var all []Interface
	seen := make(map[string]int)
	d.list(n, "network", maxInterfaces, func(v *yaml.Node) {
		entry, ok := d.entry(v)
		if !ok {
			return
		}
		if first, twice := seen[entry.Match]; twice {
			d.report(d.find(v, "match"), "match %q is already in the entry at line %d", entry.Match, first)
		}
		seen[entry.Match] = v.Line
		all = append(all, entry)
	})
	return all
}

func (d *decoder) entry(n *yaml.Node) (Interface, bool) {
	var e Interface
	var dhcp, mdns, forward *bool
	before := d.count()
	d.mapping(n, "network entry", []key{
		{"match", func(v *yaml.Node) { e.Match = d.match(v) }},
		{"dhcp", func(v *yaml.Node) { dhcp = d.boolean(v) }},
		{"ipv6", func(v *yaml.Node) {
			e.IPv6 = IPv6(d.choice(v, string(IPv6Auto), string(IPv6Static), string(IPv6Off)))
		}},
		{"addresses", func(v *yaml.Node) {
			d.list(v, "addresses", maxAddresses, func(v *yaml.Node) {
				if p, ok := d.address(v); ok {
					if slices.ContainsFunc(e.Addresses, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }) {
						d.report(v, "address %s is already in the list", p.Addr())
					}
					e.Addresses = append(e.Addresses, p)
				}
			})
		}},
		{"gateway", func(v *yaml.Node) { e.Gateway = d.gateways(v) }},
		{"routes", func(v *yaml.Node) {
			d.list(v, "routes", maxRoutes, func(v *yaml.Node) {
				if r, ok := d.route(v); ok {
					e.Routes = append(e.Routes, r)
				}
			})
		}},
		{"dns", func(v *yaml.Node) { e.DNS = d.addrs(v, "dns", maxDNS, d.resolver) }},
		{"search", func(v *yaml.Node) {
			d.list(v, "search", maxSearch, func(v *yaml.Node) {
				if s, ok := d.domain(v); ok {
					e.Search = append(e.Search, s)
				}
			})
		}},
		{"mtu", func(v *yaml.Node) { e.MTU = int(d.number(v, 576, 65535)) }},
		{"mdns", func(v *yaml.Node) { mdns = d.boolean(v) }},
		{"forward", func(v *yaml.Node) { forward = d.boolean(v) }},
	})
	if d.count() > before {
		return e, false // checks across keys would only repeat it
	}
	if d.find(n, "match") == nil {
		d.report(n, `this entry needs "match": wired, an interface name like eth0, or a MAC address`)
		return e, false
	}
	e.MDNS = mdns == nil || *mdns
	e.Forward = forward != nil && *forward
	d.together(resolve(n), &e, dhcp)
	return e, true
}

// together fills in defaults that depend on other keys, and checks what one key
// excludes in another.
func (d *decoder) together(n *yaml.Node, e *Interface, dhcp *bool) {
	has4 := slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() })
	has6 := slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	e.DHCP = !has4
	if dhcp != nil {
		e.DHCP = *dhcp
	}
	if e.IPv6 == "" {
		e.IPv6 = IPv6Auto
	}
	switch {
	case e.IPv6 == IPv6Off && has6:
		d.report(d.find(n, "ipv6"), `"ipv6: off" and an IPv6 address exclude each other`)
	case e.IPv6 == IPv6Static && !has6:
		d.report(d.find(n, "ipv6"), `"ipv6: static" needs an IPv6 address in "addresses" (or say "ipv6: off")`)
	case e.MTU > 0 && e.MTU < 1280 && e.IPv6 != IPv6Off:
		d.report(d.find(n, "mtu"), `IPv6 needs an MTU of at least 1280 (or say "ipv6: off")`)
	}
	for _, g := range e.Gateway {
		at := d.find(n, "gateway")
		switch {
		case g.Is4() && e.DHCP:
			d.report(at, `an IPv4 gateway and DHCP exclude each other: say "dhcp: false"`)
		case g.Is6() && e.IPv6 == IPv6Off:
			d.report(at, `"ipv6: off" and an IPv6 gateway exclude each other`)
		case slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr() == g }):
			d.report(at, "gateway %s is the node's own address", g)
		case !g.IsLinkLocalUnicast() && !slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Contains(g) || p.IsSingleIP() && p.Addr().Is4() == g.Is4() }):
			d.report(at, "gateway %s is in none of the networks in \"addresses\" (only an address with /%d may have it elsewhere)", g, g.BitLen())
		}
	}
	for _, r := range e.Routes {
		if e.IPv6 == IPv6Off && r.To.Addr().Is6() {
			d.report(d.find(n, "routes"), `"ipv6: off" and the IPv6 route to %s exclude each other`, r.To)
		}
	}
}

func (d *decoder) pool(n *yaml.Node) []netip.Prefix {
	var all []netip.Prefix
	d.list(n, "pool", maxPool, func(v *yaml.Node) {
		before := d.count()
		p := d.prefix(v)
		i := slices.IndexFunc(all, p.Overlaps)
		switch {
		case d.count() > before:
		case !p.Addr().Is4():
			d.report(v, "%s is an IPv6 network: containers have IPv4", p)
		case p.Bits() < 8 || p.Bits() > 24:
			d.report(v, "%s: expected 8 to 24 bits: each network of containers gets a /24 of it", p)
		case p.Addr().IsLoopback(), p.Addr().IsLinkLocalUnicast(), p.Addr().As4()[0] == 0, p.Addr().As4()[0] >= 224:
			d.report(v, "%s is not a network that hosts can be in", p)
		case i >= 0:
			d.report(v, "%s overlaps with %s", p, all[i])
		default:
			all = append(all, p)
		}
	})
	return all
}

func (d *decoder) gateways(n *yaml.Node) []netip.Addr {
	if resolve(n).Kind == yaml.ScalarNode {
		if a, ok := d.addr(n); ok {
			return []netip.Addr{a}
		}
		return nil
	}
	all := d.addrs(n, "gateway", 2, d.addr)
	if len(all) == 2 && all[0].Is4() == all[1].Is4() {
		d.report(n, "two gateways of one address family: at most one for IPv4 and one for IPv6")
	}
	return all
}

func (d *decoder) route(n *yaml.Node) (Route, bool) {
	var r Route
	before := d.count()
	isDefault := false
	d.mapping(n, "route", []key{
		{"to", func(v *yaml.Node) {
			if isDefault = resolve(v).Value == "default"; !isDefault {
				r.To = d.prefix(v)
			}
		}},
		{"via", func(v *yaml.Node) { r.Via, _ = d.addr(v) }},
		{"metric", func(v *yaml.Node) { r.Metric = uint32(d.number(v, 0, 1<<32-2)) }},
	})
	if d.count() > before {
		return r, false
	}
	switch {
	case d.find(n, "to") == nil:
		d.report(n, `this route needs "to": a network like 10.0.0.0/8, or default`)
	case isDefault && !r.Via.IsValid():
		d.report(n, `a default route needs "via", the router's address`)
	case isDefault:
		r.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Via.Is6() {
			r.To = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	case r.Via.IsValid() && r.Via.Is4() != r.To.Addr().Is4():
		d.report(d.find(n, "via"), "%s and %s are of different address families", r.To, r.Via)
	}
	return r, d.count() == before
}

func (d *decoder) labels(n *yaml.Node) map[string]string {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		d.report(n, "labels: expected key: value pairs, got %s", describe(n))
		return nil
	}
	if len(n.Content)/2 > maxLabels {
		d.report(n, "%d labels: %d at most", len(n.Content)/2, maxLabels)
		return nil
	}
	all := make(map[string]string)
	d.pairs(n, func(k, v *yaml.Node) {
		if problem := labelKey(k.Value); problem != "" {
			d.report(k, "label %q %s", k.Value, problem)
			return
		}
		value, ok := d.text1(v, "a label's value")
		if !ok {
			return
		}
		if problem := labelValue(value); problem != "" {
			d.report(v, "label %q: value %s", k.Value, problem)
			return
		}
		all[k.Value] = value
	})
	return all
}

func (d *decoder) servers(n *yaml.Node) []string {
	var all []string
	d.list(n, "servers", maxServers, func(v *yaml.Node) {
		s, ok := d.host(v)
		if ok && slices.Contains(all, s) {
			d.report(v, "server %s is already in the list: it cannot confirm itself", s)
		}
		if ok {
			all = append(all, s)
		}
	})
	return all
}

// mapping walks the pairs of mapping n and reads each known key; what is the name
// of the mapping in messages.
func (d *decoder) mapping(n *yaml.Node, what string, keys []key) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		d.report(n, "%s: expected keys and values, got %s", what, describe(n))
		return
	}
	d.pairs(n, func(k, v *yaml.Node) {
		i := slices.IndexFunc(keys, func(known key) bool { return known.name == k.Value })
		if i < 0 {
			d.unknown(k, what, keys)
			return
		}
		if v := resolve(v); v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			d.report(k, "%q has no value: give it one, or leave the key out", k.Value)
			return
		}
		keys[i].read(v)
	})
}

// pairs calls each for the pairs of mapping n whose key is a string that has not
// come before.
func (d *decoder) pairs(n *yaml.Node, each func(k, v *yaml.Node)) {
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := resolve(n.Content[i]), n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			d.report(k, "expected a word as a key, got %s", describe(k))
		case k.Tag == "!!merge":
			d.report(k, "merge keys are not used in settings: write the keys out")
		case seen[k.Value] > 0:
			d.report(k, "key %q is already at line %d", k.Value, seen[k.Value])
		default:
			seen[k.Value] = k.Line
			each(k, v)
		}
	}
}

// unknown reports a key that mapping what does not have.
func (d *decoder) unknown(k *yaml.Node, what string, keys []key) {
	if why := later[what][strings.ToLower(k.Value)]; why != "" {
		d.report(k, "key %q: %s", k.Value, why)
		return
	}
	names := make([]string, len(keys))
	for i, known := range keys {
		names[i] = known.name
	}
	if best := nearest(k.Value, names); best != "" {
		d.report(k, "unknown key %q: did you mean %q?", k.Value, best)
		return
	}
	d.report(k, "unknown key %q: %s has %s", k.Value, what, strings.Join(names, ", "))
}

// list calls each for every entry of list n, which has one at least and most at
// most.
func (d *decoder) list(n *yaml.Node, what string, most int, each func(*yaml.Node)) {
	n = resolve(n)
	switch {
	case n.Kind != yaml.SequenceNode:
		d.report(n, "%s: expected a list (each entry behind a \"- \"), got %s", what, describe(n))
	case len(n.Content) == 0:
		d.report(n, "%s is empty: leave the key out for its default", what)
	case len(n.Content) > most:
		d.report(resolve(n.Content[most]), "%s has %d entries: %d at most", what, len(n.Content), most)
	default:
		for _, v := range n.Content {
			each(v)
		}
	}
}

// find returns the value of a key in mapping n, or nil.
func (d *decoder) find(n *yaml.Node, name string) *yaml.Node {
	n = resolve(n)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if resolve(n.Content[i]).Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// count is how many problems there are so far, shown or not.
func (d *decoder) count() int { return len(d.problems.List) + d.problems.More }

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// describe says what a node is, for people who do not know YAML's words.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a group of keys"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	case "!!str":
		return "the text " + strconv.Quote(n.Value)
	}
	return "a value of type " + strconv.Quote(n.Tag)
}
