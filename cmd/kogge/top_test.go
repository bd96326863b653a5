package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/golden"
)

// TestUsage shows what people see of two answers.
func TestUsage(t *testing.T) {
	use := func(name string, cpu time.Duration, memory, limit uint64) *apiv1.Use {
		return &apiv1.Use{Name: name, Cpu: durationpb.New(cpu), Memory: memory, MemoryLimit: limit, Processes: 7, Received: 5 << 20, Sent: 12}
	}
	before := &apiv1.UsageResponse{
		Clock: durationpb.New(time.Minute), Processors: 2, Node: use("node", 10*time.Second, 0, 0),
		Services:   []*apiv1.Use{use("init", time.Second, 0, 0), use("agent", time.Second, 0, 0)},
		Containers: []*apiv1.Use{use("db", time.Second, 0, 0), use("web", 9*time.Second, 0, 0)},
	}
	now := &apiv1.UsageResponse{
		Clock: durationpb.New(62 * time.Second), Processors: 2, Node: use("node", 13*time.Second, 300<<20, 1<<30),
		Services:   []*apiv1.Use{use("init", time.Second, 9<<20, 0), use("agent", 1020*time.Millisecond, 30<<20, 0)},
		Containers: []*apiv1.Use{use("db", 2500*time.Millisecond, 20<<20, 64<<20), use("web", time.Second, 1<<20, 0), use("new", time.Second, 1<<20, 0)},
	}
	var b strings.Builder
	printUsage(&b, before)
	b.WriteString("\n")
	percent(before, now)
	printUsage(&b, now)
	b.WriteString("\n")
	now.Node, now.Services = nil, nil
	printUsage(&b, now)
	b.WriteString("\nafter a reboot\n")
	percent(now, before)
	printUsage(&b, before)
	golden.Compare(t, "usage.txt", b.String())
}

// TestPrintEvents shows what people see of events.
func TestPrintEvents(t *testing.T) {
	var b, errs strings.Builder
	var shown target
	m := &apiv1.EventsResponse{Missed: 12, Events: []*apiv1.Event{
		{Number: 13, Kind: "container", Object: "web", What: "started", Text: "example/web:1"},
		{Number: 15, Kind: "project", Object: "a-project-with-a-long-name", What: "applied", By: "ada"},
		{Number: 16, Kind: "container", Object: "web", What: "healthy"},
	}}
	if err := shown.printEvents(&b, &errs, m, time.UTC); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "events.txt", b.String()+errs.String())
}
