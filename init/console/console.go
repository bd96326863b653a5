// Package console draws what a person sees who connects a serial line or a
// screen to a node.
//
// In come facts about the node, out goes one block of plain lines; it is printed
// anew only when it has changed, without any escape code, so that a serial log
// stays readable. Where the lines come from and where they are shown is the
// caller's business.
package console

import (
	"fmt"
	"io"
	"strings"
	"time"

	"kogge.example/init/control"
)

// State is what the screen shows. What is empty is left out.
type State struct {
	Node    string
	Slot    string // "A" or "B"
	Release string
	Board   string
	// Fleet is the node's place in its fleet, in words.
	Fleet string
	// Assessment of this boot: "good", "bad", or "pending, 2 tries left".
	Assessment string
	// Addresses as "eth0 10.0.2.15/24".
	Addresses []string
	// URLs at which the node serves something.
	URLs   []string
	Status control.Status
}

const (
	// width fits a terminal of 80 columns without touching its edge.
	width = 78
	// indent is the width of the labels.
	indent = 10
)

// Screen is the block for s: lines of at most 78 bytes where words allow it,
// with a newline after each. It is never empty.
func Screen(s State) string {
	var b strings.Builder
	rule := strings.Repeat("-", width)
	b.WriteString("-- Kogge " + rule[9:] + "\n")
	head := []string{}
	for _, part := range [][2]string{{"node", s.Node}, {"slot", s.Slot}, {"release", s.Release}, {"board", s.Board}} {
		if part[1] != "" {
			head = append(head, part[0]+" "+part[1])
		}
	}
	if len(head) > 0 {
		b.WriteString(strings.Join(head, ", ") + "\n")
	}
	if s.Assessment != "" {
		fmt.Fprintf(&b, "boot assessment: %s, slot %s, release %s\n", s.Assessment, s.Slot, s.Release)
	}
	if s.Fleet != "" {
		list(&b, "fleet", []string{s.Fleet})
	}
	list(&b, "address", s.Addresses)
	words(&b, "services", services(s.Status.Services))
	list(&b, "workload", texts(s.Status.Services, "agent"))
	list(&b, "failing", failing(s.Status.Services))
	var degraded []string
	for _, d := range s.Status.Degraded {
		degraded = append(degraded, d.What+": "+d.Why)
	}
	list(&b, "degraded", degraded)
	list(&b, "open", s.URLs)
	if s.Status.Ending != "" {
		list(&b, "ends", []string{s.Status.Ending})
	}
	b.WriteString(rule + "\n")
	return b.String()
}

// services names each service with its state, those that run as they should first
// and together.
func services(all []control.Service) []string {
	var running, others []string
	for _, s := range all {
		if s.State == "running" {
			running = append(running, s.Name)
		} else {
			others = append(others, s.Name+" "+s.State)
		}
	}
	if len(running) > 0 {
		running[len(running)-1] += " running"
	}
	return append(running, others...)
}

// texts is what the service called name says about its work.
func texts(all []control.Service, name string) []string {
	for _, s := range all {
		if s.Name == name && s.State == "running" && s.Text != "" {
			return []string{s.Text}
		}
	}
	return nil
}

// failing says of each service that exits again and again how it last did.
func failing(all []control.Service) []string {
	var lines []string
	for _, s := range all {
		if !s.Failing {
			continue
		}
		line := fmt.Sprintf("%s: %s, exit %d in a row", s.Name, s.LastExit, s.Exits)
		if s.Text != "" {
			line += ", says: " + s.Text
		}
		lines = append(lines, line)
	}
	return lines
}

// list writes a label and one item per line, the lines after the first indented.
func list(b *strings.Builder, label string, items []string) {
	for _, item := range items {
		fill(b, label, strings.Fields(item), " ")
		label = ""
	}
}

// words writes a label and all items with commas between them.
func words(b *strings.Builder, label string, items []string) {
	if len(items) > 0 {
		fill(b, label, items, ", ")
	}
}

// fill writes items into as few lines as they need.
func fill(b *strings.Builder, label string, items []string, between string) {
	line := fmt.Sprintf("%-*s", indent, label)
	empty := true
	for i, item := range items {
		if i < len(items)-1 {
			item += between
		}
		if !empty && len(line)+len(strings.TrimRight(item, " ")) > width {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = strings.Repeat(" ", indent)
		}
		line += item
		empty = false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

const (
	// Quiet is how long nothing must change before the block is printed, so that
	// a boot prints a few blocks instead of dozens.
	Quiet = 2 * time.Second
	// Longest is after what time it is printed though things keep changing.
	Longest = 10 * time.Second
)

// Keep prints the block of the newest state to w whenever it is another one than
// the last printed, after quiet without a change, but at most longest after the
// first (zero: [Quiet] and [Longest]). It returns when states is closed, after a
// last block if one is due. A w that fails or blocks costs blocks, no states are
// kept for it.
func Keep(w io.Writer, states <-chan State, quiet, longest time.Duration) {
	if quiet == 0 {
		quiet = Quiet
	}
	if longest == 0 {
		longest = Longest
	}
	shown, next := "", ""
	var since time.Time // when next began to differ from shown
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	show := func() {
		if next == shown {
			return
		}
		_, _ = io.WriteString(w, next) // there is nobody to tell but this very console
		shown, since = next, time.Time{}
	}
	for {
		select {
		case s, ok := <-states:
			if !ok {
				show()
				return
			}
			text := Screen(s)
			if text == next {
				continue
			}
			next = text
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			timer.Reset(max(0, min(quiet, since.Add(longest).Sub(now))))
		case <-timer.C:
			show()
		}
	}
}
