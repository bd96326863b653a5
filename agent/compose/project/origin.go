package project

import (
	"fmt"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/compose"
)

// step leads from a node to one below it: to the value of key, or, where list is
// set, to the item that looks like list.
type step struct {
	key   string
	index int
	list  *yaml.Node
}

// parent is where a node of the resolved document hangs.
type parent struct {
	node *yaml.Node
	step step
	key  bool // it is a key, and not its value
}

// document is the model as YAML, with dollars escaped as Compose wants it; the
// survey remembers where its nodes hang.
func (s *survey) document(model map[string]any) (*yaml.Node, error) {
	text, err := yaml.Marshal(model)
	if err != nil {
		return nil, fmt.Errorf("write Compose file: %w", err)
	}
	doc := &yaml.Node{}
	if err := yaml.Unmarshal(text, doc); err != nil {
		return nil, fmt.Errorf("read Compose file again: %w", err)
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		switch n.Kind {
		case yaml.DocumentNode:
			walk(n.Content[0])
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				to := step{key: n.Content[i].Value}
				s.parents[n.Content[i]] = parent{n, to, true}
				s.parents[n.Content[i+1]] = parent{n, to, false}
				walk(n.Content[i+1])
			}
		case yaml.SequenceNode:
			for i, item := range n.Content {
				s.parents[item] = parent{n, step{index: i, list: item}, false}
				walk(item)
			}
		case yaml.ScalarNode:
			if n.Tag == "!!str" {
				n.Value = strings.ReplaceAll(n.Value, "$", "$$")
			}
		}
	}
	walk(doc)
	return doc, nil
}

// origin says where the node of the resolved document was written, or else what
// is nearest above it.
func (s *survey) origin(n *yaml.Node) compose.Origin {
	var path []step
	key := false
	for at := n; ; {
		up, ok := s.parents[at]
		if !ok {
			break
		}
		if at == n {
			key = up.key
		}
		path = append([]step{up.step}, path...)
		at = up.node
	}
	hit, ok := s.find(path)
	switch {
	case !ok:
		return s.sources[0].origin(&yaml.Node{})
	case key && hit.key != nil:
		return hit.origin(hit.key)
	}
	return hit.origin(hit.value)
}

// hit is a place in a source.
type hit struct {
	*source
	key   *yaml.Node // nil in lists
	value *yaml.Node
	depth int // steps taken
	whole bool
}

// find follows path in the sources: all the way in one of them, or as far as any
// of them leads.
func (s *survey) find(path []step) (hit, bool) {
	var best hit
	try := func(h hit) bool {
		if best.source == nil || h.whole && !best.whole || h.whole == best.whole && h.depth > best.depth {
			best = h
		}
		return best.whole
	}
	for i := len(s.sources) - 1; i >= 0; i-- {
		// Later files win over earlier ones, and all of them over what they include.
		src := s.sources[i]
		if !src.part {
			continue
		}
		if try(src.follow(hit{source: src, value: src.root}, path)) {
			break
		}
		if len(path) < 2 || path[0].key != "services" {
			continue
		}
		base, name := src, path[1].key
		for range maxFiles {
			entry := base.services[name]
			if entry.value == nil {
				break
			}
			if base, name = s.extended(base, entry.value); name == "" {
				break
			}
			lower := append([]step{path[0], {key: name}}, path[2:]...)
			if try(base.follow(hit{source: base, value: base.root}, lower)) {
				return best, true
			}
		}
	}
	return best, best.source != nil
}

// follow goes from h along path as far as it leads.
func (src *source) follow(h hit, path []step) hit {
	for _, to := range path {
		at := resolve(h.value)
		switch at.Kind {
		case yaml.MappingNode:
			entry := lookup(at, to.key)
			if to.list != nil || entry.value == nil {
				return h
			}
			h.key, h.value = entry.key, entry.value
		case yaml.SequenceNode:
			item := pick(at, to)
			if item == nil {
				return h
			}
			h.key, h.value = nil, item
			if to.list == nil {
				h.key = item
			}
		default:
			// A short form: all that the loader made of it was written here.
			h.whole = true
			return h
		}
		h.depth++
	}
	h.whole = true
	return h
}

// pick finds the item of a list that became what to leads to.
func pick(list *yaml.Node, to step) *yaml.Node {
	for _, item := range list.Content {
		item = resolve(item)
		if to.list == nil {
			name, _, _ := strings.Cut(item.Value, "=")
			if item.Kind == yaml.ScalarNode && (name == to.key || item.Value == to.key) {
				return item
			}
			continue
		}
		if alike(item, resolve(to.list)) {
			return item
		}
	}
	if to.list != nil && to.index < len(list.Content) {
		return resolve(list.Content[to.index])
	}
	return nil
}

// alike says whether the loader made the item now of the item was.
func alike(was, now *yaml.Node) bool {
	text := func(n *yaml.Node, key string) string {
		if v := lookup(n, key).value; v != nil {
			return strings.ReplaceAll(v.Value, "$$", "$")
		}
		return ""
	}
	if now.Kind == yaml.ScalarNode {
		return was.Kind == yaml.ScalarNode && was.Value == now.Value
	}
	target, source := text(now, "target"), text(now, "source")
	if was.Kind == yaml.MappingNode {
		return text(was, "target") == target && text(was, "source") == source && text(was, "published") == text(now, "published")
	}
	if target == "" && source == "" || was.Kind != yaml.ScalarNode {
		return false
	}
	if ports, err := types.ParsePortConfig(was.Value); err == nil {
		for _, p := range ports {
			if fmt.Sprint(p.Target) == target && p.Published == text(now, "published") {
				return true
			}
		}
	}
	if v, err := format.ParseVolume(was.Value); err == nil && v.Target == target {
		return true
	}
	return was.Value == source // of a config or a secret
}

// entry is a key with its value; the zero one is none.
type entry struct{ key, value *yaml.Node }

// pairs are the entries of a mapping, its own and those it merges.
func pairs(n *yaml.Node) []entry {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var all []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		all = append(all, entry{n.Content[i], resolve(n.Content[i+1])})
	}
	return all
}

// lookup finds the entry of a mapping, or else in what it merges.
func lookup(n *yaml.Node, key string) entry {
	return lookupMerged(n, key, 0)
}

func lookupMerged(n *yaml.Node, key string, depth int) entry {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode || depth > 20 {
		return entry{}
	}
	all := pairs(n)
	for _, e := range all {
		if e.key.Value == key {
			return e
		}
	}
	for _, e := range all {
		if e.key.Value != "<<" {
			continue
		}
		merged := []*yaml.Node{e.value}
		if e.value.Kind == yaml.SequenceNode {
			merged = e.value.Content
		}
		for _, m := range merged {
			if found := lookupMerged(m, key, depth+1); found.value != nil {
				return found
			}
		}
	}
	return entry{}
}

func resolve(n *yaml.Node) *yaml.Node {
	for range 100 {
		if n == nil || n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return n
}
