package roster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// MaxAddresses is how many addresses a node names, at most.
const MaxAddresses = 16

// CheckAddress says why an address is none at which other nodes reach a node: it means
// another machine on each of them, or all of them, or it has a second spelling.
func CheckAddress(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("there is none")
	case a.Zone() != "":
		return fmt.Errorf("%.60q is of one link", a)
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4 address in IPv6's spelling", a)
	case a.IsLoopback(), a.IsLinkLocalUnicast(), !a.IsGlobalUnicast():
		return fmt.Errorf("%s is no address of one node for all others", a)
	}
	return nil
}

// OwnAddresses are those of a machine's addresses that it names to others, each once.
func OwnAddresses(all []netip.Addr) (own []netip.Addr) {
	for _, a := range all {
		if a = a.Unmap(); CheckAddress(a) == nil && !slices.Contains(own, a) && len(own) < MaxAddresses {
			own = append(own, a)
		}
	}
	return own
}
