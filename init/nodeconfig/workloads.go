package nodeconfig

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// workloads cuts the section out of the text, so that another parser can read it
// and name the lines of node.yaml in its messages.
func (d *decoder) workloads(root, n *yaml.Node) Workloads {
	before := d.count()
	switch {
	case n.Kind == yaml.AliasNode:
		d.report(n, "write the workloads here: an alias cannot carry them")
	case n.Kind != yaml.MappingNode:
		d.report(n, `workloads: expected a Compose file (with "services:"), got %s`, describe(n))
	case n.Style&yaml.FlowStyle != 0 || root.Style&yaml.FlowStyle != 0:
		d.report(n, "write the workloads as an indented block, not in { }: messages about them name lines")
	case strings.TrimSpace(string([]rune(d.line(n.Line))[:n.Column-1])) != "":
		d.report(n, "the workloads start on a line of their own")
	case n.Anchor != "" || n.Style&yaml.TaggedStyle != 0:
		d.report(n, "the workloads cannot have an anchor or a tag")
	default:
		own := make(map[*yaml.Node]bool)
		d.inside(n, own)
	}
	if d.count() > before {
		return Workloads{}
	}
	last := len(d.lines)
	for i := 0; i+1 < len(root.Content); i += 2 {
		if next := root.Content[i].Line; next > n.Line && next <= last {
			last = next - 1
		}
	}
	body := d.lines[n.Line-1 : last]
	for i, line := range body {
		// The end of the document is the end of the section.
		if strings.HasPrefix(line, "...") {
			body = body[:i]
			break
		}
	}
	text := strings.Repeat("\n", n.Line-1) + strings.Join(body, "\n")
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return Workloads{Text: []byte(text), File: d.file, Line: n.Line}
}

// inside checks a section that will be read on its own: no key twice, and no alias
// to an anchor outside. own collects the nodes of the section seen so far; an
// anchor always stands before its aliases.
func (d *decoder) inside(n *yaml.Node, own map[*yaml.Node]bool) {
	own[n] = true
	if n.Kind == yaml.AliasNode {
		if !own[n.Alias] {
			d.report(n, "the anchor &%s is outside the workloads", n.Value)
		}
		return
	}
	if n.Kind == yaml.MappingNode {
		seen := make(map[string]int)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
				continue
			}
			if line, twice := seen[k.Tag+k.Value]; twice {
				d.report(k, "key %q is already at line %d", k.Value, line)
			}
			seen[k.Tag+k.Value] = k.Line
		}
	}
	for _, child := range n.Content {
		d.inside(child, own)
	}
}
