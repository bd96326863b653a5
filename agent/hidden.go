package main

import (
	"context"
	"log"
	"path/filepath"
	"time"

	"kogge.example/agent/confine"
	"kogge.example/agent/events"
)

// watchMemory ends the container that holds memory which counts against no limit, when that
// gets short, until ctx ends.
func (p *parts) watchMemory(ctx context.Context, look confine.Looker) {
	var said time.Time
	for ctx.Err() == nil {
		now := look.Shortage()
		if !now.Hidden() {
			pause(ctx, now.Next())
			continue
		}
		instance, why := now.Victim(look.Holdings())
		if instance == "" {
			if time.Since(said) > time.Minute {
				said = time.Now()
				log.Printf("agent: memory is short (%d MiB are left), not by what containers may have, and none of them holds much else", now.Available>>20)
			}
			pause(ctx, 250*time.Millisecond) // it may only be beginning
			continue
		}
		p.end(look, instance, why)
		// What it held comes back as its processes end, and nobody else is to blame until then.
		for start := time.Now(); !look.Gone(instance) && time.Since(start) < goneWithin && ctx.Err() == nil; {
			pause(ctx, 100*time.Millisecond)
		}
		pause(ctx, confine.Settled)
	}
}

// goneWithin is how long processes may take to give back what they hold.
const goneWithin = 30 * time.Second

// end kills all processes of an instance, and sees to it that why is said of it.
func (p *parts) end(look confine.Looker, instance, why string) {
	id := p.containerOf(instance)
	log.Printf("container %s: %s", id, why)
	if k := p.keeper.Load(); k != nil {
		k.Because(instance, why)
	}
	p.events.Add(events.Event{Kind: events.Container, Object: id, What: "out of memory", Text: why})
	confine.Kill(look.Cgroups, filepath.Join(look.Group, instance))
}
