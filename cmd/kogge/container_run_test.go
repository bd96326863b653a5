package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/golden"
)

// TestSettled goes through what a container can be while somebody waits for it.
func TestSettled(t *testing.T) {
	const start, stop, restart = apiv1.Action_ACTION_START, apiv1.Action_ACTION_STOP, apiv1.Action_ACTION_RESTART
	at := func(state string, seconds int64, exits int32) *apiv1.Container {
		c := &apiv1.Container{Name: "web", State: state, Exits: exits, Reason: "exit status 1"}
		if seconds > 0 {
			c.Started = timestamppb.New(time.Unix(seconds, 0))
		}
		return c
	}
	ended := func(restarts, code int32) *apiv1.Container {
		return &apiv1.Container{Name: "migrate", State: "ended", Restarts: restarts, ExitCode: code, Reason: "exit status 1"}
	}
	for _, test := range []struct {
		name        string
		action      apiv1.Action
		before, now *apiv1.Container
		done        bool
		err         string
	}{
		{"stop: on its way", stop, at("running", 1, 0), at("stopping", 1, 0), false, ""},
		{"stop: there", stop, at("running", 1, 0), at("stopped", 0, 0), true, ""},
		{"start: on its way", start, at("stopped", 0, 0), at("starting", 0, 0), false, ""},
		{"start: there", start, at("stopped", 0, 0), at("running", 2, 0), true, ""},
		{"start: it ran", start, at("running", 1, 0), at("running", 1, 0), true, ""},
		{"start: fails", start, at("stopped", 0, 0), at("backoff", 0, 1), true, "exit status 1"},
		{"start: fails again", start, at("backoff", 0, 3), at("backoff", 0, 4), true, "exit status 1"},
		{"start: not taken up yet", start, at("backoff", 0, 3), at("backoff", 0, 3), false, ""},
		{"start: a job, not taken up yet", start, ended(0, 0), ended(0, 0), false, ""},
		{"start: a job that is done before one looks", start, ended(0, 0), ended(1, 0), true, ""},
		{"start: a job that fails before one looks", start, ended(0, 1), ended(1, 1), true, "exit status 1"},
		{"start: a job that succeeds at last", start, ended(0, 1), ended(1, 0), true, ""},
		{"start: a job that was stopped", start, at("stopped", 0, 0), ended(0, 0), true, ""},
		{"restart: a job that is done before one looks", restart, ended(0, 0), ended(1, 0), true, ""},
		{"restart: not taken up yet", restart, at("running", 1, 0), at("running", 1, 0), false, ""},
		{"restart: there", restart, at("running", 1, 0), at("running", 2, 0), true, ""},
	} {
		done, err := settled(test.action, test.before, test.now)
		if done != test.done || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, %v", test.name, done, err)
		}
	}
}

// TestStill: who waits in vain hears what for, and how it ends at once.
func TestStill(t *testing.T) {
	const start, stop, restart = apiv1.Action_ACTION_START, apiv1.Action_ACTION_STOP, apiv1.Action_ACTION_RESTART
	const told = "web was told to stop at 11:01:03, and is killed at 12:01:03 UTC"
	for _, test := range []struct {
		action              apiv1.Action
		state, reason, hint string
	}{
		{stop, "stopping", told, "kogge stop web once more kills it"},
		{stop, "stopping", "web could not be removed: device or resource busy", "kogge stop web once more kills it"},
		{restart, "starting", told, "kogge restart web once more kills it, and starts it again"},
		{restart, "starting", "", ""}, // its image comes
		{start, "starting", told, ""},
		{start, "pending", "waits for db to be healthy (starting)", ""},
	} {
		err := still(test.action, &apiv1.Container{Name: "web", State: test.state, Reason: test.reason})
		var h hinted
		if errors.As(err, &h); !strings.Contains(err.Error(), "container web is still "+test.state) || !strings.HasSuffix(err.Error(), test.reason) || h.hint != test.hint {
			t.Errorf("%s, %q: %q, hint %q", test.state, test.reason, err, h.hint)
		}
	}
}

