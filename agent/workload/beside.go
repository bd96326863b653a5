package workload

import (
	"slices"
	"strconv"
	"strings"

	"kogge.example/init/rights"
)

// Beside says whether c can run beside the instance that it replaces: as it was told, or
// else where its health check tells when it works, and where the two would share
// nothing that only one can have. check is complete.
func (c Container) Beside(check Health) bool {
	switch c.Order {
	case StartFirst:
		return true
	case StopFirst:
		return false
	}
	shared := slices.ContainsFunc(c.Volumes, func(v Volume) bool { return !v.ReadOnly }) ||
		slices.ContainsFunc(c.Rights.Binds, func(b Bind) bool { return !b.ReadOnly }) ||
		len(c.Rights.Devices) > 0 || c.Rights.Privileged || c.Shares(rights.HostNetwork)
	return len(check.Test) > 0 && !shared
}

// Called are c's names on a network: its service's, its host name, its aliases.
func (c Container) Called(network string) []string {
	_, service := Split(c.ID)
	all := []string{service}
	add := func(name string) {
		if name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	add(strings.ToLower(c.Hostname))
	for _, a := range c.Networks {
		if a.Network == network {
			for _, alias := range a.Aliases {
				add(alias)
			}
		}
	}
	return all
}

// Apart says whether c runs in a user namespace of its own: there its root is nobody on
// the node. Not so what shares a namespace with the node, what has a device, which
// belongs to the node's root, and what has a right that counts on the node alone. Nor a
// user beyond the ids that the namespace has.
func (c Container) Apart() bool { return c.couldBeApart() && !c.beyond() }

func (c Container) couldBeApart() bool {
	r := c.Rights
	if r.Privileged || len(r.Host) > 0 || len(r.Devices) > 0 || slices.Contains(r.Unconfined, rights.SystemPaths) {
		return false
	}
	for _, name := range r.Capabilities {
		if name != "CAP_NET_ADMIN" && name != "CAP_NET_RAW" {
			return false
		}
	}
	return true
}

// beyond says whether c names a user or a group that a user namespace of its own does not
// have.
func (c Container) beyond() bool {
	return slices.ContainsFunc(append(strings.Split(c.User, ":"), c.GroupAdd...), func(id string) bool {
		n, err := strconv.Atoi(id) // as the containers' engine reads it
		return err == nil && n >= IDs
	})
}
