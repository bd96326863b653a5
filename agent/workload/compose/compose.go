// Package compose turns a Compose file into the containers of one node.
//
// In comes its text; out come complete [workload.Container]s and warnings, or
// [nodeconfig.Problems] with line and caret. It is strict: what this node does
// not do is refused by name, what means nothing here is warned of, and nothing is
// ignored, x- keys excepted, which are nobody's by definition. Values are read by
// compose-go's own types, so that sizes, durations, ports and commands mean here
// what they mean everywhere; its loader is left out, as a JSON schema validator
// would cost each start of the agent more than all other packages together and
// knows no lines.
//
// It is pure: it opens no other file, expands no variable (a node has no
// environment that somebody could know) and starts nothing.
//
// Source: github.com/compose-spec/compose-spec/blob/main/spec.md.
package compose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// Parse reads the Compose file text, called file in messages, and returns its
// containers by name, and warnings. The error is a *[nodeconfig.Problems]. Empty
// text means no containers.
func Parse(file string, text []byte) ([]workload.Container, []nodeconfig.Problem, error) {
	p := &parser{file: file, lines: strings.Split(string(text), "\n"), ports: make(map[string]string)}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		p.problems.List = []nodeconfig.Problem{{File: file, Message: err.Error()}}
		return nil, nil, &p.problems
	}
	var all []workload.Container
	if len(doc.Content) > 0 {
		all = p.top(doc.Content[0])
	}
	if len(p.problems.List) > 0 {
		slices.SortStableFunc(p.problems.List, func(a, b nodeconfig.Problem) int { return a.Line - b.Line })
		return nil, nil, &p.problems
	}
	slices.SortFunc(all, func(a, b workload.Container) int { return strings.Compare(a.ID, b.ID) })
	return all, p.warnings, nil
}

// maxProblems is how many problems are kept; the first ones tell.
const maxProblems = 10

type parser struct {
	file     string
	lines    []string
	problems nodeconfig.Problems
	warnings []nodeconfig.Problem
	volumes  map[string]bool   // declared at the top
	ports    map[string]string // who publishes a port
	merges   int
}

func (p *parser) report(n *yaml.Node, format string, args ...any) {
	if len(p.problems.List) == maxProblems {
		p.problems.More++
		return
	}
	p.problems.List = append(p.problems.List, p.problem(n, format, args...))
}

func (p *parser) warn(n *yaml.Node, format string, args ...any) {
	p.warnings = append(p.warnings, p.problem(n, format, args...))
}

func (p *parser) problem(n *yaml.Node, format string, args ...any) nodeconfig.Problem {
	source := ""
	if n.Line > 0 && n.Line <= len(p.lines) {
		source = strings.TrimRight(p.lines[n.Line-1], "\r")
	}
	width := 1
	if n.Kind == yaml.ScalarNode && !strings.ContainsAny(n.Value, "\n") {
		width = max(1, len([]rune(n.Value)))
	}
	return nodeconfig.Problem{
		File: p.file, Line: n.Line, Column: n.Column, Width: width, Source: source,
		Message: fmt.Sprintf(format, args...),
	}
}

// pairs calls each for every key of a mapping, merges (<<) included, and reports
// what is no mapping and keys given twice. what names n in messages.
func (p *parser) pairs(n *yaml.Node, what string, each func(k, v *yaml.Node)) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.report(n, "%s has keys and values, this is %s", what, describe(n))
		return
	}
	own := make(map[string]bool)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0 {
			merged = append(merged, v)
			continue
		}
		if k.Kind != yaml.ScalarNode {
			p.report(k, "a key is a plain word")
			continue
		}
		if own[k.Value] {
			p.report(k, "key %q is given twice", k.Value)
			continue
		}
		own[k.Value] = true
		each(k, resolve(v))
	}
	for _, m := range merged {
		p.merge(resolve(m), own, each)
	}
}

// maxMerges is how many merges a file can have, those inside of merges counted
// each time: they can multiply.
const maxMerges = 1000

// merge adds the keys of m, a mapping or a list of them, that are not own yet.
func (p *parser) merge(m *yaml.Node, own map[string]bool, each func(k, v *yaml.Node)) {
	p.merges++
	switch {
	case p.merges > maxMerges:
		if p.merges == maxMerges+1 {
			p.report(m, "more than %d merges", maxMerges)
		}
	case m.Kind == yaml.SequenceNode:
		for _, child := range m.Content {
			p.merge(resolve(child), own, each)
		}
	case m.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(m.Content); i += 2 {
			k, v := m.Content[i], resolve(m.Content[i+1])
			switch {
			case k.Value == "<<":
				p.merge(v, own, each)
			case !own[k.Value]:
				own[k.Value] = true
				each(k, v)
			}
		}
	default:
		p.report(m, "only keys and values can be merged")
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	// A chain of aliases cannot be longer than the document has anchors.
	for range 100 {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			return n
		}
		n = n.Alias
	}
	return n
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "empty"
		}
		return fmt.Sprintf("%q", n.Value)
	}
	return "something else"
}

