// Command bench measures what a node costs: CPU seconds of the whole QEMU process
// from exec to the first HTTP 200 of the example container, memory when idle and with
// fifty containers, what a node does for its operators, image sizes and build times. It prints a table and, with -json, writes the same as JSON.
//
// Figures of one machine move with its other work: medians and ratios count, so a
// bare kernel with a Go program of one line is measured in the same rounds.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// row is one figure. Values are in Unit, one for each run.
type row struct {
	What   string    `json:"what"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	Goal   float64   `json:"goal,omitempty"` // at most; 0: none, the figure is reported
	Note   string    `json:"note,omitempty"`
}

func (r row) median() float64 {
	s := slices.Sorted(slices.Values(r.Values))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// String is the row as people read it.
func (r row) String() string {
	line := fmt.Sprintf("%-52s %8.1f %-4s", r.What, r.median(), r.Unit)
	if len(r.Values) > 1 {
		line += fmt.Sprintf(" [%.1f–%.1f, n=%d]", slices.Min(r.Values), slices.Max(r.Values), len(r.Values))
	}
	if r.Goal > 0 {
		verdict := "holds"
		if r.median() > r.Goal {
			verdict = "MISSED"
		}
		line += fmt.Sprintf("  goal %g: %s", r.Goal, verdict)
	}
	if r.Note != "" {
		line += "  " + r.Note
	}
	return line
}

// settings say how much is measured.
type settings struct {
	runs     int           // of each boot
	idle     time.Duration // before memory is read
	hog      time.Duration // that the node has each hog
	hogs     string        // their names, comma separated; "": all
	projects int           // of new names after the hogs
	agents   int           // over three members
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var s settings
	flag.IntVar(&s.runs, "n", 5, "runs of each boot")
	only := flag.String("only", "size,boot,phases,three,memory,work,update,build", "what to measure, comma separated; hogs, which takes most of an hour, agents, which needs all of the computer, and fleet only if they are named")
	flag.DurationVar(&s.hog, "hog", 2*time.Minute, "how long the node has each hog")
	flag.StringVar(&s.hogs, "hogs", "", "which hogs, comma separated (default all)")
	flag.IntVar(&s.projects, "projects", 1000, "how many projects of new names the node gets after the hogs")
	flag.IntVar(&s.agents, "agents", 10000, "how many agents are over three members")
	flag.DurationVar(&s.idle, "idle", 5*time.Minute, "how long a node is left alone before its memory is read")
	out := flag.String("json", "", "file for the figures as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rows, err := measure(ctx, s, strings.Split(*only, ","))
	if err != nil {
		log.Fatal(err)
	}
	if *out != "" {
		data, err := json.MarshalIndent(rows, "", "\t")
		if err == nil {
			err = os.WriteFile(*out, append(data, '\n'), 0o644)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}

// measure takes the figures and prints each row when it is complete.
func measure(ctx context.Context, s settings, only []string) ([]row, error) {
	var all []row
	take := func(name string, figures func() ([]row, error)) error {
		if !slices.Contains(only, name) {
			return nil
		}
		rows, err := figures()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, r := range rows {
			fmt.Println(r)
		}
		all = append(all, rows...)
		return nil
	}
	// These need no image.
	if err := take("agents", func() ([]row, error) { return agents(ctx, s.agents) }); err != nil || slices.Equal(only, []string{"agents"}) {
		return all, err
	}
	b, err := prepare(ctx)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(b.dir)
	parts := []struct {
		name string
		take func() ([]row, error)
	}{
		{"size", b.sizes},
		{"boot", func() ([]row, error) { return b.boots(ctx, s.runs) }},
		{"phases", func() ([]row, error) { return b.phases(ctx, s.runs) }},
		{"three", func() ([]row, error) { return b.three(ctx, 2) }},
		{"fleet", func() ([]row, error) { return b.fleet(ctx, s.idle) }},
		{"memory", func() ([]row, error) { return b.memory(ctx, s.idle) }},
		{"work", func() ([]row, error) { return b.work(ctx, s.runs, s.idle) }},
		{"update", func() ([]row, error) { return b.updates(ctx) }},
		{"hogs", func() ([]row, error) { return b.hogs(ctx, s) }},
		{"build", func() ([]row, error) { return b.builds(ctx, s.runs) }},
	}
	for _, p := range parts {
		if err := take(p.name, p.take); err != nil {
			return nil, err
		}
	}
	return all, nil
}
