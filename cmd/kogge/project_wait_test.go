package main

import (
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"kogge.example/agent/workload"
)

// TestApplyWaits: an apply is done once the node runs what was applied, not while it still
// shows the container from before.
func TestApplyWaits(t *testing.T) {
	var asked atomic.Int32
	w := &world{status: func() workload.Status {
		unit := workload.UnitStatus{ID: "shop.web", State: workload.Running}
		if asked.Add(1) <= 2 {
			return workload.Status{Units: []workload.UnitStatus{unit}}
		}
		unit.State, unit.Exits, unit.Reason = workload.Backoff, patience, "exit code 1"
		return workload.Status{Generation: 1, Units: []workload.UnitStatus{unit}}
	}}
	w.open(t)
	root := rootCommand()
	root.SetOut(io.Discard)
	root.SetArgs([]string{"apply", "-f", "shop.yaml"})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "container shop.web does not run: exit code 1") {
		t.Errorf("%v, after %d looks", err, asked.Load())
	}
}
