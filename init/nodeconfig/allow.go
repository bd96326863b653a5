package nodeconfig

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/init/rights"
)

// How many entries the lists of allow have.
const (
	maxAllow  = 64
	maxRights = 64
)

func (d *decoder) allow(n *yaml.Node) []rights.Allow {
	var all []rights.Allow
	d.list(n, "allow", maxAllow, func(v *yaml.Node) {
		if a, ok := d.allowed(v); ok {
			all = append(all, a)
		}
	})
	return all
}

func (d *decoder) allowed(n *yaml.Node) (a rights.Allow, ok bool) {
	before := d.count()
	words := func(what string, each func(v *yaml.Node)) func(*yaml.Node) {
		return func(v *yaml.Node) { d.list(v, what, maxRights, each) }
	}
	d.mapping(n, "entry of allow", []key{
		{"container", func(v *yaml.Node) { a.Container = d.containerName(v) }},
		{"privileged", func(v *yaml.Node) {
			if yes := d.boolean(v); yes != nil {
				a.Privileged = *yes
			}
		}},
		{"capabilities", words("capabilities", func(v *yaml.Node) { a.Capabilities = add(d, v, a.Capabilities, d.capability(v)) })},
		{"devices", words("devices", func(v *yaml.Node) { a.Devices = add(d, v, a.Devices, d.device(v)) })},
		{"binds", words("binds", func(v *yaml.Node) { a.Binds = add(d, v, a.Binds, d.bind(v)) })},
		{"host", words("host", func(v *yaml.Node) {
			a.Host = add(d, v, a.Host, rights.Namespace(d.choice(v, texts(rights.Namespaces)...)))
		})},
		{"unconfined", words("unconfined", func(v *yaml.Node) {
			a.Unconfined = add(d, v, a.Unconfined, rights.Profile(d.choice(v, texts(rights.Profiles)...)))
		})},
	})
	switch {
	case d.count() > before:
		return a, false
	case a.Container == "":
		d.report(n, `this entry needs "container": a name as kogge ps shows it, or "*" for every container`)
		return a, false
	case a.Rights.None():
		d.report(n, "this entry allows nothing")
		return a, false
	}
	return a, true
}

// add appends what an entry of a list says, unless it was wrong, which is reported by
// now, or is there.
func add[T comparable](d *decoder, n *yaml.Node, all []T, one T) []T {
	var wrong T
	if one == wrong {
		return all
	}
	if slices.Contains(all, one) {
		d.report(n, "this entry is already in the list")
		return all
	}
	return append(all, one)
}

func texts[T ~string](all []T) []string {
	var words []string
	for _, one := range all {
		words = append(words, string(one))
	}
	return words
}

// containerName is that of one container, or "*".
func (d *decoder) containerName(n *yaml.Node) string {
	s, ok := d.text1(n, "the name of a container")
	if !ok || s == "*" {
		return s
	}
	for part := range strings.SplitSeq(s, ".") {
		if strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || part == "" || len(s) > 128 {
			d.report(n, `container %q: expected a name as kogge ps shows it, such as shop.web, or "*" for every container`, s)
			return ""
		}
	}
	return s
}

func (d *decoder) capability(n *yaml.Node) string {
	s, ok := d.text1(n, "a capability")
	if !ok {
		return ""
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "CAP_")
	if name != "ALL" && !slices.Contains(rights.Capabilities, name) {
		d.report(n, "unknown capability %q", s)
		return ""
	}
	return name
}

func (d *decoder) device(n *yaml.Node) string {
	s, ok := d.text1(n, "a device")
	if !ok {
		return ""
	}
	if why := rights.Device(s); why != "" {
		d.report(n, "%q %s", s, why)
		return ""
	}
	return s
}

func (d *decoder) bind(n *yaml.Node) (b rights.Bind) {
	at := n
	if resolve(n).Kind == yaml.MappingNode {
		at = d.find(n, "path")
		d.mapping(n, "entry of binds", []key{
			{"path", func(v *yaml.Node) { b.Path, _ = d.text1(v, "a path") }},
			{"readOnly", func(v *yaml.Node) {
				if yes := d.boolean(v); yes != nil {
					b.ReadOnly = *yes
				}
			}},
		})
		if at == nil {
			d.report(n, `this entry needs "path"`)
			return rights.Bind{}
		}
	} else {
		b.Path, _ = d.text1(n, "a path")
	}
	if b.Path == "" {
		return rights.Bind{}
	}
	if why := rights.Bindable(b.Path); why != "" {
		d.report(at, "%q %s", b.Path, why)
		return rights.Bind{}
	}
	return b
}
