package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/engine"
	"kogge.example/update/fleet"
)

// execCallerGone cuts the call of a command that wants to stay: it goes, and its child.
func execCallerGone(t *testing.T, e *execs) {
	for name, edit := range map[string]func(*called){
		"without a terminal": nil,
		"with a terminal":    func(r *called) { r.Start.Terminal = &apiv1.TerminalSize{} },
	} {
		r := e.run(t, e.ada, edit, "stubborn")
		r.says(t, "ready")
		until(t, "a child, "+name, func() bool { return len(commands(t)) == 2 })
		r.cancel()
		<-r.done
		until(t, "both to be gone, "+name, func() bool { return len(commands(t)) == 0 })
	}
	// A whole connection ends without a word.
	bob, _ := e.operator(t, "bob", fleet.RoleOperator)
	r := e.run(t, bob, nil, "flood")
	r.says(t, "x")
	r.cancel()
	bob.Close()
	until(t, "it to be gone", func() bool { return len(commands(t)) == 0 })
}

// execCallerGoneEarly cuts calls while their commands are started, each at another
// moment: nothing is left of any, nor of the child that it may have by then.
func execCallerGoneEarly(t *testing.T, e *execs) {
	for round := range 3 {
		var all []*called
		for i := range engine.MaxExecsOfOne {
			r := e.run(t, e.ada, func(r *called) { r.Start.Terminal = &apiv1.TerminalSize{} }, "stubborn")
			time.AfterFunc(time.Duration(3*i+round)*10*time.Millisecond, r.cancel)
			all = append(all, r)
		}
		for _, r := range all {
			<-r.done
		}
		until(t, "nothing to be left", func() bool { return len(commands(t)) == 0 && len(e.folders(t)) == 0 })
	}
}

func execRevoked(t *testing.T, e *execs) {
	bob, key := e.operator(t, "bob", fleet.RoleOperator)
	r := e.run(t, bob, nil, "stubborn")
	r.says(t, "ready")
	s := &stuck{came: make(chan struct{}), free: make(chan struct{})}
	slow := e.run(t, bob, func(r *called) { r.Stdout = s }, "flood") // he does not even read
	<-s.came
	_, err := e.ada.Revoke(t.Context(), rpc.NewRequest(&apiv1.RevokeRequest{Keys: []string{key}}))
	must(t, err)
	r.fails(t, "revoked")
	until(t, "all to be gone", func() bool { return len(commands(t)) == 0 && len(e.folders(t)) == 0 })
	close(s.free)
	<-slow.done
	if slow.failed == nil {
		t.Error("a revoked operator's command ended well")
	}
}

// execRestarted restarts the container under a command.
func execRestarted(t *testing.T, e *execs) {
	before := hanging(t)
	r := e.run(t, e.ada, nil, "stubborn")
	r.says(t, "ready")
	_, err := e.ada.Run(t.Context(), rpc.NewRequest(&apiv1.RunRequest{Container: "web", Action: apiv1.Action_ACTION_RESTART}))
	must(t, err)
	r.ends(t, 128+9)
	until(t, "web to be back", func() bool { now := hanging(t); return len(now) == 1 && now[0] != before[0] })
	until(t, "a command to work again", func() bool {
		r := e.run(t, e.ada, nil, "exit", "9")
		<-r.done
		return r.failed == nil && r.end.Code == 9
	})
}

// execContainerdKilled kills containerd under a command: the caller is told, and the
// command is gone once containerd is back.
func execContainerdKilled(t *testing.T, e *execs) {
	r := e.run(t, e.ada, nil, "stubborn")
	r.says(t, "ready")
	e.node.kill(t, "containerd")
	e.node.start(t, "containerd")
	r.fails(t, "lost contact with the command")
	until(t, "it to be gone", func() bool { return len(commands(t)) == 0 })
	e.works(t)
}

// execAgentKilled kills the agent under commands, one of which is stuck in its output:
// the next agent takes them away.
func execAgentKilled(t *testing.T, e *execs) {
	all := []*called{
		e.run(t, e.ada, nil, "stubborn"),
		e.run(t, e.ada, func(r *called) { r.Start.Terminal = &apiv1.TerminalSize{} }, "stubborn"),
	}
	for _, r := range all {
		r.says(t, "ready")
	}
	flood := e.run(t, e.ada, nil, "flood")
	flood.says(t, "x")
	e.node.kill(t, "agent")
	for _, r := range append(all, flood) {
		<-r.done
		if r.failed == nil {
			t.Errorf("ended well: %v", r.end)
		}
	}
	if left := commands(t); len(left) != 5 {
		t.Errorf("commands %v are left without an agent: they are nobody's to kill", left)
	}
	e.node.start(t, "agent")
	until(t, "them to be gone", func() bool { return len(commands(t)) == 0 })
	e.works(t)
}

// execAgentStopped stops the agent in order: commands go, the container stays.
func execAgentStopped(t *testing.T, e *execs) {
	before := hanging(t)
	r := e.run(t, e.ada, nil, "stubborn")
	r.says(t, "ready")
	e.node.stop(t, "agent")
	<-r.done
	if r.failed == nil {
		t.Errorf("ended well: %v", r.end)
	}
	if left := commands(t); len(left) > 0 {
		t.Errorf("commands %v are left", left)
	}
	e.node.start(t, "agent")
	e.works(t)
	if after := hanging(t); !slices.Equal(before, after) {
		t.Errorf("processes of web: %v, then %v", before, after)
	}
}

// works waits until commands can be run, as after a start of the agent.
func (e *execs) works(t *testing.T) {
	t.Helper()
	until(t, "a command to work again", func() bool {
		r := e.run(t, e.ada, nil, "exit", "9")
		<-r.done
		var said *rpc.Error
		if errors.As(r.failed, &said) && said.Code() != rpc.CodeUnavailable && said.Code() != rpc.CodeFailedPrecondition {
			t.Fatal(r.failed)
		}
		return r.failed == nil && r.end.Code == 9
	})
}
