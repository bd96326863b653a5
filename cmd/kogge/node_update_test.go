package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/golden"
)

// TestJourney shows what is said of nodes on their way into the other slot.
func TestJourney(t *testing.T) {
	from := &apiv1.ListSlotsResponse{BootId: "boot 0", Assessment: "good", Slots: []*apiv1.Slot{
		{Slot: "A", Running: true, State: "proven", Version: "1.0"}, {Slot: "B", State: "armed", Version: "1.1", TriesLeft: 3},
	}}
	inB := func(boot string, left int32, assessment, why string) *apiv1.ListSlotsResponse {
		return &apiv1.ListSlotsResponse{BootId: boot, Assessment: assessment, Why: why, Slots: []*apiv1.Slot{
			{Slot: "A", State: "proven", Version: "1.0"}, {Slot: "B", Running: true, State: "on trial", Version: "1.1", TriesLeft: left},
		}}
	}
	inA := func(why string) *apiv1.ListSlotsResponse {
		return &apiv1.ListSlotsResponse{BootId: "boot 9", Assessment: "pending", Slots: []*apiv1.Slot{
			{Slot: "A", Running: true, State: "proven", Version: "1.0"}, {Slot: "B", State: "failed", Version: "1.1", Text: why},
		}}
	}
	var b strings.Builder
	for _, trip := range []struct {
		name  string
		looks []*apiv1.ListSlotsResponse
	}{
		{"all goes well", []*apiv1.ListSlotsResponse{from, nil, nil, inB("boot 1", 2, "pending", ""), inB("boot 1", 2, "pending", ""), inB("boot 1", 2, "good", "")}},
		{"seen when it is over", []*apiv1.ListSlotsResponse{from, nil, inB("boot 1", 0, "good", "")}},
		{"sick", []*apiv1.ListSlotsResponse{from, nil, inB("boot 1", 2, "pending", ""), inB("boot 1", 2, "bad", "agent not ready within 60s"), nil,
			inB("boot 2", 1, "pending", ""), nil, inB("boot 3", 0, "pending", ""), nil, inA("failed: agent not ready within 60s (3 boots)")}},
		{"never seen in there", []*apiv1.ListSlotsResponse{from, nil, nil, inA("")}},
		{"no answer worth the name", []*apiv1.ListSlotsResponse{{BootId: "boot 1"}}},
	} {
		fmt.Fprintf(&b, "%s\n", trip.name)
		j := operate.Journey{From: from, Armed: &apiv1.UpdateStep{Slot: "B", Version: "1.1"}}
		for i, look := range trip.looks {
			var err error
			if look == nil {
				err = errors.New("connection refused")
			}
			step, over, failed := j.Next(look, err)
			line := "(" + j.Where() + ")"
			if step != nil {
				line, _ = stepLine("n1", step)
			}
			fmt.Fprintf(&b, "  %s\n", line)
			if failed != nil {
				fmt.Fprintf(&b, "  error: %v\n", failed)
			}
			if last := i == len(trip.looks)-1; over != last {
				t.Errorf("%s: look %d: over %v", trip.name, i, over)
			}
		}
	}
	golden.Compare(t, "journey.txt", b.String())
}

// TestSteps shows an update as a terminal without bars has it, but for the waits.
func TestSteps(t *testing.T) {
	var b strings.Builder
	for _, s := range []*apiv1.UpdateStep{
		{Step: "verified", Slot: "B", Version: "1.1", Text: "signed by 2 of 3 keys"},
		{Step: "retired", Slot: "B"},
		{Step: "staging", Slot: "B", Done: 30 << 20, Total: 120 << 20, Text: "writing"},
		{Step: "staging", Slot: "B", Done: 0, Total: 0},
		{Step: "staged", Slot: "B", Version: "1.1", Total: 120 << 20},
		{Step: "armed", Slot: "B", Version: "1.1", Text: "3 tries"},
		{Step: "waiting", Slot: "B", At: timestamppb.New(time.Date(2026, 11, 29, 2, 0, 0, 0, time.Local))},
		{Step: "draining", Text: "at most 2m0s"},
		{Step: "rebooting"},
		{Step: "following", Text: "it reboots for 12s"},
		{Step: "something new", Text: "of a newer node"},
	} {
		line, passing := stepLine("n1", s)
		fmt.Fprintf(&b, "%v\t%s\n", passing, strings.ReplaceAll(line, time.Now().Format(" MST"), " ZONE"))
	}
	golden.Compare(t, "steps.txt", b.String())
}

// TestOpenRelease: what is a file is that, and a name that might have been one is not
// taken for a registry's.
func TestOpenRelease(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, os.MkdirAll(filepath.Join("registry.example", "kogge:1.1"), 0o700))
	for name, want := range map[string]string{
		"https://releases.example/kogge": "https://releases.example/kogge",
		"usb:":                           "usb:",
		"registry.example/kogge:1.2":     "registry.example/kogge:1.2",
		"registry.example/kogge:1.1":     "here",
		"./1.1.oci":                      "missing", "/nowhere/1.1": "missing", "1.1": "missing", "build/1.1.oci": "missing", "build/1.1.tar": "missing",
	} {
		src, from, err := openRelease(name)
		got := from
		switch {
		case errors.Is(err, fs.ErrNotExist):
			got = "missing"
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case src != nil:
			got = "here"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