// TestArrived goes through what the containers of a project can be on the way.
func TestArrived(t *testing.T) {
	steps := []*apiv1.Step{{Container: "db", Change: "unchanged"}, {Container: "old", Change: "gone"}, {Container: "web", Change: "new"}}
	withJob := append([]*apiv1.Step{{Container: "job", Change: "unchanged"}}, steps...)
	for _, test := range []struct {
		name       string
		containers map[string]string
		done       bool
		err        string
	}{
		{"nothing yet", nil, false, ""},
		{"the old one is still there", map[string]string{"db": "running", "web": "running", "old": "stopping"}, false, ""},
		{"one is starting", map[string]string{"db": "running", "web": "starting"}, false, ""},
		{"all run", map[string]string{"db": "running", "web": "running"}, true, ""},
		{"one has done its work", map[string]string{"db": "running", "web": "ended"}, true, ""},
		{"one fails, and others wait for it", map[string]string{"db": "pending", "web": "failing", "old": "stopping"}, false, "container web does not run"},
		{"one failed once", map[string]string{"db": "running", "web": "backoff"}, false, ""},
		{"somebody stopped one", map[string]string{"db": "stopped", "web": "running"}, true, "container db stays stopped (kogge start db)"},
		{"one is being stopped", map[string]string{"db": "stopping", "web": "running"}, false, ""},
		{"one waits for one that somebody stopped", map[string]string{"db": "stopped", "web": "depends on db, which was stopped"}, true, "container db stays stopped (kogge start db)\ncontainer web does not start: depends on db, which was stopped"},
		{"one waits for one that is being stopped", map[string]string{"db": "stopping", "web": "depends on db, which was stopped"}, false, "container web does not start: depends on db, which was stopped"},
		{"one waits for one that has failed", map[string]string{"db": "ended", "web": "depends on db, which ended with exit code 3"}, false, "container web does not start: depends on db, which ended with exit code 3"},
		{"one waits for one that waits for one that somebody stopped", map[string]string{"db": "depends on cache, which was stopped", "cache": "stopped", "web": "waits for db to start (pending)"}, true, "container web does not start: waits for db to start (pending)"},
		{"two wait for each other", map[string]string{"db": "waits for web to start (pending)", "web": "waits for db to start (pending)"}, false, ""},
		{"one waits, and another is stopped", map[string]string{"db": "stopped", "web": "pending"}, false, ""},
		{"one has failed for good", map[string]string{"db": "running", "web": "failed"}, false, "container web has ended: no such image"},
		{"one has failed for good, and another is on its way", map[string]string{"db": "starting", "web": "failed"}, false, ""},
		{"one has failed for good, and another goes", map[string]string{"db": "running", "old": "stopping", "web": "failed"}, false, ""},
		{"one has failed before, and another is on its way", map[string]string{"db": "failed", "web": "starting"}, false, ""},
		{"one has failed before", map[string]string{"db": "failed", "web": "running"}, false, "container db has ended: no such image"},
		{"one waits for one that has failed before", map[string]string{"db": "failed", "web": "depends on db, which ended with exit code 1"}, false, "container db has ended: no such image"},
		{"one fails since before, and another is on its way", map[string]string{"db": "failing", "web": "starting"}, false, ""},
		{"one fails since before", map[string]string{"db": "failing", "web": "running"}, false, "container db does not run"},
		{"one waits for one that fails since before", map[string]string{"db": "failing", "web": "waits for db to start (backoff)"}, false, "container db does not run"},
		{"one has failed before, and another waits for one that becomes healthy", map[string]string{"job": "failed", "db": "running", "web": "waits for db to be healthy (starting)"}, false, ""},
		{"one has failed before, and another waits for one that waits for one that becomes healthy", map[string]string{"job": "failed", "cache": "running", "db": "waits for cache to be healthy (starting)", "web": "waits for db to start (pending)"}, false, ""},
		{"one has failed before, and another waits for one of another project that starts", map[string]string{"job": "failed", "db": "running", "cache": "starting", "web": "waits for cache to start (starting)"}, false, ""},
		{"one has failed before, and another waits for one of another project that may do better", map[string]string{"job": "failed", "db": "running", "cache": "backoff", "web": "waits for cache to start (backoff)"}, false, ""},
		{"one has failed before, and another waits for one that will not become healthy", map[string]string{"job": "failed", "db": "running", "web": "depends on db to be healthy, and it has no health check"}, false, "container job has ended: no such image"},
		{"one has failed before, and another waits for one of another project that fails", map[string]string{"job": "failed", "db": "running", "cache": "failing", "web": "waits for cache to start (backoff)"}, false, "container job has ended: no such image"},
		{"one has failed before, and another waits for one of another project that will not start", map[string]string{"job": "failed", "db": "running", "cache": "depends on disk, which no project of this node has", "web": "waits for cache to start (pending)"}, false, "container job has ended: no such image"},
		{"one has failed before, and another waits for one that is unhealthy", map[string]string{"job": "failed", "db": "unhealthy", "web": "waits for db to be healthy (unhealthy)"}, false, "container job has ended: no such image"},
		{"one has failed before, another waits for it, and a third is on its way", map[string]string{"job": "failed", "db": "starting", "web": "depends on job, which ended with exit code 1"}, false, ""},
		{"one has failed before, and two wait for each other", map[string]string{"job": "failed", "db": "waits for web to start (pending)", "web": "waits for db to start (pending)"}, false, "container job has ended: no such image"},
		{"one fails", map[string]string{"db": "running", "web": "failing"}, false, "container web does not run: no such image"},
	} {
		var containers []*apiv1.Container
		for name, state := range test.containers {
			one := &apiv1.Container{Name: name, State: state, Reason: "no such image"}
			if state == "failing" {
				one.State, one.Exits = "backoff", patience
			}
			if state == "unhealthy" {
				one.State, one.Health = "running", state
			}
			if state == "failed" {
				one.State, one.ExitCode = "ended", 1
			}
			if strings.Contains(state, " ") {
				one.State, one.Reason = "pending", state
			}
			containers = append(containers, one)
		}
		steps := steps
		if test.containers["job"] != "" {
			steps = withJob
		}
		now := arrived(steps, &apiv1.ListResponse{Containers: containers})
		said := fmt.Sprint(errors.Join(now.failed, now.vain))
		if now.there {
			said = strings.Join(now.rest, "\n")
		}
		if now.there != test.done || !strings.Contains(said, test.err) || test.err == "" && said != "" && said != "<nil>" {
			t.Errorf("%s: %v, %s", test.name, now.there, said)
		}
	}
}

