package compose

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// What a resolver takes: more than so many servers or domains it leaves out.
//
// Source: resolv.conf(5).
const (
	maxServers = 3
	maxDomains = 6
)

// texts calls each for a text, or for every one of a list.
func (s *service) texts(n *yaml.Node, most int, each func(item *yaml.Node, text string)) {
	items := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode {
		items = nil
		s.list(n, s.at.shown, func(item *yaml.Node) { items = append(items, item) })
	}
	for i, item := range items {
		if i == most {
			s.report(item, "%s: more than %d", s.at.shown, most)
			return
		}
		if text := s.text(item); text != "" {
			each(item, text)
		}
	}
}

func (s *service) dns(n *yaml.Node) {
	s.texts(n, maxServers, func(item *yaml.Node, text string) {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || a.Zone() != "" || a.IsUnspecified():
			s.report(item, "dns: %q is not the address of a name server", text)
		case a.Is6() && a.IsLinkLocalUnicast():
			s.warn(item, "dns: %s is left out: it is valid on one link alone, and a container is on none of the node's", text)
		case a.IsLoopback():
			s.warn(item, "dns: %s is left out: it means the container itself", text)
		case !slices.Contains(s.DNS, a):
			s.DNS = append(s.DNS, a)
		}
	})
}

func (s *service) dnsSearch(n *yaml.Node) {
	s.texts(n, maxDomains, func(item *yaml.Node, text string) {
		if domain := strings.ToLower(strings.TrimSuffix(text, ".")); domain != "" && !hostName(domain) {
			s.report(item, "dns_search: %q is not a domain", text)
			return
		}
		s.Search = append(s.Search, text)
	})
}

// dnsOption is such as ndots:2 or use-vc.
var dnsOption = regexp.MustCompile(`^[a-z0-9-]{1,32}(:[0-9]{1,3})?$`)

func (s *service) dnsOptions(n *yaml.Node) {
	s.texts(n, 20, func(item *yaml.Node, text string) {
		if !dnsOption.MatchString(text) {
			s.report(item, "dns_opt: %q is not an option of resolv.conf", text)
			return
		}
		s.DNSOptions = append(s.DNSOptions, text)
	})
}
