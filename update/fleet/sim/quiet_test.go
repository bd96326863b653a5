package sim

import (
	"reflect"
	"syscall"
	"testing"
	"time"
)

// TestMinority has fleets wait for opinions that never come: no round begins, nothing is signed or written,
// and the item leaves the queue of each machine after the policy's deadline.
func TestMinority(t *testing.T) {
	for n := 2; n <= 10; n++ {
		p := Plan{Seed: uint64(n), N: n, Loss: 0.2, Brief: true, Link: 50 * time.Millisecond, Wild: time.Hour, End: 2 * brief}
		w := newWorld(t, p)
		begun := 0
		for _, m := range w.machines {
			begun += m.disk.written
		}
		w.after(time.Second, nil, func() bool { w.propose("minority"); return false })
		w.run()
		r := w.result()
		if r.Fsyncs != begun || len(w.casts) > 0 {
			t.Errorf("N %d: %d records in the journals, %d before, and %d ballots", n, r.Fsyncs, begun, len(w.casts))
		}
		if r.Left < n {
			t.Errorf("N %d: the item left %d queues", n, r.Left)
		}
		for _, wrong := range r.Wrong {
			t.Errorf("N %d: %s: %s", n, wrong.What, wrong.How)
		}
	}
}

// TestAgain runs seeds twice: the second time is the same as the first.
func TestAgain(t *testing.T) {
	for seed := range uint64(6) {
		a, b := Run(t, Drawn(4+int(seed), seed)), Run(t, Drawn(4+int(seed), seed))
		if !reflect.DeepEqual(a, b) {
			t.Errorf("seed %d is\n%+v\nand then\n%+v", seed, a, b)
		}
	}
}

// figure measures a fleet of n with links of 50 ms in which each voter verifies all signatures itself, and
// nobody lies: from the proposal to the last ledger that has it decided, and the processor time of a voter.
func figure(t *testing.T, n int) (took, cpu time.Duration) {
	spent := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	founded(t, n, false) // keys are made once
	w := newWorld(t, Plan{N: n, Link: 50 * time.Millisecond, Wild: time.Millisecond, End: 5 * time.Minute, Each: true})
	before := spent()
	w.run()
	r := w.result()
	for _, wrong := range r.Wrong {
		t.Errorf("N %d: %s: %s", n, wrong.What, wrong.How)
	}
	return r.Took, (spent() - before) / time.Duration(n)
}

// TestFigure is the figure for a small fleet; make sim has it for 1,000.
func TestFigure(t *testing.T) {
	took, cpu := figure(t, 31)
	t.Logf("31 voters, links of 50 ms, each verifies all signatures: decided everywhere %s after the proposal, %s of processor time each", took, cpu)
	if took > 10*time.Second || took == 0 {
		t.Errorf("it took %s", took)
	}
}
