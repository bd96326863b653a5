package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/serve"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// TestJoin waits for a node that boots, in front of a port that first nobody serves: it
// joins once it answers, unless it ends, or whoever waits goes away.
func TestJoin(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	t.Setenv("KOGGE_CONFIG", root)
	ring, err := keyring.Create("dev", "ada", time.Now())
	if err == nil {
		err = ring.Save(filepath.Join(root, "dev"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	never, ended := make(chan struct{}), make(chan struct{})
	close(ended)
	var out bytes.Buffer
	if err := join(t.Context(), ended, ring, address, "n1", &out); !errors.Is(err, errVMEnded) {
		t.Errorf("a machine that has ended: %v", err)
	}
	gone, leave := context.WithCancelCause(t.Context())
	left := errors.New("left")
	leave(left)
	if err := join(gone, never, ring, address, "n1", &out); !errors.Is(err, left) {
		t.Errorf("somebody who has left: %v", err)
	}
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := ring.NewToken(keyring.Terms{Node: "n1", Life: tokenLife}, time.Now())
	if err == nil {
		err = node.Join(&fleet.JoinFile{Genesis: ring.Genesis, Token: token.Token})
	}
	if err != nil {
		t.Fatal(err)
	}
	joined := make(chan error, 1)
	go func() { joined <- join(t.Context(), never, ring, address, "n1", &out) }()
	server, err := serve.Listen(address, serve.Config{
		Node: node, Machine: machine.Machine{Run: state, State: state}, ClockSure: func() bool { return true }, LogDir: state,
		Containers: func() serve.Containers { return nil }, Projects: func() serve.Projects { return nil }, Images: func() serve.Images { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- server.Serve(ctx) }()
	if err := <-joined; err != nil || !strings.Contains(out.String(), "node n1 has joined fleet dev") {
		t.Errorf("%v: %s", err, &out)
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// TestBooting: a port that nobody serves, and one that resets what comes in, are
// those of a node that still boots.
func TestBooting(t *testing.T) {
	ring, err := keyring.Create("dev", "ada", time.Now())
	if err == nil {
		err = ring.Save(filepath.Join(t.TempDir(), "dev"), "")
	}
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0) // a reset instead of an end
			conn.Close()
		}
	}()
	for _, what := range []string{"resets", "serves nothing"} {
		var out bytes.Buffer
		if err := adopt(t.Context(), ring, listener.Addr().String(), "n1", &out); !booting(err) {
			t.Errorf("a port that %s: %v", what, err)
		}
		listener.Close()
		<-over
	}
}
