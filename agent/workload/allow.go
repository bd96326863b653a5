package workload

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/init/nodeconfig"
)

// Rights are what a container asks for beyond what every container has. Only the node's
// own file gives them, see [Denied].
type Rights struct {
	// Privileged is everything that a container can have but host namespaces and binds.
	Privileged bool `json:",omitempty"`
	// Capabilities are added to the default set: "CAP_NET_ADMIN", or "ALL". Sorted.
	Capabilities []string               `json:",omitempty"`
	Devices      []Device               `json:",omitempty"`
	Binds        []Bind                 `json:",omitempty"`
	Host         []nodeconfig.Namespace `json:",omitempty"` // those of the node instead of own ones, sorted
	Unconfined   []nodeconfig.Profile   `json:",omitempty"` // sorted
}

// Device is a device of the node, or a folder of them.
type Device struct {
	Path, Target string
	Access       string // of r, w and m
}

// Bind is a file or folder of the node, mounted.
type Bind struct {
	Path, Target string
	ReadOnly     bool `json:",omitempty"`
}

// Shares says whether the container is in a namespace of its node.
func (c Container) Shares(n nodeconfig.Namespace) bool { return slices.Contains(c.Rights.Host, n) }

// Without says whether the container runs without a profile.
func (c Container) Without(p nodeconfig.Profile) bool {
	return c.Rights.Privileged || slices.Contains(c.Rights.Unconfined, p)
}

// ErrNotAllowed means that the node's own file does not allow what a container asks for.
var ErrNotAllowed = errors.New("not allowed by the node's node.yaml")

// Denied says what c asks for that allow does not give it, with the entry that would; nil
// if it may have everything. The error is [ErrNotAllowed].
//
// Allowed is what is written out: of a folder not what is below it, and a bind that may be
// read not for writing. Privileged stands for all capabilities, devices and profiles.
func Denied(c Container, allow []nodeconfig.Allow) error {
	lacks := lacking(c, allow)
	if lacks.None() {
		return nil
	}
	return fmt.Errorf("%w, which would need under \"allow:\" the line %s", ErrNotAllowed, Entry(c.ID, lacks))
}

// Needs is the least that node.yaml has to allow for c.
func (c Container) Needs() nodeconfig.Rights { return lacking(c, nil) }

// lacking is what c asks for that allow does not give it.
func lacking(c Container, allow []nodeconfig.Allow) nodeconfig.Rights {
	may := func(yes func(nodeconfig.Allow) bool) bool {
		return slices.ContainsFunc(allow, func(a nodeconfig.Allow) bool {
			return (a.Container == c.ID || a.Container == "*") && yes(a)
		})
	}
	var lacks nodeconfig.Rights
	r := c.Rights
	if r.Privileged {
		lacks.Privileged = !may(func(a nodeconfig.Allow) bool { return a.Privileged })
	} else {
		for _, name := range r.Capabilities {
			name = strings.TrimPrefix(name, "CAP_")
			if !may(func(a nodeconfig.Allow) bool {
				return slices.Contains(a.Capabilities, name) || slices.Contains(a.Capabilities, "ALL")
			}) {
				lacks.Capabilities = append(lacks.Capabilities, name)
			}
		}
		for _, d := range r.Devices {
			if !slices.Contains(lacks.Devices, d.Path) && !may(func(a nodeconfig.Allow) bool { return slices.Contains(a.Devices, d.Path) }) {
				lacks.Devices = append(lacks.Devices, d.Path)
			}
		}
		for _, p := range r.Unconfined {
			if !may(func(a nodeconfig.Allow) bool { return slices.Contains(a.Unconfined, p) }) {
				lacks.Unconfined = append(lacks.Unconfined, p)
			}
		}
	}
	for _, b := range r.Binds {
		want := nodeconfig.Bind{Path: b.Path, ReadOnly: b.ReadOnly}
		if !slices.Contains(lacks.Binds, want) && !may(func(a nodeconfig.Allow) bool {
			return slices.Contains(a.Binds, nodeconfig.Bind{Path: b.Path}) || slices.Contains(a.Binds, want)
		}) {
			lacks.Binds = append(lacks.Binds, want)
		}
	}
	for _, n := range r.Host {
		if !may(func(a nodeconfig.Allow) bool { return slices.Contains(a.Host, n) }) {
			lacks.Host = append(lacks.Host, n)
		}
	}
	return lacks
}

// Entry is the line of node.yaml's allow: that gives the container r.
func Entry(container string, r nodeconfig.Rights) string {
	var n yaml.Node
	if err := n.Encode(nodeconfig.Allow{Container: container, Rights: r}); err != nil {
		panic(fmt.Sprintf("rights are not YAML: %v", err)) // a struct of plain values
	}
	n.Style = yaml.FlowStyle
	text, err := yaml.Dump(&n, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err != nil {
		panic(fmt.Sprintf("rights are not YAML: %v", err))
	}
	return "- " + strings.TrimSpace(string(text))
}
