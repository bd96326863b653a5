package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/console"

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

// TestShowPull draws on a terminal: lines that stay are whole, those below them are no
// longer than a row, and no more than fit are drawn and taken away again.
func TestShowPull(t *testing.T) {
	const rows, columns = 5, 40
	pty, path, err := console.NewPty()
	must(t, err)
	defer pty.Close()
	must(t, pty.Resize(console.WinSize{Height: rows, Width: columns}))
	terminal, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer terminal.Close()
	screen := make(chan string)
	go func() {
		var all strings.Builder
		for b := make([]byte, 1024); !strings.Contains(all.String(), "the end"); {
			n, err := pty.Read(b)
			all.Write(b[:n])
			if err != nil {
				break
			}
		}
		screen <- strings.ReplaceAll(all.String(), "\r\n", "\n")
	}()
	show := showPull(terminal)
	p := &apiv1.PullImageResponse{Name: "registry.example/app:1", Pull: &apiv1.Pull{Total: 800}}
	for i := range 8 {
		p.Layers = append(p.Layers, &apiv1.Layer{Digest: fmt.Sprintf("sha256:%064d", i), Size: 100, Done: 1, From: "registry.example"})
	}
	must(t, show(p))
	for _, l := range p.Layers {
		l.Done = l.Size
	}
	p.Pull.Done = p.Pull.Total
	must(t, show(p))
	p.Digest = "sha256:0123"
	must(t, show(p))
	must(t, show(nil))
	_, err = terminal.WriteString("the end")
	must(t, err)
	drawn := strings.Split(<-screen, "\x1b[J")
	if len(drawn) != 3 { // twice something was taken away
		t.Fatalf("drawn: %q", drawn)
	}
	first := strings.Split(strings.TrimSuffix(drawn[0], "\x1b[4A"), "\n")
	if len(first) != rows || !strings.HasPrefix(first[3], "registry.example/app:1: 0 B of 800 B") {
		t.Errorf("first: %q", first)
	}
	for _, line := range first {
		if len(line) >= columns {
			t.Errorf("%q is longer than a row", line)
		}
	}
	if strings.Count(drawn[1], "from registry.example\n") != 8 || !strings.HasSuffix(drawn[1], "registry.example/app:1: unpacking\n\x1b[1A") {
		t.Errorf("then: %q", drawn[1])
	}
	if drawn[2] != "registry.example/app:1 sha256:0123\nthe end" {
		t.Errorf("at the end: %q", drawn[2])
	}
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
