package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/init/control"
	"kogge.example/update/golden"
)

func some(states ...string) (all []control.Service) {
	for i, name := range []string{"network", "clock", "containerd", "agent", "etcd", "resolver", "log-forwarder", "time-server"} {
		if i < len(states) {
			all = append(all, control.Service{Name: name, State: states[i]})
		}
	}
	return all
}

func TestScreen(t *testing.T) {
	sick := some("running", "running", "backoff", "waiting")
	sick[2].Failing, sick[2].Exits, sick[2].LastExit, sick[2].Text = true, 7, "killed by SIGSEGV", "loading plugins"
	var b strings.Builder
	for _, c := range []struct {
		name  string
		state State
	}{
		{"nothing known yet", State{}},
		{"boot begins", State{Slot: "A", Release: "1.0", Board: "qemu-x86_64", Status: control.Status{Services: some("starting", "waiting", "waiting", "waiting")}}},
		{"all is well", State{
			Node: "n01", Slot: "A", Release: "1.0", Board: "qemu-x86_64", Assessment: "good",
			Fleet:     control.Fleet{Name: "hanse", ID: strings.Repeat("0123", 16), Seat: 2, Key: "ba9876543210", Height: 1, Votes: 3, Quorum: 2}.String(),
			Addresses: []string{"eth0 10.0.2.15/24", "eth0 fec0::5054:ff:fe12:3456/64"},
			URLs:      []string{"http://10.0.2.15:8080/ (web)"},
			Status:    control.Status{Services: some("running", "running", "running", "running")},
		}},
		{"trouble", State{
			Node: "n01", Slot: "B", Release: "1.1", Board: "qemu-x86_64", Assessment: "pending, 2 tries left",
			Fleet:     control.Fleet{Name: "hanse", ID: strings.Repeat("0123", 16), Key: "ba9876543210", Height: 2, Votes: 3, Quorum: 2, Problem: "the fleet's ledger has two records for one height: 1: files 1 and 1.fork of the ledger's folder have both"}.String(),
			Addresses: []string{"eth0 10.0.2.15/24"},
			Status: control.Status{Services: sick, Degraded: []control.Degraded{
				{What: "watchdog", Why: "stage 0 found no watchdog"},
				{What: "state", Why: "mount /dev/vda4 on /state: structure needs cleaning; e2fsck ended with status 4, state.onCorrupt is hold: API up, no workloads"},
			}},
		}},
		{"many services", State{Node: "n01", Status: control.Status{Services: some("running", "running", "running", "running", "running", "running", "stopping", "stopping"), Ending: "poweroff"}}},
	} {
		fmt.Fprintf(&b, "%s:\n%s\n", c.name, Screen(c.state))
	}
	golden.Compare(t, "screens.txt", b.String())
}

// pieces hands each write over.
type pieces chan string

func (p pieces) Write(b []byte) (int, error) { p <- string(b); return len(b), nil }

// TestKeep prints the newest of many states once, and the last one at the end.
func TestKeep(t *testing.T) {
	states, out := make(chan State), make(pieces)
	done := make(chan struct{})
	go func() { defer close(done); Keep(out, states, 20*time.Millisecond, time.Hour) }()
	for i := range 100 {
		states <- State{Node: fmt.Sprint("n", i)}
	}
	var got string
	for got != Screen(State{Node: "n99"}) { // a busy machine may print some in between
		got = <-out
	}
	states <- State{Node: "n99"} // nothing new
	states <- State{Node: "end"}
	go close(states)
	if got := <-out; got != Screen(State{Node: "end"}) {
		t.Errorf("last block: %s", got)
	}
	<-done
}
