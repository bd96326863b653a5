package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// manyAgents is up to how many agents a change has to reach the last of within a second; above
// that it is reported.
const manyAgents = 1000

// agents measures what many agents cost the members of a fleet: real ones, on this computer, over
// three members. It takes a test's figures, which needs no image.
func agents(ctx context.Context, count int) ([]row, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout=90m", "-v", "-run=^TestAgents$", "kogge.example/agent/gateway", fmt.Sprintf("-agents=%d", count))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w:\n%s", err, out)
	}
	var rows []row
	for line := range strings.Lines(string(out)) {
		_, figure, ok := strings.Cut(strings.TrimSpace(line), "figure: ")
		f := strings.Split(figure, "|")
		if !ok || len(f) != 3 {
			continue
		}
		value, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(rows, func(r row) bool { return r.What == f[0] }); i >= 0 {
			rows[i].Values = append(rows[i].Values, value)
			continue
		}
		rows = append(rows, row{What: f[0], Unit: f[1], Values: []float64{value}, Goal: goalOf(f[0], count)})
	}
	return rows, nil
}

// goalOf is what a figure may be at most; 0: it is reported.
func goalOf(what string, count int) float64 {
	switch {
	case strings.Contains(what, "RSS, etcd and gateway"):
		return 300
	case strings.Contains(what, "CPU idle, etcd and gateway"):
		return 10
	case strings.Contains(what, "last one told") && count <= manyAgents:
		return 1
	}
	return 0
}
