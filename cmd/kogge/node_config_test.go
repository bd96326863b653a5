package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/serve"
)

// TestConfigEdit edits the node.yaml of a node whose PID 1 keeps it as a real one does: the
// text is taken as a whole, or it stays with its writer; and a node that answers at
// another address from then on is known by it.
func TestConfigEdit(t *testing.T) {
	p := &pid1{starts: map[string]int{"network": 1, "agent": 1}}
	(&world{pid1: p.serve}).open(t)
	dir, err := os.Getwd()
	must(t, err)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp")) // what is left of an edit is found there
	must(t, os.Mkdir("tmp", 0o700))
	const before, renamed, other = "hostname: n1\n", "hostname: n7\n", "hostname: n7\nnetwork: [{match: wired, mtu: 1400}]\n"
	// edit has an editor write text, or end with an error for "".
	edit := func(text string, args ...string) (string, error) {
		t.Helper()
		must(t, os.WriteFile("text", []byte(text), 0o600))
		t.Setenv("VISUAL", "")
		t.Setenv("EDITOR", "cp "+filepath.Join(dir, "text"))
		if text == "" {
			t.Setenv("EDITOR", "false")
		}
		root := rootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(append([]string{"node", "config", "edit", "n1"}, args...))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	files := func(want string) {
		t.Helper()
		for _, name := range []string{"node.yaml", "node.yaml.kept"} {
			if got, err := os.ReadFile(name); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
	}
	left := func() (all []string) {
		t.Helper()
		all, err := filepath.Glob("tmp/kogge-edit-*/node.yaml")
		must(t, err)
		return all
	}
	address := func() string {
		t.Helper()
		target := target{node: "n1"}
		_, known, err := target.resolve()
		must(t, err)
		return known.Address
	}

	if out, err := edit(before); err != nil || out != "" {
		t.Errorf("the same text: %q, %v", out, err)
	}
	if out, err := edit(renamed); err != nil || out != "node n1 keeps these settings; restarted: agent, network\n" {
		t.Errorf("another name: %q, %v", out, err)
	}
	files(renamed)
	if all := left(); len(all) > 0 {
		t.Errorf("left behind: %q", all)
	}
	for text, want := range map[string]string{"": "false: exit status 1", "hostnam: n8\n": "hostnam"} {
		_, err := edit(text)
		var hint hinted
		if !errors.As(err, &hint) || !strings.Contains(err.Error(), want) {
			t.Fatalf("text %q: %v, want %q and a hint", text, err, want)
		}
		file := regexp.MustCompile(`\S+/node\.yaml`).FindString(hint.hint)
		if text == "" {
			text = renamed
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("the writer's text: %q, %v, want %q", got, err, text)
		}
		must(t, os.RemoveAll(filepath.Dir(file)))
	}
	files(renamed)
	// Its port is the same, at an address that it was not called by until now.
	_, port, err := net.SplitHostPort(address())
	must(t, err)
	next := net.JoinHostPort("localhost", port)
	if out, err := edit(other, "--address", next); err != nil || out != "node n1 keeps these settings; restarted: network\n" {
		t.Errorf("another network: %q, %v", out, err)
	}
	files(other)
	if got := address(); got != next {
		t.Errorf("the node is known at %s, want %s", got, next)
	}
}

// pid1 does for node.yaml what PID 1 does: another network is tried, and kept once it is
// confirmed; all else is kept at once. Services restart in no time.
type pid1 struct {
	dir    string
	mu     sync.Mutex // guards what follows, and the files
	starts map[string]int
	tried  bool
}

// question is what the agent asks: control.Request.
type question struct{ Op, File string }

func (p *pid1) answer(q question) map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	running, kept := filepath.Join(p.dir, "node.yaml"), filepath.Join(p.dir, "node.yaml.kept")
	var restarts []string
	var err error
	switch q.Op {
	case "status":
		var services []any
		for name, n := range p.starts {
			services = append(services, map[string]any{"name": name, "state": "running", "starts": n})
		}
		return map[string]any{"status": map[string]any{"services": services}}
	case "config":
	case "set":
		restarts = []string{"agent", "network"}
		var text []byte
		if text, err = os.ReadFile(filepath.Join(p.dir, q.File)); err != nil {
			break
		}
		if p.tried = bytes.Contains(text, []byte("network:")); p.tried {
			restarts = restarts[1:]
		} else {
			err = os.WriteFile(kept, text, 0o600)
		}
		err = errors.Join(err, os.WriteFile(running, text, 0o600))
		for _, name := range restarts {
			p.starts[name]++
		}
	case "confirm":
		var text []byte
		text, err = os.ReadFile(running)
		err = errors.Join(err, os.WriteFile(kept, text, 0o600))
		p.tried = false
	default:
		err = errors.New("there is no supervisor here")
	}
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	revision := func(file string) string {
		text, _ := os.ReadFile(file) // it is there, or no revision fits
		return serve.Revision(text)
	}
	state := map[bool]string{false: configKept, true: configTried}[p.tried]
	return map[string]any{"config": map[string]any{
		"state": state, "running": revision(running), "kept": revision(kept), "undo_seconds": 90, "restarts": restarts,
	}}
}

// serve answers at a socket beside the node.yaml.
func (p *pid1) serve(t *testing.T, socket string) {
	t.Helper()
	p.dir = filepath.Dir(socket)
	for _, name := range []string{"node.yaml", "node.yaml.kept"} {
		must(t, os.WriteFile(filepath.Join(p.dir, name), []byte("hostname: n1\n"), 0o600))
	}
	l, err := net.Listen("unix", socket)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				questions, answers := json.NewDecoder(conn), json.NewEncoder(conn)
				for {
					var q question
					if questions.Decode(&q) != nil || answers.Encode(p.answer(q)) != nil {
						return
					}
				}
			}()
		}
	}()
}

// TestRestarted: a service counts once it has started again, and runs.
func TestRestarted(t *testing.T) {
	status := func(agent, network int32, state string) *apiv1.StatusResponse {
		return &apiv1.StatusResponse{Services: []*apiv1.Service{
			{Name: "agent", Starts: agent, State: "starting"}, {Name: "network", Starts: network, State: state},
		}}
	}
	before := status(1, 1, "running")
	for _, c := range []struct {
		now      *apiv1.StatusResponse
		services []string
		want     bool
	}{
		{before, nil, true},
		{before, []string{"agent"}, false},
		{status(2, 1, "running"), []string{"agent"}, true},
		{status(2, 1, "running"), []string{"agent", "network"}, false},
		{status(2, 2, "starting"), []string{"agent", "network"}, false},
		{status(2, 2, "running"), []string{"agent", "network"}, true},
		{&apiv1.StatusResponse{}, []string{"network"}, false},
	} {
		if got := restarted(c.services, before, c.now); got != c.want {
			t.Errorf("%v in %v: %v", c.services, c.now, got)
		}
	}
}
