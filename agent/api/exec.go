package api

import (
	"context"
	"errors"
	"io"
	"sync"

	"kogge.example/agent/api/kogge/v1"
)

// Session is a command in a container as its caller has it.
type Session struct {
	Start          *apiv1.ExecStart
	Stdin          io.Reader // read from a goroutine that nobody waits for; unused without Start.Stdin
	Stdout, Stderr io.Writer
	Sizes          <-chan *apiv1.TerminalSize // of the caller's terminal, when it changes
	Signals        <-chan string              // "INT", for the command
	// Started is called when the command runs.
	Started func()
}

// errCut means that a session had no end.
var errCut = errors.New("the node ended the session without saying how the command ended")

// ExecSession runs a command in a container and returns how it ended. It ends with ctx, and
// the command with it.
func (c *Client) ExecSession(ctx context.Context, s Session) (*apiv1.ExecEnd, error) {
	ctx, cancel := context.WithCancel(ctx)
	var passing sync.WaitGroup
	defer passing.Wait()
	defer cancel()
	stream := c.Exec(ctx)
	defer stream.CloseResponse()
	var mu sync.Mutex // one sends at a time
	send := func(m *apiv1.ExecRequest) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(m)
	}
	if err := send(&apiv1.ExecRequest{Part: &apiv1.ExecRequest_Start{Start: s.Start}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	// While the request has no end, nothing but this tells the transport of ctx's.
	stop := context.AfterFunc(ctx, func() { _ = stream.CloseRequest() })
	defer stop()
	ahead := &window{left: InputAhead, more: make(chan struct{}, 1)}
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil, errCut
		}
		if err != nil {
			return nil, err
		}
		switch part := m.Part.(type) {
		case *apiv1.ExecResponse_Started:
			if s.Started != nil {
				s.Started()
			}
			if s.Start.Stdin {
				go func() { _ = ahead.feed(ctx, s.Stdin, s.Start.Terminal == nil, send) }() // an error comes to Receive, too
			}
			passing.Go(func() { s.pass(ctx, send) })
		case *apiv1.ExecResponse_Stdout:
			_, err = s.Stdout.Write(part.Stdout)
		case *apiv1.ExecResponse_Stderr:
			_, err = s.Stderr.Write(part.Stderr)
		case *apiv1.ExecResponse_Taken:
			ahead.add(int(part.Taken))
		case *apiv1.ExecResponse_End:
			return part.End, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// pass passes on sizes and signals.
func (s *Session) pass(ctx context.Context, send func(*apiv1.ExecRequest) error) {
	for {
		var m apiv1.ExecRequest
		select {
		case size := <-s.Sizes:
			m.Part = &apiv1.ExecRequest_Size{Size: size}
		case name := <-s.Signals:
			m.Part = &apiv1.ExecRequest_Signal{Signal: name}
		case <-ctx.Done():
			return
		}
		if send(&m) != nil {
			return // Receive says why
		}
	}
}

// window is how far the input may be ahead of the command.
type window struct {
	mu   sync.Mutex // guards left
	left int
	more chan struct{}
}

func (w *window) add(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left += n
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// take waits for room for n bytes.
func (w *window) take(ctx context.Context, n int) error {
	for {
		w.mu.Lock()
		enough := w.left >= n
		if enough {
			w.left -= n
		}
		w.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-w.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// feed sends what comes from in, and its end if that is one for the command.
func (w *window) feed(ctx context.Context, in io.Reader, ends bool, send func(*apiv1.ExecRequest) error) error {
	buffer := make([]byte, MaxInput)
	for {
		n, err := in.Read(buffer)
		if n > 0 {
			if err := w.take(ctx, n); err != nil {
				return err
			}
			if err := send(&apiv1.ExecRequest{Part: &apiv1.ExecRequest_Stdin{Stdin: buffer[:n]}}); err != nil {
				return err
			}
		}
		switch {
		case err != nil && ends:
			return send(&apiv1.ExecRequest{Part: &apiv1.ExecRequest_End{End: true}})
		case err != nil:
			return err
		}
	}
}
