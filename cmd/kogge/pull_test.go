package main

import (
	"fmt"
	"strings"
	"testing"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/golden"
)

// TestPullView prints what people see of a pull: lines that stay, and those that the
// next report replaces.
func TestPullView(t *testing.T) {
	layers := func(all ...*apiv1.Layer) *apiv1.PullImageResponse {
		p := &apiv1.PullImageResponse{Name: "registry.example/app:1", Pull: &apiv1.Pull{}, Layers: all}
		for _, l := range all {
			p.Pull.Done += l.Done
			p.Pull.Total += l.Size
		}
		return p
	}
	const a, b, c = "sha256:aaaaaaaaaaaaaaaa", "sha256:bbbbbbbbbbbbbbbb", "sha256:cc"
	end := layers(&apiv1.Layer{Digest: a, Done: 1 << 20, Size: 1 << 20, Before: 1 << 20}, &apiv1.Layer{Digest: b, Done: 50 << 20, Size: 50 << 20, Before: 10 << 20, From: "m.example"}, &apiv1.Layer{Digest: c, Done: 10, Size: 10})
	end.Digest = "sha256:0123"
	var text strings.Builder
	var view pullView
	for _, p := range []*apiv1.PullImageResponse{
		layers(),
		layers(&apiv1.Layer{Digest: a, Done: 1 << 20, Size: 1 << 20, Before: 1 << 20}, &apiv1.Layer{Digest: b, Done: 10 << 20, Size: 50 << 20, Before: 10 << 20}, &apiv1.Layer{Digest: c, Size: 10}),
		layers(&apiv1.Layer{Digest: a, Done: 1 << 20, Size: 1 << 20, Before: 1 << 20}, &apiv1.Layer{Digest: b, Done: 30 << 20, Size: 50 << 20, Before: 10 << 20, From: "m.example"}, &apiv1.Layer{Digest: c, Size: 10, From: "registry.example"}),
		layers(&apiv1.Layer{Digest: a, Done: 1 << 20, Size: 1 << 20, Before: 1 << 20}, &apiv1.Layer{Digest: b, Done: 50 << 20, Size: 50 << 20, Before: 10 << 20, From: "m.example"}, &apiv1.Layer{Digest: c, Done: 10, Size: 10, From: "registry.example"}),
		layers(&apiv1.Layer{Digest: a, Done: -1, Size: -5}, &apiv1.Layer{Done: 7, Size: 3}),
		end,
	} {
		lines, live := view.next(p)
		for _, line := range lines {
			fmt.Fprintf(&text, "| %s\n", line)
		}
		for _, line := range live {
			fmt.Fprintf(&text, "  %s\n", line)
		}
		text.WriteString("\n")
	}
	golden.Compare(t, "pull.txt", text.String())
}

func TestStateOf(t *testing.T) {
	for want, c := range map[string]*apiv1.Container{
		"running":     {State: "running"},
		"pulling":     {State: "starting", Pull: &apiv1.Pull{}},
		"pulling 43%": {State: "starting", Pull: &apiv1.Pull{Done: 439, Total: 1000}},
		"unpacking":   {State: "starting", Pull: &apiv1.Pull{Done: 10, Total: 10}},
	} {
		if got := stateOf(c); got != want {
			t.Errorf("%v is %q, want %q", c, got, want)
		}
	}
}
