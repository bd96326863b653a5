package compose

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
)

// maxPorts is how many ports of the node a container can have, ranges counted out.
const maxPorts = 256

func (s *service) ports(n *yaml.Node) {
	s.list(n, "ports", func(item *yaml.Node) {
		if len(s.Ports) > maxPorts {
			return
		}
		defer func() {
			if len(s.Ports) > maxPorts {
				s.report(item, "more than %d ports", maxPorts)
			}
		}()
		if item.Kind == yaml.MappingNode {
			s.longPort(item)
			return
		}
		text := s.text(item)
		if text == "" {
			return
		}
		parsed, err := types.ParsePortConfig(text)
		if err != nil {
			s.report(item, "port %q: %v", text, err)
			return
		}
		for _, one := range parsed {
			s.port(item, one)
		}
	})
}

func (s *service) longPort(n *yaml.Node) {
	one := types.ServicePortConfig{Protocol: "tcp"}
	before := s.reported()
	s.fields(n, map[string]func(*yaml.Node){
		"target":    func(v *yaml.Node) { one.Target = uint32(s.integer(v, 1, 65535)) },
		"published": func(v *yaml.Node) { one.Published = s.text(v) },
		"host_ip":   func(v *yaml.Node) { one.HostIP = s.text(v) },
		"protocol":  func(v *yaml.Node) { one.Protocol = s.text(v) },
		"mode": func(v *yaml.Node) {
			if mode := s.text(v); mode != "host" && mode != "ingress" {
				s.report(v, "mode: expected host or ingress, got %s", describe(v))
			}
		},
	})
	if s.reported() == before {
		s.port(n, one)
	}
}

func (s *service) port(n *yaml.Node, one types.ServicePortConfig) {
	port := workload.Port{Protocol: workload.Protocol(strings.ToLower(one.Protocol)), Container: uint16(one.Target)}
	if port.Protocol != workload.TCP && port.Protocol != workload.UDP {
		s.report(n, "port %d: protocol %s is not supported on a node: use tcp or udp", one.Target, one.Protocol)
		return
	}
	if one.Target < 1 || one.Target > 65535 {
		s.report(n, "port: the container's port (target) is missing")
		return
	}
	if one.Published == "" || one.Published == "0" {
		s.report(n, "port %d: say which port of the node leads to it, such as %d:%d", one.Target, one.Target, one.Target)
		return
	}
	number, err := strconv.ParseUint(one.Published, 10, 16)
	if err != nil || number == 0 {
		s.report(n, "port %d: expected one port of the node, got %q", one.Target, one.Published)
		return
	}
	port.HostPort = uint16(number)
	if own, ok := workload.NodeOwns(port.Protocol, port.HostPort); ok {
		if s.taken {
			s.warn(n, "port %d/%s of the node is its own (%s): it is not published", port.HostPort, port.Protocol, own.What)
			return
		}
		s.report(n, "port %d/%s of the node is its own (%s): choose another one, such as %d:%d", port.HostPort, port.Protocol, own.What, free(port), one.Target)
		return
	}
	if one.HostIP != "" {
		ip, err := netip.ParseAddr(one.HostIP)
		if err != nil {
			s.report(n, "port %d: %q is not an address", one.Target, one.HostIP)
			return
		}
		if !ip.Is4() {
			s.report(n, "port %d: host address %s: published ports answer on IPv4 only", one.Target, ip)
			return
		}
		if first := ip.As4()[0]; first == 0 && !ip.IsUnspecified() || first >= 224 { // multicast, reserved, broadcast
			s.report(n, "port %d: host address %s: no node can have that address", one.Target, ip)
			return
		}
		if !ip.IsUnspecified() {
			port.HostIP = ip
		}
	}
	s.Ports = append(s.Ports, port)
}

// free is a port to suggest in place of one that is the node's own.
func free(p workload.Port) uint16 {
	for n := p.HostPort%50000 + 10000; ; n++ {
		if _, owned := workload.NodeOwns(p.Protocol, n); !owned {
			return n
		}
	}
}