// TestPrint shows what people see of a node.
func TestPrint(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	well := &apiv1.StatusResponse{
		Hostname: "n1", Node: "n1", Kernel: "6.12.1", UptimeSeconds: 93784, Time: timestamppb.New(now),
		Boot:   &apiv1.Boot{Slot: "A", Version: "1.0", Board: "pc-x86_64", Disk: "sda", Assessment: "good"},
		Memory: &apiv1.Memory{Total: 1 << 30, Available: 900 << 20}, State: &apiv1.Disk{Total: 8 << 30, Available: 5 << 29, Files: 524288, FilesAvailable: 52000},
		Clock:    &apiv1.Clock{Sure: true, Text: "follows 192.0.2.1"},
		Links:    []*apiv1.Link{{Name: "eth0", State: "up", Addresses: []string{"192.0.2.7/24", "fe80::1/64"}}},
		Services: []*apiv1.Service{{Name: "agent", State: "running"}, {Name: "clock", State: "running"}},
	}
	printStatus(&b, well, now)
	b.WriteString("\n")
	printStatus(&b, &apiv1.StatusResponse{
		Hostname: "kogge-012345", Time: timestamppb.New(time.Unix(0, 0)), Ending: "reboot",
		Boot:     &apiv1.Boot{Slot: "B", Version: "1.1", Board: "pc-x86_64", Marks: "unlocked,without-trixie-security", Trial: true, TriesLeft: 2, Assessment: "pending", Why: "web is unhealthy"},
		Services: []*apiv1.Service{{Name: "agent", State: "backoff"}},
		Degraded: []*apiv1.Degraded{{What: "watchdog", Why: "open watchdog /dev/watchdog: no such file or directory"}},
	}, now)
	b.WriteString("\n")
	printContainers(&b, &apiv1.ListResponse{Trouble: "containerd does not answer", Containers: []*apiv1.Container{
		{Name: "shop.db", Project: "shop", Image: "registry.example/db:1", State: "running", Health: "healthy", Networks: []*apiv1.ContainerNetwork{{Name: "shop.back", Address: "10.88.0.2"}, {Name: "lan", Address: "10.88.3.2"}}, Started: timestamppb.New(now.Add(-time.Hour))},
		{Name: "web", Image: "registry.example/web:2", State: "backoff", Exits: 3, Reason: "exit status 1"},
	}}, now)
	golden.Compare(t, "node.txt", b.String())
}
