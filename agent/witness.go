package main

import (
	"context"
	"errors"
	"log"
	"net"
	"slices"
	"sync"
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
	more    chan struct{} // room for one

	mu      sync.Mutex // guards what follows
	latest  time.Time  // of callers, to the second
	refused []time.Time
	floor   time.Time // when the first of them was refused
}

// mostRefused bounds what is kept of the times that the clock service does not believe.
const mostRefused = 16

// risen is by how much the floor is to rise before a refused time is told again: it does so
// each minute, and each refusal is a line in the log.
const risen = 24 * time.Hour

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
	w.mu.Lock()
	defer w.mu.Unlock()
	if !notBefore.After(w.latest) || w.refuses(notBefore) {
		return
	}
	w.latest = notBefore.Truncate(time.Second)
	w.again()
}

// refuses says whether the clock service does not believe that t has passed.
func (w *witness) refuses(t time.Time) bool {
	return slices.ContainsFunc(w.refused, t.Truncate(time.Second).Equal)
}

// refuse forgets a time that the clock service does not believe: one certificate of a wrong
// clock does not hide the others, which begin earlier.
func (w *witness) refuse(t, floor time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.refused) == 0 {
		w.floor = floor
	}
	w.refused = append(w.refused[max(0, len(w.refused)-mostRefused+1):], t.Truncate(time.Second))
	if w.refuses(w.latest) {
		w.latest = time.Time{}
	}
	w.again()
}

// believed forgets what the clock service did not believe: it knows more by now.
func (w *witness) believed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = nil
}

// reconsider forgets what the clock service did not believe before the floor was this one.
func (w *witness) reconsider(floor time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if floor.Sub(w.floor) >= risen {
		w.refused = nil
	}
}

// again has the clock service be told at once.
func (w *witness) again() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// passed is the latest time that has passed by what is known here.
func (w *witness) passed() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	latest := w.latest
	consider := func(t time.Time) {
		if t.After(latest) && !w.refuses(t) {
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
	var told time.Time
	for {
		floor := w.machine.ClockFloor()
		w.reconsider(floor)
		if at := w.passed(); at.After(told) || at.After(floor) {
			limited, cancel := context.WithTimeout(ctx, clockLimit)
			answer, err := control.AskClock(limited, w.machine.RunFile("clock.sock"), control.SetClock{Passed: at})
			switch {
			case err == nil:
				told = at
				w.believed()
			case answer.Error != "":
				log.Printf("agent: clock: %v", err)
				w.refuse(at, floor)
			case !errors.As(err, new(*net.OpError)): // one that does not listen hears of it later
				log.Printf("agent: clock: %v", err)
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
