// Package probe says whether this boot is good: health probes in, a word to PID 1 out,
// "good", or "pending" with what is missing, or "sick" if that is nothing but workloads.
// PID 1 blesses the slot at the first, and gives the others up when their time is over; on a
// proven slot a node with sick workloads is no reason to try the other slot.
//
// What is asked is local: containerd and the API answer, STATE is on the disk, a link is
// up if one was, the containers are well that were, and the checks of node.yaml pass. It
// needs no other node, with one exception that counts once: see [nodeconfig.Assess].Peers.
// [Judge.Step] decides and asks nothing; package keeper does what there is to do to a
// container.
package probe

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"
)

// Result is what one check said.
type Result struct {
	Check string
	// Why it failed; "" is well.
	Why string
	// Workload says that it is about what runs on the node, not about the node itself:
	// whoever runs a container or applies a project can make it fail.
	Workload bool
}

// Judge makes one word of many results, over time:
//
//	missing ─all well─▶ well since … ─ For later, and never a check failed─▶ good
//	   ▲                     │
//	   └──── one fails ──────┘
//
// The node itself has the same picture, without the workloads: once it was well for so
// long, what is still missing makes it sick instead of pending.
type Judge struct {
	// For is how long all must be well.
	For time.Duration
	// Since is when all was well first, without a break; zero if something is missing.
	// NodeSince is the same of the node itself.
	Since, NodeSince time.Time
}

// Verdict is what PID 1 is told.
type Verdict string

const (
	Good    Verdict = "good"
	Pending Verdict = "pending"
	Sick    Verdict = "sick" // the node itself is well, its workloads are not
)

// maxNamed is how many checks that fail are named, the others are counted.
const maxNamed = 3

// Step takes in the results of one round of checks. It reads no clock. why says what
// Pending and Sick wait for.
func (j Judge) Step(results []Result, now time.Time) (next Judge, v Verdict, why string) {
	var missing []string
	node := true // the node itself is well
	for _, r := range results {
		if r.Why != "" {
			missing = append(missing, r.Check+": "+r.Why)
			node = node && r.Workload
		}
	}
	switch {
	case !node:
		j.NodeSince = time.Time{}
	case j.NodeSince.IsZero():
		j.NodeSince = now
	}
	switch {
	case len(missing) > maxNamed:
		why = fmt.Sprintf("%s; and %d more", strings.Join(missing[:maxNamed], "; "), len(missing)-maxNamed)
	case len(missing) > 0:
		why = strings.Join(missing, "; ")
	case j.Since.IsZero():
		j.Since = now
	}
	if len(missing) > 0 {
		j.Since = time.Time{}
		if node && now.Sub(j.NodeSince) >= j.For {
			return j, Sick, why
		}
		return j, Pending, why
	}
	if now.Sub(j.Since) >= j.For {
		return j, Good, ""
	}
	return j, Pending, fmt.Sprintf("all is well, and has to stay so for %s", j.For)
}

const (
	// round is the pause between two rounds of checks, slow the one after slowAfter.
	round     = 2 * time.Second
	slow      = 10 * time.Second
	slowAfter = 5 * time.Minute
	// again is the pause after PID 1 could not be told.
	again = 5 * time.Second
)

// ErrSettled is what tell returns where PID 1 has decided otherwise: too late, above all.
var ErrSettled = errors.New("PID 1 has settled it")

// Run asks node round after round until the boot is good, or ctx ends. tell tells PID 1.
func Run(ctx context.Context, node *Node, tell func(ctx context.Context, v Verdict, why string) error) {
	node.began = time.Now()
	node.recall()
	judge := Judge{For: node.Config.For}
	var told struct {
		v   Verdict
		why string
	}
	for ctx.Err() == nil {
		var v Verdict
		var why string
		judge, v, why = judge.Step(node.check(ctx), time.Now())
		pause := round
		if time.Since(node.began) > slowAfter {
			pause = slow
		}
		if ctx.Err() == nil && (v == Good || v != told.v || why != told.why) {
			if v == Good {
				// What PID 1 does about it may reach no further than this.
				if err := node.remember(); err != nil {
					log.Printf("agent: %v", err)
				}
			}
			switch err := tell(ctx, v, why); {
			case errors.Is(err, ErrSettled):
				log.Printf("agent: boot assessment: %v", err)
				return
			case err != nil && ctx.Err() == nil:
				log.Printf("agent: boot assessment: %v; next try in %s", err, again)
				pause = again
			case v == Good:
				log.Print("agent: boot assessment: good")
				return
			default:
				told.v, told.why = v, why
				log.Printf("agent: boot assessment: %s", why)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// check asks everything at once.
func (n *Node) check(ctx context.Context) []Result {
	probes := n.probes()
	results := make([]Result, len(probes))
	done := make(chan int)
	for i, p := range probes {
		go func() {
			limited, cancel := context.WithTimeout(ctx, probeLimit)
			defer cancel()
			results[i].Check, results[i].Workload = p.name, p.workload
			if err := p.ask(limited); err != nil {
				results[i].Why = oneLine(err.Error())
			}
			done <- i
		}()
	}
	for range probes {
		<-done
	}
	return n.peers(ctx, results)
}

// maxWhy is how much of a reason is kept, in bytes.
const maxWhy = 150

func oneLine(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) <= maxWhy {
		return text
	}
	return strings.ToValidUTF8(text[:maxWhy], "") + "…"
}
