package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// untilSignal is ctx until somebody presses Ctrl-C, or asks this program to end. Whoever does
// so once more ends it, whatever it waits for.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// patiently is what do returns, or the end of ctx if that comes first: do cannot be called
// off, as it waits for a terminal, or for the other end of a pipe, and ends with the program.
func patiently[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := do()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// patient is a file, pipe or terminal from which nothing more comes once ctx has ended.
type patient struct {
	ctx context.Context
	io.Reader
}

func (p patient) Read(b []byte) (int, error) {
	own := make([]byte, len(b)) // of a read that may come too late
	n, err := patiently(p.ctx, func() (int, error) { return p.Reader.Read(own) })
	return copy(b, own[:n]), err
}

// openInput opens a file, or standard input if name is -.
func openInput(ctx context.Context, name string) (*os.File, error) {
	if name == "-" {
		return os.Stdin, nil
	}
	return patiently(ctx, func() (*os.File, error) { return os.Open(name) })
}

// maxInput is the most of a file that has a few lines as a rule, in bytes.
const maxInput = 1 << 20

// readInput reads a file of at most so many bytes, or standard input if name is -.
func readInput(ctx context.Context, name string, most int) ([]byte, error) {
	f, err := openInput(ctx, name)
	if err != nil {
		return nil, err
	}
	if f != os.Stdin {
		defer f.Close()
	}
	text, err := io.ReadAll(io.LimitReader(patient{ctx, f}, int64(most)+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s has more than %d bytes", f.Name(), most)
	}
	return text, err
}
