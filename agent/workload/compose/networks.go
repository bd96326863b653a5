package compose

import (
	"slices"

	"go.yaml.in/yaml/v4"
)

// attachment is what networks a service is on, and where that is said: nowhere for
// the default one.
type attachment struct {
	service string
	node    *yaml.Node
	names   []string // sorted
}

// maxNetworks is how many networks a service is on at most.
const maxNetworks = 100

// networks reads those of the top level. There is one network on a node; what
// would make others differ from it is refused.
func (p *parser) networks(n *yaml.Node) {
	if n.Tag == "!!null" {
		return
	}
	p.names(n, func(k, v *yaml.Node) {
		if !name(k.Value) {
			p.report(k, "network name %q: use letters, digits, -, _ and ., at most 63", k.Value)
		}
		p.declaredNetworks[k.Value] = true
		if v.Tag == "!!null" {
			return
		}
		p.fields(v, map[string]func(*yaml.Node){
			"driver": func(n *yaml.Node) {
				if driver := p.text(n); driver != "bridge" && driver != "overlay" && driver != "" {
					p.report(n, "%s: %s is not supported on a node: %s", p.at.shown, driver, oneNet)
				}
			},
			"enable_ipv4": func(n *yaml.Node) {
				if p.text(n) == "false" {
					p.report(n, "%s: containers have IPv4 addresses", p.at.shown)
				}
			},
		})
	})
}

// networks reads those that a service is on.
func (s *service) networks(n *yaml.Node) {
	at := s.at
	on := func(n *yaml.Node, name string) {
		switch {
		case name == "":
		case name != "default" && !s.declaredNetworks[name] && !s.part:
			s.report(n, "%s: network %s is not declared under \"networks:\" at the top", at.shown, name)
		case len(s.attached) == maxNetworks:
			s.report(n, "%s: more than %d", at.shown, maxNetworks)
		case !slices.Contains(s.attached, name):
			s.attached = append(s.attached, name)
		}
	}
	switch {
	case n.Tag == "!!null":
		return
	case n.Kind == yaml.SequenceNode:
		s.list(n, at.shown, func(item *yaml.Node) { on(item, s.text(item)) })
	default:
		s.names(n, func(k, v *yaml.Node) {
			on(k, k.Value)
			s.fields(v, nil)
		})
	}
	s.attachedAt = n
}

func (s *service) attachment(name *yaml.Node) attachment {
	a := attachment{service: s.ID, node: name, names: []string{"default"}}
	if len(s.attached) > 0 {
		a.node, a.names = s.attachedAt, slices.Sorted(slices.Values(s.attached))
	}
	return a
}

// apart reports services that share no network: here they would reach each other
// all the same, and somebody may count on it that they do not.
func (p *parser) apart(all []attachment) {
	// Services on the same networks are alike: most files have few kinds.
	var kinds []attachment
	for _, a := range all {
		if !slices.ContainsFunc(kinds, func(k attachment) bool { return slices.Equal(k.names, a.names) }) {
			kinds = append(kinds, a)
		}
	}
	if len(kinds) > maxNetworks {
		p.report(kinds[maxNetworks].node, "networks: more than %d different ways to be on them", maxNetworks)
		return
	}
	for i, a := range kinds {
		for _, b := range kinds[:i] {
			if slices.ContainsFunc(a.names, func(n string) bool { return slices.Contains(b.names, n) }) {
				continue
			}
			p.report(a.node, "services.%s.networks: none of them is one of %s: a node does not keep services apart yet; put both on one, or leave networks out",
				a.service, b.service)
			break // one of them tells
		}
	}
}
