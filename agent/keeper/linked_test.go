package keeper

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// TestLeaverKeepsItsNetwork: an agent that comes back and finds running what nobody wants any
// more, or wants on other networks, makes the networks that this is on: of any other one the
// guard drops all that it still has to say.
func TestLeaverKeepsItsNetwork(t *testing.T) {
	t.Parallel()
	on := func(id, network string) workload.Container {
		c := withVolume()
		c.ID, c.Ports, c.Networks = id, nil, []workload.Attachment{{Network: network}}
		return c
	}
	b, g := runGated(t, on("gone", "a"), on("moves", "b"), on("stays", "c"))
	b.until(t, "all to run", unitStates("gone running", "moves running", "stays running"))
	b.end()
	gone, moves := g.hold(&g.removal, "gone"), g.hold(&g.removal, "moves")
	b.network = &fakeNetwork{attached: b.network.attached} // the new agent has made none
	b.keeper = &Keeper{Engine: g, Network: b.network, Tick: 10 * time.Millisecond, Report: b.keeper.Report}
	end := keep(t, b.keeper, on("moves", "d"), on("stays", "c"))
	defer end()
	defer moves() // before the end, which waits for them
	defer gone()
	networks := func(want string) func(workload.Status) bool {
		return func(s workload.Status) bool {
			b.network.mu.Lock()
			defer b.network.mu.Unlock()
			return len(s.Units) == 2 && s.Units[1].State == workload.Running && strings.Join(slices.Sorted(maps.Keys(b.network.made)), " ") == want
		}
	}
	b.until(t, "the networks of all that runs", networks("a b c d"))
	gone()
	b.until(t, "one to go", networks("b c d"))
	moves()
	b.until(t, "the other one to move", networks("c d"))
	if g.did("start stays") != 1 {
		t.Error("what stays was started anew")
	}
}
