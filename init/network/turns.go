package network

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"kogge.example/init/network/claim"
	"kogge.example/init/network/dhcp"
	"kogge.example/init/nodeconfig"
)

// This file is when the manager looks at the links: a turn of work for each thing that happens.

// loop looks at the links at the start, and then whenever something has happened to them.
func (m *manager) loop(ctx context.Context) error {
	late := time.NewTimer(readyAfter)
	defer late.Stop()
	again := time.NewTicker(resync)
	defer again.Stop()
	alive, stop := watchdogTicks()
	defer stop()
	ticks := clocks{late: late.C, again: again.C, alive: alive}
	var turns pace
	for {
		// Whoever floods a link with news of it keeps us busy so far and no further.
		time.Sleep(turns.take(time.Now(), 1))
		if err := m.sync(ctx); err != nil {
			return err
		}
		var until time.Time
		ticks.over = nil
		for until.IsZero() || time.Now().Before(until) {
			what, err := m.next(ctx, ticks)
			if err != nil || ctx.Err() != nil {
				return err
			}
			time.Sleep(turns.take(time.Now(), hearing))
			if what == urgent {
				break
			}
			if what == oneOfMany && until.IsZero() {
				until, ticks.over = time.Now().Add(gather), time.After(gather)
			}
		}
	}
}

// gather is how long more of the kernel's news are waited for: a link that comes up is a dozen
// messages, and so is a container's.
const gather = 20 * time.Millisecond

// clocks are what next waits for beside the network; nil: never.
type clocks struct {
	late, again, over <-chan time.Time
	alive             <-chan time.Time // the supervisor wants to hear of us
}

// news say what became of something that happened.
type news int

const (
	nothing   news = iota // is to be done
	oneOfMany             // the kernel told that something is other than before
	urgent
)

// next waits for one thing to happen.
func (m *manager) next(ctx context.Context, t clocks) (news, error) {
	select {
	case <-ctx.Done():
		return nothing, nil
	case <-m.due():
		now, what := time.Now(), nothing // mostly a question is sent
		for _, l := range m.links {
			if end := l.routers.Next(m.synced); m.goOn(l, now) || !end.IsZero() && !now.Before(end) {
				what = urgent
			}
			for a, c := range l.claims {
				if !c.Next.IsZero() && !now.Before(c.Next) && l.step(a, claim.Timer, "", now) {
					what = urgent
				}
			}
		}
		return what, nil
	case event := <-m.heard:
		what := nothing // most of what neighbours say is about others
		if m.neighbours(event) {
			what = urgent
		}
		if l := m.links[event.Link]; l != nil {
			for a := range l.claims {
				if e := event.Packet.Means(a, m.own); e != "" && l.step(a, e, event.Packet.SenderMAC.String(), time.Now()) {
					what = urgent
				}
			}
		}
		return what, nil
	case <-m.kernel.changed:
		return oneOfMany, nil
	case <-m.kernel.addressed: // perhaps one that must not be used
	case r := <-m.kernel.refused:
		if l := m.links[r.index]; l != nil {
			l.refused = Recall(l.refused, &r.made, State{}, time.Now())
		}
	case one := <-m.kernel.routers:
		if l := m.links[one.index]; l != nil && l.entry.IPv6 == nodeconfig.IPv6Auto {
			l.spoke(time.Now())
			l.inquiry.named(one)
		}
	case named := <-m.kernel.resolvers:
		if l := m.links[named.Link]; l != nil && l.entry.IPv6 == nodeconfig.IPv6Auto {
			now := time.Now()
			l.spoke(now)
			l.routers.Add(named, now)
		}
	case event := <-m.leases:
		switch l := m.links[event.index]; {
		case l == nil:
		case !event.v6:
			l.leases.V4 = event.lease
		case l.mode != dhcp.NoDHCPv6:
			l.leases.V6 = event.lease
		}
	case err := <-m.kernel.failed:
		if ctx.Err() != nil {
			return nothing, nil // the end of ctx ended the messages
		}
		return nothing, fmt.Errorf("listen to the kernel's network messages: %w", err)
	case <-t.late:
		m.late = true
	case <-t.again:
	case <-t.over:
		return nothing, nil
	case <-t.alive:
		if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			log.Printf("network: ping supervisor: %v", err)
		}
		return nothing, nil
	}
	return urgent, nil
}

// pace grants turns of work: many at once, as when links come up, but on average so many a second.
type pace struct {
	spent float64 // turns that have not been made up for
	last  time.Time
}

const (
	turnsPerSecond = 10
	turnsAtOnce    = 60
	hearing        = 0.02 // turns that it takes to hear of something, a neighbour's packet mostly
)

// take takes so many turns and returns how long to wait for them.
func (p *pace) take(now time.Time, turns float64) time.Duration {
	p.spent = max(0, p.spent-now.Sub(p.last).Seconds()*turnsPerSecond) + turns
	p.last = now
	return time.Duration(max(0, p.spent-turnsAtOnce) / turnsPerSecond * float64(time.Second))
}
