package keeper

import (
	"net/netip"
	"strings"
	"testing"

	"kogge.example/agent/workload"
)

// TestNotAllowed: what the node's file allows no more is taken away and says why; the
// others go on.
func TestNotAllowed(t *testing.T) {
	t.Parallel()
	asking := workload.Container{ID: "asking", Image: "hello", Restart: workload.Restart{Policy: workload.Always}, Rights: workload.Rights{Privileged: true}}
	f := newFake()
	for i, c := range []workload.Container{asking, web(workload.Always)} {
		at := []workload.Address{{Network: "default", Addr: netip.AddrFrom4([4]byte{10, 88, 0, byte(7 + i)})}}
		f.there[c.ID] = &fakeContainer{exit: make(chan int, 1), Found: workload.Found{
			Record: workload.Record{Instance: workload.Instance{Name: c.ID, At: at}, ID: c.ID}, Spec: c.Hash(), Image: "sha256:hello", Task: workload.Alive,
		}}
	}
	b := run(t, f, asking, web(workload.Always))
	b.until(t, "the one to go and the other to stay", func(s workload.Status) bool {
		return unitStates("asking backoff", "web running")(s) && f.did("remove asking") == 1 &&
			strings.Contains(s.Units[0].Reason, "not allowed by the node's node.yaml")
	})
	if f.did("start") != 0 || f.did("remove web") != 0 {
		t.Errorf("got:\n%s", strings.Join(f.log, "\n"))
	}
}

// TestNotAllowedIDs: an instance that is in the node's user namespace for the ids of its
// image goes when node.yaml allows that no more, and no other comes.
func TestNotAllowedIDs(t *testing.T) {
	t.Parallel()
	f := newFake()
	many := make([]uint32, workload.MaxBeyond+1)
	for i := range many {
		many[i] = workload.IDs + uint32(i)
	}
	c := web(workload.Always)
	f.ids = map[string][]uint32{c.Image: many}
	whole, _ := f.Complete(t.Context(), c)
	record := *workload.RecordOf(whole, workload.Instance{Name: "web", At: []workload.Address{{Network: "default", Addr: netip.MustParseAddr("10.88.0.7")}}})
	if !record.Together {
		t.Errorf("%+v", record)
	}
	f.there["web"] = &fakeContainer{exit: make(chan int, 1), Found: workload.Found{Record: record, Spec: c.Hash(), Image: "sha256:hello", Task: workload.Alive}}
	b := run(t, f, c)
	b.until(t, "it to go and no other to come", func(s workload.Status) bool {
		return unitStates("web backoff")(s) && f.did("remove web") >= 1 && f.names() == "" && strings.Contains(s.Units[0].Reason, "{container: web, host: [user]}")
	})
	if f.did("start") != 0 {
		t.Errorf("got:\n%s", strings.Join(f.log, "\n"))
	}
}
