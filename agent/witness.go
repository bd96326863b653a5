package main

import (
	"context"
	"errors"
	"log"
	"net"
	"sync/atomic"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/init/control"
)

// witness tells the clock service what time has passed by the certificates that this node
// has verified: its own, those of the fleet's CAs, and those of its callers.
type witness struct {
	machine machine.Machine
	node    *identity.Node
	latest  atomic.Int64  // of callers, in seconds of Unix
	more    chan struct{} // room for one
}

// clockLimit bounds a word to the clock service: it may set a hardware clock for it.
const clockLimit = 20 * time.Second

// witnessEvery is how often the clock service is told again what it may have forgotten.
const witnessEvery = time.Minute

// newWitness is one of a node that is called by nobody yet.
func newWitness(node *identity.Node, machine machine.Machine) *witness {
	return &witness{machine: machine, node: node, more: make(chan struct{}, 1)}
}

// see hears of a caller's certificate.
func (w *witness) see(notBefore time.Time) {
	for {
		latest := w.latest.Load()
		if notBefore.Unix() <= latest {
			return
		}
		if w.latest.CompareAndSwap(latest, notBefore.Unix()) {
			break
		}
	}
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// passed is the latest time that has passed by what is known here.
func (w *witness) passed() time.Time {
	latest := time.Unix(w.latest.Load(), 0)
	consider := func(t time.Time) {
		if t.After(latest) {
			latest = t
		}
	}
	if g := w.node.Genesis(); g != nil {
		consider(g.OperatorCA.NotBefore)
		consider(g.NodeCA.NotBefore)
	}
	if w.node.Adopted() {
		consider(w.node.Certificate().Leaf.NotBefore)
	}
	return latest
}

// tell tells it until ctx ends. What is below the floor is told once too: time servers may
// have said so alone, and may say something else.
func (w *witness) tell(ctx context.Context) {
	again := time.NewTicker(witnessEvery)
	defer again.Stop()
	var told, refused time.Time
	for {
		if at := w.passed(); (at.After(told) || at.After(w.machine.ClockFloor())) && !at.Equal(refused) {
			limited, cancel := context.WithTimeout(ctx, clockLimit)
			_, err := control.AskClock(limited, w.machine.RunFile("clock.sock"), control.SetClock{Passed: at})
			switch {
			case err == nil:
				told = at
			case !errors.As(err, new(*net.OpError)): // one that does not listen hears of it later
				log.Printf("agent: clock: %v", err)
				refused = at
			}
			cancel()
		}
		select {
		case <-ctx.Done():
			return
		case <-w.more:
		case <-again.C:
		}
	}
}
