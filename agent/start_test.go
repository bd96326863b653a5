package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"kogge.example/agent/workload"
)

// testStart starts the same container a few times and says how long that took: from the
// order, its network and its root file system included, to the first answer of the program
// in it. It is a figure, and no time is too long.
func (n *node) testStart(t *testing.T, k *keeping) {
	const starts = 9
	var took []time.Duration
	for i := range starts {
		c := workload.Container{
			ID: "quick", Image: "example.invalid/web:1", Hostname: "quick", Env: []string{"PORT=80"}, Pids: 100,
			Networks: []workload.Attachment{{Network: "default"}},
		}
		at := netip.AddrFrom4([4]byte{10, 88, 0, byte(100 + i)})
		instance := workload.Instance{Name: fmt.Sprintf("quick.%d", i), At: []workload.Address{{Network: "default", Addr: at}}}
		began := time.Now()
		place, err := k.keeper.Network.Attach(instance.Name, instance.At, false)
		must(t, err)
		must(t, k.keeper.Engine.Prepare(c, instance.Name))
		must(t, k.keeper.Engine.WriteFiles(c, instance.Name, workload.View{}))
		must(t, k.keeper.Engine.Start(t.Context(), c, instance, place))
		for {
			answer, err := http.Get(fmt.Sprintf("http://%s/", at))
			if err == nil {
				answer.Body.Close()
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("no answer: %v", err)
			}
			time.Sleep(time.Millisecond) // what is measured is not much longer
		}
		took = append(took, time.Since(began))
		must(t, k.keeper.Engine.Remove(t.Context(), instance.Name, "SIGKILL", 0))
		must(t, k.keeper.Engine.RemoveFiles(instance.Name))
		must(t, k.keeper.Network.Detach(instance.Name))
	}
	slices.Sort(took)
	t.Logf("a container from the order to its first answer: median %v of %d (%v to %v)", took[starts/2], starts, took[0], took[starts-1])
}
