package engine

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLateReader: a shim that opens its end of the input after it has said that the
// command runs gets all of it all the same.
func TestLateReader(t *testing.T) {
	p, err := makePipes(filepath.Join(t.TempDir(), "exec"), true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.release()
	read := make(chan string)
	time.AfterFunc(50*time.Millisecond, func() {
		shim, err := os.OpenFile(p.config.Stdin, os.O_RDONLY, 0)
		if err != nil {
			read <- err.Error()
			return
		}
		defer shim.Close()
		all, _ := io.ReadAll(shim)
		read <- string(all)
	})
	if err := p.awaitReader(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(p.stdin, "one\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got != "one\n" {
		t.Errorf("the shim read %q", got)
	}
}

// TestNoReader: a shim that never opens it is an error, and not input into nowhere.
func TestNoReader(t *testing.T) {
	p, err := makePipes(filepath.Join(t.TempDir(), "exec"), true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.awaitReader(ctx); err == nil {
		t.Error("there is a reader")
	}
}
