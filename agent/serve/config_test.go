package serve

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/wanted"
	"kogge.example/init/control"
)

// settings is PID 1 as far as node.yaml goes: it takes every text that is handed over
// as it should be.
type settings struct {
	dir string

	mu    sync.Mutex // guards what follows
	asked []control.Request
	state control.Config
}

func (s *settings) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(s.dir, "settings.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in, out := json.NewDecoder(conn), json.NewEncoder(conn)
				var r control.Request
				for in.Decode(&r) == nil {
					_ = out.Encode(s.answer(r))
					r = control.Request{}
				}
			}()
		}
	}()
}

func (s *settings) answer(r control.Request) control.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	switch r.Op {
	case control.OpSet:
		file := filepath.Join(s.dir, r.File)
		info, err := os.Stat(file)
		if err != nil {
			return control.Response{Error: err.Error()}
		}
		text, err := os.ReadFile(file)
		if err != nil || Revision(text) != r.SHA256 || info.Mode().Perm() != 0o600 {
			return control.Response{Error: "the file is not as it should be: " + info.Mode().String()}
		}
		if !r.Check {
			if err := os.WriteFile(filepath.Join(s.dir, "node.yaml"), text, 0o600); err != nil {
				return control.Response{Error: err.Error()}
			}
			s.state.State, s.state.Running = "tried", r.SHA256
		}
	case control.OpConfirm:
		if s.state.State != "tried" {
			return control.Response{Error: "there is nothing to confirm"}
		}
		s.state.State, s.state.Kept = "kept", s.state.Running
	}
	state := s.state
	return control.Response{Config: &state}
}

// TestConfig reads, changes and confirms the settings of a node, and finds what is
// wrong with a text before PID 1 hears of it.
func TestConfig(t *testing.T) {
	projects := wanted.Open(filepath.Join(t.TempDir(), "projects"), nil)
	pid1 := &settings{}
	address, f, _ := ready(t, func(c *Config) {
		pid1.dir, c.Machine.Control = c.Machine.Run, filepath.Join(c.Machine.Run, "settings.sock")
		c.Projects = func() Projects { return projects }
	})
	pid1.serve(t)
	const before = "hostname: n07\n"
	if err := os.WriteFile(filepath.Join(pid1.dir, "node.yaml"), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	pid1.state = control.Config{State: "kept", Running: Revision([]byte(before)), Kept: Revision([]byte(before))}
	c := api.Dial(address, "n1", f.Genesis, f.Certificate())
	defer c.Close()
	got, err := c.GetConfig(timeout(t), connect.NewRequest(&apiv1.GetConfigRequest{}))
	if err != nil || got.Msg.Text != before || got.Msg.State.Running != Revision([]byte(before)) {
		t.Fatalf("get: %v, %v", got, err)
	}
	set := func(r *apiv1.SetConfigRequest) (*apiv1.ConfigState, error) {
		answer, err := c.SetConfig(timeout(t), connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return answer.Msg.State, nil
	}
	const web = "workloads:\n  version: '3'\n  services:\n    web:\n      image: example.org/web:1\n      ports: ['8080:80']\n"
	if _, _, err := projects.Apply("shop", []byte("services: {front: {image: example.org/front:1, ports: ['8080:80']}}\n"), false); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"hostnam: x\n": "node.yaml:1:1: unknown key \"hostnam\": did you mean \"hostname\"?\n  1 | hostnam: x\n    | ^^^^^^^",
		"hostname: n07\nworkloads:\n  services:\n    web: {imag: x}\n": "node.yaml:4:11",
		web: "another project has it: shop",
		"update: {window: '02:00-04:00', zone: Europe/Kogge}\n": "unknown time zone",
	} {
		_, err := set(&apiv1.SetConfigRequest{Text: text})
		if has(t, err, want); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%q: %v", text, connect.CodeOf(err))
		}
	}
	free := strings.Replace(web, "8080", "8081", 1)
	state, err := set(&apiv1.SetConfigRequest{Text: free, Base: got.Msg.State.Running, Check: true, UndoSeconds: 30})
	if err != nil || len(state.Warnings) != 1 || !strings.Contains(state.Warnings[0], "version") || state.State != "kept" {
		t.Errorf("check: %v, %v", state, err)
	}
	if state, err = set(&apiv1.SetConfigRequest{Text: free}); err != nil || state.State != "tried" {
		t.Errorf("set: %v, %v", state, err)
	}
	kept, err := c.ConfirmConfig(timeout(t), connect.NewRequest(&apiv1.ConfirmConfigRequest{Revision: state.Running}))
	if err != nil || kept.Msg.State.Kept != Revision([]byte(free)) {
		t.Errorf("confirm: %v, %v", kept, err)
	}
	_, err = c.ConfirmConfig(timeout(t), connect.NewRequest(&apiv1.ConfirmConfigRequest{}))
	has(t, err, "failed_precondition", "nothing to confirm")
	if _, err := c.UndoConfig(timeout(t), connect.NewRequest(&apiv1.UndoConfigRequest{})); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(pid1.dir, "for-init-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	pid1.mu.Lock()
	defer pid1.mu.Unlock()
	var said []string
	for _, r := range pid1.asked {
		said = append(said, string(r.Op)+map[bool]string{true: " check"}[r.Check])
	}
	if want := []string{"config", "set check", "set", "confirm", "confirm", "undo"}; !slices.Equal(said, want) || pid1.asked[1].UndoSeconds != 30 || pid1.asked[1].Base == "" {
		t.Errorf("PID 1 was asked %v: %+v", said, pid1.asked[1])
	}
}
