package network

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestRestartAdvertised starts the service anew where the router speaks only when it is
// asked: its resolvers are back.
func TestRestartAdvertised(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	paths := tempPaths(t)
	s := newSegment(t, "lan0", "fe80::1/64", "fd77::1/64")
	s.radvd("UnicastOnly on;", "prefix fd77::/64 {};", "RDNSS fd77::1 {};", "DNSSL lan.test {};")
	const yaml = "network: [{match: lan0, dhcp: false}]"
	there := func() bool { return slices.Equal(resolvers(paths), []string{"fd77::1"}) }
	stop := node(t, yaml, paths)
	until(t, "the router's resolver", there)
	stop()
	must(t, os.Remove(filepath.Join(paths.Etc, "resolv.conf")))
	node(t, yaml, paths)
	until(t, "the router's resolver again", there)
}
