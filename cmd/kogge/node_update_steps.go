package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"kogge.example/agent/api/kogge/v1"
)

// jsonSteps prints each step as a line of JSON; waiting is none.
func jsonSteps(w io.Writer) func(*apiv1.UpdateStep) error {
	return func(s *apiv1.UpdateStep) error {
		if s == nil || s.Step == "following" {
			return nil
		}
		line, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(s)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", line)
		}
		return err
	}
}

// showSteps prints steps for people: a line for each that is over and, on a terminal,
// one below for what goes on; without one, that every ten seconds. nil is the end.
func showSteps(w io.Writer, node string) func(*apiv1.UpdateStep) error {
	f := isTerminal(w)
	live := f != nil
	if live {
		w = raw(w) // for the cursor
	}
	shown, told := false, time.Now()
	return func(s *apiv1.UpdateStep) error {
		var b strings.Builder
		if shown {
			b.WriteString("\x1b[1A\x1b[J") // up, and away with it
			shown = false
		}
		if s != nil {
			line, passing := stepLine(node, s)
			line = clean(line)
			switch {
			case passing && live:
				b.WriteString(fit([]string{line}, f)[0] + "\n")
				shown = true
			case !passing || time.Since(told) > plainEvery:
				b.WriteString(line + "\n")
				told = time.Now()
			}
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
}

// stepLine says a step in words, and whether the next line takes its place.
func stepLine(node string, s *apiv1.UpdateStep) (line string, passing bool) {
	switch s.Step {
	case "verified":
		return fmt.Sprintf("verified    release %s%s", s.Version, behind(s.Text)), false
	case "retired":
		return fmt.Sprintf("retired     slot %s, to write into it%s", s.Slot, behind(s.Text)), false
	case "staging":
		percent := int64(0)
		if s.Total > 0 {
			percent = 100 * s.Done / s.Total
		}
		return fmt.Sprintf("staging     %s %s of %s, %d %%%s", bar(s.Done, s.Total), iec(uint64(max(0, s.Done))), iec(uint64(max(0, s.Total))), percent, behind(s.Text)), true
	case "staged":
		return fmt.Sprintf("staged      %s in slot %s, and read back%s", iec(uint64(max(0, s.Total))), s.Slot, behind(s.Text)), false
	case "armed":
		return fmt.Sprintf("armed       slot %s: the next boot tries release %s%s", s.Slot, s.Version, behind(s.Text)), false
	case "waiting":
		return fmt.Sprintf("waiting     node %s reboots at %s", node, s.At.AsTime().Local().Format("2006-01-02 15:04 MST")), false
	case "draining":
		return fmt.Sprintf("draining    containers stop%s", behind(s.Text)), false
	case "rebooting":
		return fmt.Sprintf("rebooting   node %s%s", node, behind(s.Text)), false
	case "following":
		return "            " + s.Text, true
	}
	return strings.TrimRight(fmt.Sprintf("%-11s %s", s.Step, s.Text), " "), false
}

func behind(text string) string {
	if text == "" {
		return ""
	}
	return ", " + text
}
