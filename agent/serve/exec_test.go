package serve

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/update/golden"
)

// messages are one of each kind, and what is wrong with one.
var messages = []struct {
	name string
	m    *apiv1.ExecRequest
}{
	{"nothing", &apiv1.ExecRequest{}},
	{"start", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Start{Start: &apiv1.ExecStart{}}}},
	{"start, input", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Start{Start: &apiv1.ExecStart{Stdin: true}}}},
	{"start, terminal", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Start{Start: &apiv1.ExecStart{Stdin: true, Terminal: &apiv1.TerminalSize{}}}}},
	{"start of nothing", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Start{}}},
	{"input", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Stdin{Stdin: make([]byte, api.MaxInput)}}},
	{"input, too much", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Stdin{Stdin: make([]byte, api.MaxInput+1)}}},
	{"end", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_End{End: true}}},
	{"end, none", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_End{}}},
	{"size", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Size{Size: &apiv1.TerminalSize{Width: 80, Height: 25}}}},
	{"size, too large", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Size{Size: &apiv1.TerminalSize{Width: 1 << 16}}}},
	{"signal", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Signal{Signal: "INT"}}},
	{"signal, number", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Signal{Signal: "64"}}},
	{"signal, too high", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Signal{Signal: "65"}}},
	{"signal, negative", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Signal{Signal: "-9"}}},
	{"signal, unknown", &apiv1.ExecRequest{Part: &apiv1.ExecRequest_Signal{Signal: "SHOUT"}}},
}

// TestSession prints what each message makes of each session.
func TestSession(t *testing.T) {
	var table strings.Builder
	for _, from := range []struct {
		name string
		s    session
	}{
		{"new", session{}},
		{"open, without input", session{open: true, ended: true}},
		{"open", session{open: true, stdin: true}},
		{"open, nothing taken for long", session{open: true, stdin: true, ahead: api.InputAhead - api.MaxInput + 1}},
		{"its input has ended", session{open: true, stdin: true, ended: true}},
		{"with a terminal", session{open: true, stdin: true, terminal: true}},
	} {
		fmt.Fprintf(&table, "%s\n", from.name)
		for _, m := range messages {
			to, err := from.s.Step(m.m)
			answer := fmt.Sprintf("%+v", to)
			if err != nil {
				answer = err.Error()
			}
			if err != nil && to != from.s {
				t.Errorf("%s, %s: an error changes the session", from.name, m.name)
			}
			fmt.Fprintf(&table, "  %-18s %s\n", m.name, answer)
		}
		table.WriteString("\n")
	}
	golden.Compare(t, "session.txt", table.String())
}

// TestCommandOf refuses what can be no command.
func TestCommandOf(t *testing.T) {
	for want, edit := range map[string]func(*apiv1.ExecStart){
		"":                               func(*apiv1.ExecStart) {},
		"is not the name of a container": func(s *apiv1.ExecStart) { s.Container = "../db" },
		"no command":                     func(s *apiv1.ExecStart) { s.Command = nil },
		"no command ":                    func(s *apiv1.ExecStart) { s.Command = []string{""} },
		"contains a zero byte":           func(s *apiv1.ExecStart) { s.Command = []string{"/app", "a\x00b"} },
		"contains a zero byte ":          func(s *apiv1.ExecStart) { s.User = "a\x00b" },
		"at most 131072":                 func(s *apiv1.ExecStart) { s.Env = []string{"A=" + strings.Repeat("x", maxCommand)} },
		`environment "A" is not`:         func(s *apiv1.ExecStart) { s.Env = []string{"A"} },
		`environment "=a" is not`:        func(s *apiv1.ExecStart) { s.Env = []string{"=a"} },
		`"tmp" is not absolute`:          func(s *apiv1.ExecStart) { s.WorkingDir = "tmp" },
		"a terminal of 70000 × 0 chara":  func(s *apiv1.ExecStart) { s.Terminal = &apiv1.TerminalSize{Width: 70000} },
	} {
		start := &apiv1.ExecStart{Container: "db", Command: []string{"/app", "-v"}, Env: []string{"A="}, User: "0", WorkingDir: "/tmp"}
		edit(start)
		_, err := commandOf(start)
		switch want = strings.TrimSpace(want); {
		case want != "":
			has(t, err, want)
		case err != nil:
			t.Error(err)
		}
	}
}

// FuzzSession says anything: what is ahead stays within its bound, and a command is
// whole.
func FuzzSession(f *testing.F) {
	for _, m := range messages {
		data, err := proto.Marshal(m.m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, data)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var s session
		for _, data := range [][]byte{first, second, second} {
			var m apiv1.ExecRequest
			if proto.Unmarshal(data, &m) != nil {
				return
			}
			next, err := s.Step(&m)
			if err != nil {
				return
			}
			if s = next; s.ahead > api.InputAhead || !s.open {
				t.Fatalf("session %+v", s)
			}
			if start := m.GetStart(); start != nil {
				if c, err := commandOf(start); err == nil && (len(c.Args) == 0 || c.Args[0] == "" || strings.ContainsRune(strings.Join(append(c.Args, c.Env...), " "), 0)) {
					t.Errorf("command %+v", c)
				}
			}
		}
	})
}
