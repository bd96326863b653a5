package events

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"kogge.example/agent/workload"
	"kogge.example/init/control"
)

// OfContainers says what happened between two looks at the containers, the first of
// them at a time, zero for none. known is what is known of them after the second: of
// one that waits, because containerd went away, what was before.
// One that runs since before the first look was only found again. One that nobody wants is
// gone once it has left, and known until somebody has looked whether it has.
func OfContainers(before, after workload.Status, at time.Time) (all []Event, known workload.Status) {
	was := make(map[string]workload.UnitStatus, len(before.Units))
	for _, u := range before.Units {
		was[u.ID] = u
	}
	known = workload.Status{Trouble: after.Trouble, Leaving: after.Leaving}
	stays := make(map[string]bool) // it runs, or is not wanted and has not left
	for _, u := range after.All() {
		stays[u.ID] = true
	}
	for _, u := range after.Units {
		old, there := was[u.ID]
		delete(was, u.ID)
		if there && u.State == workload.Waiting && u.Image == old.Image {
			known.Units = append(known.Units, old)
			continue
		}
		known.Units = append(known.Units, u)
		if !there && !at.IsZero() {
			all = append(all, Event{Kind: Container, Object: u.ID, What: "new", Text: u.Image})
		}
		if there && old.Image != u.Image {
			all = append(all, Event{Kind: Container, Object: u.ID, What: "replaced", Text: u.Image + " instead of " + old.Image})
		}
		all = append(all, ofState(old, u, at)...)
		all = append(all, ofHealth(old, u)...)
	}
	for _, u := range before.All() {
		switch {
		case stays[u.ID]:
		case after.Ahead:
			known.Leaving = append(slices.Clip(known.Leaving), u)
		default:
			all = append(all, Event{Kind: Container, Object: u.ID, What: "gone"})
		}
	}
	switch {
	case before.Trouble == after.Trouble:
	case after.Trouble != "":
		all = append(all, Event{Kind: Node, Object: "containers", What: "trouble", Text: after.Trouble})
	default:
		all = append(all, Event{Kind: Node, Object: "containers", What: "trouble is over"})
	}
	return all, known
}

// ofState is about a container that starts or ceases to run.
func ofState(old, now workload.UnitStatus, at time.Time) []Event {
	e := Event{Kind: Container, Object: now.ID}
	switch {
	case old.State == now.State && now.StartedAt.Equal(old.StartedAt) && now.Exits == old.Exits:
		return nil
	case now.State == workload.Running && now.StartedAt.Before(at) || now.State == workload.Running && at.IsZero():
		if old.State == workload.Running {
			return nil
		}
		e.What = "found running"
	case now.State == workload.Running && (old.State != workload.Running || !now.StartedAt.Equal(old.StartedAt)):
		e.What, e.Text = "started", now.Image
	case now.State == workload.Backoff && old.State == workload.Running, now.State == workload.Ended && old.State != workload.Ended:
		e.What, e.Text = "exited", now.Reason
	case now.State == workload.Backoff && (old.State == workload.Starting || now.Exits != old.Exits):
		e.What, e.Text = "start failed", now.Reason
	case now.State == workload.Stopped && old.State != workload.Stopped:
		e.What = "stopped"
	default:
		return nil
	}
	return []Event{e}
}

// ofHealth is about a health check that changes its mind.
func ofHealth(old, now workload.UnitStatus) []Event {
	if now.Health.State == old.Health.State || now.Health.State != workload.Healthy && now.Health.State != workload.Unhealthy {
		return nil
	}
	e := Event{Kind: Container, Object: now.ID, What: string(now.Health.State)}
	if now.Health.State == workload.Unhealthy {
		text := strings.TrimSpace(now.Health.Output)
		e.Text = text[strings.LastIndexByte(text, '\n')+1:]
	}
	return []Event{e}
}

// OfServices says what happened between two looks at the node's services; before is nil
// at the first.
func OfServices(before, after *control.Status) []Event {
	var all []Event
	was := map[string]control.Service{}
	degraded := map[control.Degraded]bool{}
	ending := ""
	if before != nil {
		ending = before.Ending
		for _, s := range before.Services {
			was[s.Name] = s
		}
		for _, d := range before.Degraded {
			degraded[d] = true
		}
	}
	for _, s := range after.Services {
		if old, known := was[s.Name]; known {
			all = append(all, ofService(old, s)...)
		}
	}
	for _, d := range after.Degraded {
		if !degraded[d] {
			all = append(all, Event{Kind: Node, Object: d.What, What: "degraded", Text: d.Why})
		}
		delete(degraded, d)
	}
	if before != nil {
		for _, d := range before.Degraded {
			if degraded[d] {
				all = append(all, Event{Kind: Node, Object: d.What, What: "not degraded any more"})
			}
		}
	}
	if after.Ending != ending && after.Ending != "" {
		all = append(all, Event{Kind: Node, Object: after.Ending, What: "begins"})
	}
	return all
}

func ofService(old, now control.Service) []Event {
	var all []Event
	add := func(what, text string) {
		all = append(all, Event{Kind: Service, Object: now.Name, What: what, Text: text})
	}
	switch again := now.Starts - old.Starts; {
	case again > 1:
		add("started", fmt.Sprintf("%d times, after: %s", again, now.LastExit))
	case again == 1 && now.LastExit != "":
		add("started", "after: "+now.LastExit)
	case again == 1:
		add("started", "")
	}
	if now.State != old.State && now.State != "starting" && (now.State != "running" || now.Starts == old.Starts) {
		text := now.Text
		if now.State != "running" {
			text = now.LastExit
		}
		add(now.State, text)
	}
	if now.Failing && !old.Failing {
		add("failing", "it exits again and again: "+now.LastExit)
	}
	return all
}
