package workload

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kogge.example/init/rights"
)

// Rights are what a container asks for beyond what every container has. Only the node's
// own file gives them, see [Denied].
type Rights struct {
	// Privileged is everything that a container can have but host namespaces and binds.
	Privileged bool `json:",omitempty"`
	// Capabilities are added to the default set: "CAP_NET_ADMIN", or "ALL". Sorted.
	Capabilities []string           `json:",omitempty"`
	Devices      []Device           `json:",omitempty"`
	Binds        []Bind             `json:",omitempty"`
	Host         []rights.Namespace `json:",omitempty"` // those of the node instead of own ones, sorted
	Unconfined   []rights.Profile   `json:",omitempty"` // sorted
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
func (c Container) Shares(n rights.Namespace) bool { return slices.Contains(c.Rights.Host, n) }

// Without says whether the container runs without a profile.
func (c Container) Without(p rights.Profile) bool {
	return c.Rights.Privileged || slices.Contains(c.Rights.Unconfined, p)
}

// ErrNotAllowed means that the node's own file does not allow what a container asks for.
var ErrNotAllowed = errors.New("not allowed by the node's node.yaml")

// Denied says what c asks for that allow does not give it, with the entry that would; nil
// if it may have everything. The error is [ErrNotAllowed].
//
// Allowed is what is written out: of a folder not what is below it, and a bind that may be
// read not for writing. Privileged stands for all capabilities, devices and profiles.
func Denied(c Container, allow []rights.Allow) error {
	lacks := lacking(c, allow)
	if lacks.None() {
		return nil
	}
	if err := c.tooMany(); err != nil && slices.Contains(lacks.Host, rights.HostUser) {
		return fmt.Errorf("it has %w: %w, which would need under \"allow:\" the line - %s", err, ErrNotAllowed, rights.Allow{Container: c.ID, Rights: lacks})
	}
	return fmt.Errorf("%w, which would need under \"allow:\" the line - %s", ErrNotAllowed, rights.Allow{Container: c.ID, Rights: lacks})
}

// Needs is the least that node.yaml has to allow for c.
func (c Container) Needs() rights.Rights { return lacking(c, nil) }

// lacking is what c asks for that allow does not give it.
func lacking(c Container, allow []rights.Allow) rights.Rights {
	may := func(yes func(rights.Allow) bool) bool {
		return slices.ContainsFunc(allow, func(a rights.Allow) bool {
			return (a.Container == c.ID || a.Container == "*") && yes(a)
		})
	}
	var lacks rights.Rights
	r := c.Rights
	if r.Privileged {
		lacks.Privileged = !may(func(a rights.Allow) bool { return a.Privileged })
	} else {
		for _, name := range r.Capabilities {
			name = strings.TrimPrefix(name, "CAP_")
			if !may(func(a rights.Allow) bool {
				return slices.Contains(a.Capabilities, name) || slices.Contains(a.Capabilities, "ALL")
			}) {
				lacks.Capabilities = append(lacks.Capabilities, name)
			}
		}
		for _, d := range r.Devices {
			if !slices.Contains(lacks.Devices, d.Path) && !may(func(a rights.Allow) bool { return slices.Contains(a.Devices, d.Path) }) {
				lacks.Devices = append(lacks.Devices, d.Path)
			}
		}
		for _, p := range r.Unconfined {
			if !may(func(a rights.Allow) bool { return slices.Contains(a.Unconfined, p) }) {
				lacks.Unconfined = append(lacks.Unconfined, p)
			}
		}
	}
	for _, b := range r.Binds {
		want := rights.Bind{Path: b.Path, ReadOnly: b.ReadOnly}
		if !slices.Contains(lacks.Binds, want) && !may(func(a rights.Allow) bool {
			return slices.Contains(a.Binds, rights.Bind{Path: b.Path}) || slices.Contains(a.Binds, want)
		}) {
			lacks.Binds = append(lacks.Binds, want)
		}
	}
	host := r.Host
	if c.tooMany() != nil {
		host = []rights.Namespace{rights.HostUser} // where all ids are
	}
	for _, n := range host {
		if !may(func(a rights.Allow) bool { return slices.Contains(a.Host, n) }) {
			lacks.Host = append(lacks.Host, n)
		}
	}
	return lacks
}
