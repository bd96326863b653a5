package keeper

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"kogge.example/agent/workload"
)

// TestNetworkMoves: the containers of a network that has to move are started anew where it
// is then, and published there; all others go on. A network that cannot move is trouble
// that people see, and ends when that does.
func TestNetworkMoves(t *testing.T) {
	t.Parallel()
	f := newFake()
	other := workload.Container{ID: "other", Image: "other", Networks: []workload.Attachment{{Network: "elsewhere"}}, Restart: workload.Restart{Policy: workload.Always}}
	both := workload.Container{ID: "both", Image: "both", Networks: []workload.Attachment{{Network: "default"}, {Network: "elsewhere"}}, Restart: workload.Restart{Policy: workload.Always}}
	b := run(t, f, web(workload.Always), other, both)
	b.until(t, "all running", unitStates("both running", "other running", "web running"))

	set := func(move string, err error) {
		b.network.mu.Lock()
		defer b.network.mu.Unlock()
		b.network.move, b.network.follow = move, err
	}
	set("default", nil)
	moved := netip.MustParsePrefix("172.29.0.0/24")
	b.until(t, "all running, two of them elsewhere", func(s workload.Status) bool {
		return unitStates("both running", "other running", "web running")(s) && moved.Contains(s.Units[0].At[0].Addr) && moved.Contains(s.Units[2].At[0].Addr)
	})
	for id, want := range map[string]int{"both": 2, "web": 2, "other": 1} {
		if n := f.did("start " + id); n != want {
			t.Errorf("%s was started %d times, want %d", id, n, want)
		}
	}
	b.until(t, "web to be published there", func(workload.Status) bool {
		b.network.mu.Lock()
		defer b.network.mu.Unlock()
		return len(b.network.ports) == 1 && moved.Contains(b.network.ports[0].To.Addr())
	})

	// One that nobody wants is made anew by nobody, and no reason to begin anew.
	set("left over", nil)
	ticks := func() int { b.network.mu.Lock(); defer b.network.mu.Unlock(); return b.network.follows }
	for now := ticks(); ticks() < now+5; {
		b.until(t, "a tick", func(s workload.Status) bool {
			if s.Trouble != "" || !unitStates("both running", "other running", "web running")(s) {
				t.Errorf("a network that nobody wants moves: %s", s)
			}
			return true
		})
	}

	set("", errors.New("network default: nowhere to go"))
	b.until(t, "trouble", func(s workload.Status) bool {
		return s.Trouble == "network default: nowhere to go" && strings.HasPrefix(s.String(), s.Trouble)
	})
	set("", nil)
	b.until(t, "no trouble", func(s workload.Status) bool { return s.Trouble == "" })
	if n := f.did("start web"); n != 2 {
		t.Errorf("trouble has restarted web: %d starts", n)
	}
}
