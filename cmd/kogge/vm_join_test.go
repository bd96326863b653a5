package main

import (
	"bytes"
	"net"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/cmd/kogge/keyring"
)

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
