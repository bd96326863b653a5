package serve

import (
	"path/filepath"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
)

// lagging is a keeper that comes to a set when the test says so.
type lagging struct {
	keeper
	unseen     atomic.Bool
	generation atomic.Uint64
}

func (l *lagging) Snapshot() workload.Status {
	return workload.Status{Seen: !l.unseen.Load(), Generation: l.generation.Load(), Units: []workload.UnitStatus{{ID: "shop.job", State: workload.Ended, ExitCode: 3, Reason: "exit code 3"}}}
}

// TestBehind: a list says so while its containers are those from before an apply or a
// removal; and it has exit codes.
func TestBehind(t *testing.T) {
	projects, k := wanted.Open(filepath.Join(t.TempDir(), "projects"), nil), &lagging{}
	address, f, _ := ready(t, func(c *Config) {
		c.Projects, c.Containers = func() Projects { return projects }, func() Containers { return k }
	})
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	check := func(when string, behind bool) {
		t.Helper()
		list, err := c.List(timeout(t), connect.NewRequest(&apiv1.ListRequest{}))
		if err != nil || list.Msg.Behind != behind || list.Msg.Containers[0].ExitCode != 3 {
			t.Errorf("%s: %v, %v", when, list, err)
		}
	}
	k.unseen.Store(true)
	check("nobody has looked", true)
	k.unseen.Store(false)
	check("nothing was applied", false)
	for generation, do := range []func() error{
		func() error {
			_, err := c.Apply(timeout(t), connect.NewRequest(&apiv1.ApplyRequest{Project: "shop", Text: "services:\n  job:\n    image: example.org/job:1\n"}))
			return err
		},
		func() error {
			_, err := c.RemoveProject(timeout(t), connect.NewRequest(&apiv1.RemoveProjectRequest{Project: "shop"}))
			return err
		},
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		check("not taken up yet", true)
		k.generation.Store(uint64(generation) + 1)
		check("taken up", false)
	}
	_, err := c.Apply(timeout(t), connect.NewRequest(&apiv1.ApplyRequest{Project: "shop", Text: "services:\n  job:\n    image: example.org/job:1\n", Check: true}))
	if err != nil {
		t.Fatal(err)
	}
	check("only looked at", false)
}
