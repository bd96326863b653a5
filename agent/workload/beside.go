package workload

import (
	"slices"
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
// belongs to the node's root, and what has a right that counts on the node alone; nor what
// has more ids than such a namespace can, which is a right of its own (see [Denied]). Nor a
// user beyond the ids that the namespace has.
func (c Container) Apart() bool { return c.couldBeApart() && c.tooMany() == nil }

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

// tooMany is why c cannot be in a user namespace of its own where nothing else keeps it out:
// it has more ids than that can have.
func (c Container) tooMany() error {
	if !c.couldBeApart() {
		return nil
	}
	_, err := c.Beyond()
	return err
}
