package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/wanted"
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

// TestRemoveRefused: a project whose file the node refuses is gone once its containers are,
// though nobody knows which it had.
func TestRemoveRefused(t *testing.T) {
	var asked atomic.Int32
	w := &world{status: func() workload.Status {
		s := workload.Status{Generation: 1}
		if asked.Add(1) <= 2 {
			s.Leaving = []workload.UnitStatus{{ID: "old.web", State: workload.Stopping}}
		}
		return s
	}}
	w.open(t)
	must(t, os.MkdirAll("projects", 0o700))
	must(t, os.WriteFile(filepath.Join("projects", "old.yaml"), []byte("services: 7\n"), 0o600))
	root := rootCommand()
	root.SetOut(io.Discard)
	root.SetArgs([]string{"rm", "old"})
	if err := root.ExecuteContext(t.Context()); err != nil || asked.Load() < 3 {
		t.Errorf("%v, after %d looks", err, asked.Load())
	}
}

// TestNotSeenYet: what a node that has not looked yet does not list has neither stopped nor
// gone, and is no unknown name.
func TestNotSeenYet(t *testing.T) {
	var asked atomic.Int32
	leaving := workload.Status{Generation: 1, Leaving: []workload.UnitStatus{{ID: "old.web", State: workload.Stopping}}}
	w := &world{status: func() workload.Status {
		switch asked.Add(1) {
		case 1, 2:
			return workload.Status{} // of no generation
		case 3, 4, 5:
			return leaving
		}
		return workload.Status{Generation: 1}
	}}
	w.open(t)
	kogge := func(args ...string) error {
		root := rootCommand()
		root.SetOut(io.Discard)
		root.SetArgs(args)
		return root.ExecuteContext(t.Context())
	}
	must(t, kogge("apply", "--no-wait", "-f", "shop.yaml"))
	asked.Store(0)
	if err := kogge("stop", "old.web"); err == nil || err.Error() != "node n1: nobody has looked yet whether there is a container old.web" {
		t.Errorf("stop of a name: %v", err)
	}
	for _, action := range []apiv1.Action{apiv1.Action_ACTION_STOP, apiv1.Action_ACTION_RESTART} {
		asked.Store(0)
		var where target
		cmd := &cobra.Command{}
		cmd.SetContext(t.Context())
		err := where.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
			return await(ctx, c, action, &apiv1.Container{Name: "old.web"})
		})
		if stop := action == apiv1.Action_ACTION_STOP; stop != (err == nil) || asked.Load() != 6 {
			t.Errorf("%s: %v, after %d looks", action, err, asked.Load())
		}
	}
	asked.Store(0)
	if err := kogge("rm", "old"); err != nil || asked.Load() < 6 {
		t.Errorf("rm: %v, after %d looks", err, asked.Load())
	}
	if err := kogge("rm", "old"); err == nil || !strings.Contains(err.Error(), "no such project") {
		t.Errorf("rm of what has gone: %v", err)
	}
}

// TestWaitRefused: who waits for a node that leaves its containers as they are, because it
// refuses a project, hears of that.
func TestWaitRefused(t *testing.T) {
	var says atomic.Value
	says.Store("importing images")
	w := &world{unready: true, pid1: func(t *testing.T, socket string) {
		l, err := net.Listen("unix", socket)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintf(conn, `{"status":{"services":[{"name":"agent","text":%q}]}}`+"\n", says.Load())
				}
				conn.Close()
			}
		}()
	}}
	w.open(t)
	wait := func(limit time.Duration) error {
		var where target
		cmd := &cobra.Command{}
		cmd.SetContext(t.Context())
		return where.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			return awaitList(ctx, c, 0, func(*apiv1.ListResponse) arrival { return arrival{} })
		})
	}
	if err := wait(time.Second); err == nil || !strings.Contains(err.Error(), "not all of the containers run, or have gone, yet") {
		t.Errorf("a node that is not ready yet: %v", err)
	}
	says.Store(wanted.Refused + "project shop: shop.yaml:1:1: nonsense")
	if err := wait(time.Minute); err == nil || !strings.Contains(err.Error(), "what runs stays as it is: workloads refused: project shop: shop.yaml:1:1: nonsense") {
		t.Errorf("a node that refuses a project: %v", err)
	}
}
