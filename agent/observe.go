package main

import (
	"context"
	"slices"
	"time"

	"kogge.example/agent/engine"
	"kogge.example/agent/events"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
)

// watchContainers makes events of what the keeper reports.
func (p *parts) watchContainers() func(workload.Status) {
	var known workload.Status
	var at time.Time
	return func(s workload.Status) {
		var happened []events.Event
		happened, known = events.OfContainers(known, s, at)
		p.events.Add(happened...)
		at = time.Now()
	}
}

// outOfMemory is told by containerd which instance has had a process killed.
func (p *parts) outOfMemory(instance string) {
	p.events.Add(events.Event{Kind: events.Container, Object: p.containerOf(instance), What: "out of memory", Text: "the kernel killed one of its processes"})
}

// containerOf is the container of an instance, or the instance's own name.
func (p *parts) containerOf(instance string) string {
	if k := p.keeper.Load(); k != nil {
		return ownerOf(k.Snapshot(), instance)
	}
	return instance
}

// ownerOf is the container that an instance is of, be it the one that serves, one that takes
// over or one that leaves; its own name, if it is nobody's.
func ownerOf(s workload.Status, instance string) string {
	for _, u := range s.All() {
		if all := workload.Instances(u.ID); slices.Contains(all[:], instance) {
			return u.ID
		}
	}
	return instance
}

// telling tells of the images that the keeper pulls.
type telling struct {
	*engine.Engine
	events *events.Ring
}

func (p telling) Pull(ctx context.Context, image, platform string, report func(workload.Progress)) error {
	err := p.Engine.Pull(ctx, image, platform, report)
	if err == nil {
		p.events.Add(events.Event{Kind: events.Image, Object: image, What: "pulled"})
	}
	return err
}

// lookEvery is how often PID 1 is asked. What happens in between shows in its counts.
const lookEvery = 5 * time.Second

// watchServices makes events of what PID 1 says, until ctx ends. Outside of a node there
// is nobody to ask.
func watchServices(ctx context.Context, ring *events.Ring) {
	var before *control.Status
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if now, err := askServices(ctx, control.Path); err == nil {
			ring.Add(events.OfServices(before, now)...)
			before = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func askServices(ctx context.Context, pid1 string) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	c, err := control.Dial(ctx, pid1)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Status(ctx)
}
