package compose

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// maxNetworks is how many networks a file declares at most, and maxAliases how many
// names a service has on one.
const (
	maxNetworks = 100
	maxAliases  = 100
)

// attached is a service's place on a network.
type attached struct {
	workload.Attachment
	first, second int64 // its order among the service's: higher ones first
}

// networks reads those of the top level.
func (p *parser) networks(n *yaml.Node) {
	if n.Tag == "!!null" {
		return
	}
	p.names(n, func(k, v *yaml.Node) {
		if len(p.declaredNetworks) == maxNetworks {
			p.report(k, "%s: more than %d networks", p.at.shown, maxNetworks)
			return
		}
		one, named := workload.Attachment{Network: k.Value}, false
		if v.Tag != "!!null" {
			p.fields(v, map[string]func(*yaml.Node){
				"driver": func(n *yaml.Node) {
					if driver := p.text(n); driver != "bridge" && driver != "overlay" && driver != "" {
						p.report(n, "%s: %s is not supported on a node: a network is a bridge of the node", p.at.shown, driver)
					}
				},
				"enable_ipv4": func(n *yaml.Node) {
					if p.text(n) == "false" {
						p.report(n, "%s: containers have IPv4 addresses", p.at.shown)
					}
				},
				"external": func(n *yaml.Node) { one.External = p.external(n, &one.Network) },
				"internal": func(n *yaml.Node) { one.Internal = p.boolean(n) },
				"name":     func(n *yaml.Node) { one.Network, named = p.text(n), true },
			})
		}
		if !name(one.Network) {
			p.report(k, "network name %q: use letters, digits, -, _ and ., at most 63", one.Network)
		}
		if !named && !one.External {
			one.Network = workload.Join(p.project, k.Value)
		}
		p.declaredNetworks[k.Value] = one
	})
}

// networks reads those that a service is on.
func (s *service) networks(n *yaml.Node) {
	at := s.at
	s.attachedAt = n
	on := func(n *yaml.Node, name string) (a *attached) {
		declared, known := s.declaredNetworks[name]
		switch {
		case name == "":
			return nil
		case name == "default" && !known:
			declared.Network = workload.Join(s.project, name)
		case !known && !s.part:
			s.report(n, "%s: network %s is not declared under \"networks:\" at the top", at.shown, name)
		case len(s.attached) == workload.MaxNetworks:
			s.report(n, "%s: more than %d", at.shown, workload.MaxNetworks)
			return nil
		}
		if slices.ContainsFunc(s.attached, func(a *attached) bool { return a.Network == declared.Network }) {
			return nil
		}
		a = &attached{Attachment: declared}
		s.attached = append(s.attached, a)
		return a
	}
	switch {
	case n.Tag == "!!null":
	case n.Kind == yaml.SequenceNode:
		s.list(n, at.shown, func(item *yaml.Node) { on(item, s.text(item)) })
	default:
		s.names(n, func(k, v *yaml.Node) {
			a := on(k, k.Value)
			if v.Tag == "!!null" {
				return
			}
			if a == nil {
				a = &attached{}
			}
			order := func(to *int64) func(*yaml.Node) {
				return func(n *yaml.Node) { *to = s.integer(n, math.MinInt32, math.MaxInt32) }
			}
			s.fields(v, map[string]func(*yaml.Node){
				"aliases":     func(n *yaml.Node) { s.aliases(n, a) },
				"gw_priority": order(&a.first),
				"priority":    order(&a.second),
			})
		})
	}
}

func (s *service) aliases(n *yaml.Node, a *attached) {
	s.list(n, s.at.shown, func(item *yaml.Node) {
		alias := strings.ToLower(s.text(item))
		switch {
		case alias == "":
		case !hostName(alias):
			s.report(item, "%s: %s is not a host name", s.at.shown, describe(item))
		case len(a.Aliases) == maxAliases:
			s.report(item, "%s: more than %d", s.at.shown, maxAliases)
		case !slices.Contains(a.Aliases, alias):
			a.Aliases = append(a.Aliases, alias)
		}
	})
}

// hostName says whether others can call a container s: labels with dots between them,
// which here may have underscores, as containers' names do.
func hostName(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !label(strings.ReplaceAll(part, "_", "-")) {
			return false
		}
	}
	return len(s) <= 253
}

// containerName is one more name on every network.
func (s *service) containerName(n *yaml.Node) {
	given := s.text(n)
	if given != "" && !hostName(strings.ToLower(given)) {
		s.report(n, "container_name: %s is not a host name", describe(n))
		return
	}
	s.known = strings.ToLower(given)
}

func (s *service) networkMode(n *yaml.Node) {
	if n.Value == "none" {
		s.apart = true
		return
	}
	s.shares(n, rights.HostNetwork, "bridge")
}

// attach puts the container on its networks: the default one unless it says otherwise.
func (s *service) attach(name *yaml.Node) {
	switch {
	case s.Shares(rights.HostNetwork):
		return
	case s.apart && len(s.attached) > 0:
		s.report(s.attachedAt, "%s: networks and network_mode: none exclude each other", s.at.shown)
		return
	case s.apart:
		if len(s.Ports) > 0 {
			s.report(name, "%s: ports need a network, and network_mode is none", s.at.shown)
		}
		return
	case len(s.attached) == 0:
		s.networks(&yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: "default"}}})
	}
	slices.SortStableFunc(s.attached, func(a, b *attached) int {
		return cmp.Or(cmp.Compare(b.first, a.first), cmp.Compare(b.second, a.second), strings.Compare(a.Network, b.Network))
	})
	for _, a := range s.attached {
		if s.known != "" && !slices.Contains(a.Aliases, s.known) {
			a.Aliases = append(a.Aliases, s.known)
		}
		a.Aliases = slices.DeleteFunc(a.Aliases, func(alias string) bool { return alias == s.ID })
		slices.Sort(a.Aliases)
		s.Networks = append(s.Networks, a.Attachment)
		if s.onNetwork[a.Network]++; s.onNetwork[a.Network] == workload.MaxOnNetwork+1 {
			s.report(name, "networks: more than %d services on %s", workload.MaxOnNetwork, a.Network)
		}
	}
}