// top reads the top level. Volumes come before services use them.
func (p *parser) top(root *yaml.Node) []workload.Container {
	p.volumes = make(map[string]bool)
	var services *yaml.Node
	p.pairs(root, "a Compose file", func(k, v *yaml.Node) {
		switch {
		case k.Value == "services":
			services = v
		case k.Value == "volumes":
			p.declared(v)
		case k.Value == "version", k.Value == "name":
			p.warn(k, "%s means nothing on a node", k.Value)
		case strings.HasPrefix(k.Value, "x-"):
		case slices.Contains(topLacking, k.Value):
			p.report(k, "%s: not supported on a node", k.Value)
		default:
			p.report(k, "unknown key %q", k.Value)
		}
	})
	if services == nil || services.Tag == "!!null" {
		if len(p.problems.List) == 0 && services == nil {
			p.report(root, "no services: a Compose file has its containers under \"services:\"")
		}
		return nil
	}
	var all []workload.Container
	p.pairs(services, "services", func(k, v *yaml.Node) {
		if strings.HasPrefix(k.Value, "x-") {
			return
		}
		if !label(k.Value) {
			p.report(k, "service name %q: use lower-case letters, digits and hyphens, at most 63", k.Value)
			return
		}
		all = append(all, p.service(k, v))
	})
	return all
}

var topLacking = []string{"networks", "secrets", "configs", "include", "models"}

// declared reads the volumes at the top: names, without options.
func (p *parser) declared(n *yaml.Node) {
	if n.Tag == "!!null" {
		return
	}
	p.pairs(n, "volumes", func(k, v *yaml.Node) {
		if !label(k.Value) {
			p.report(k, "volume name %q: use lower-case letters, digits and hyphens, at most 63", k.Value)
			return
		}
		p.volumes[k.Value] = true
		if v.Tag == "!!null" {
			return
		}
		p.pairs(v, "volume "+k.Value, func(o, _ *yaml.Node) {
			if !strings.HasPrefix(o.Value, "x-") {
				p.report(o, "volumes.%s.%s: not supported on a node: a volume is a folder on STATE", k.Value, o.Value)
			}
		})
	})
}

func (p *parser) service(name, n *yaml.Node) workload.Container {
	c := workload.Container{
		ID: name.Value, Hostname: name.Value, Pids: 0,
		Restart: workload.Restart{Policy: workload.No}, StopGrace: workload.DefaultStopGrace,
	}
	before := len(p.problems.List) + p.problems.More
	p.pairs(n, "service "+name.Value, func(k, v *yaml.Node) {
		reason, lacking := lackingKeys[k.Value]
		switch decode := serviceKeys[k.Value]; {
		case decode != nil:
			decode(p, v, &c)
		case strings.HasPrefix(k.Value, "x-"):
		case meaningless[k.Value] != "":
			p.warn(k, "services.%s.%s means nothing on a node: %s", c.ID, k.Value, meaningless[k.Value])
		case lacking && reason != "":
			p.report(k, "services.%s.%s: not supported on a node: %s", c.ID, k.Value, reason)
		case lacking:
			p.report(k, "services.%s.%s: not supported on a node", c.ID, k.Value)
		default:
			p.report(k, "services.%s: unknown key %q", c.ID, k.Value)
		}
	})
	if c.Image == "" && len(p.problems.List)+p.problems.More == before {
		p.report(name, "services.%s: no image", c.ID)
	}
	if c.Pids == 0 {
		c.Pids = workload.DefaultPids
	}
	p.published(name, c)
	p.targets(name, c)
	return c
}

// published reports a port of the node that two containers want.
func (p *parser) published(name *yaml.Node, c workload.Container) {
	for _, port := range c.Ports {
		ip := "every address"
		if port.HostIP.IsValid() && port.HostIP != netip.IPv4Unspecified() {
			ip = port.HostIP.String()
		}
		key := fmt.Sprintf("%s, port %d/%s", ip, port.HostPort, port.Protocol)
		if other, taken := p.ports[key]; taken {
			p.report(name, "services.%s.ports: %s is published by %s already", c.ID, key, other)
		}
		p.ports[key] = "services." + c.ID
	}
}

// targets reports a folder of the container on which two things are mounted.
func (p *parser) targets(name *yaml.Node, c workload.Container) {
	seen := make(map[string]bool)
	check := func(target string) {
		if seen[target] {
			p.report(name, "services.%s: two mounts on %s", c.ID, target)
		}
		seen[target] = true
	}
	for _, t := range c.Tmpfs {
		check(t.Target)
	}
	for _, v := range c.Volumes {
		check(v.Target)
	}
}

// label says whether s is a DNS label in lower case.
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return true
}
