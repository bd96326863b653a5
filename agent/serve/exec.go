package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/engine"
	"kogge.example/agent/workload"
)

// Commands runs commands inside containers.
type Commands interface {
	Exec(ctx context.Context, instance string, c engine.Command) (*engine.Process, error)
}

// Limits of a session, in bytes, besides those of the contract.
const (
	maxCommand = 128 << 10 // a command with its environment
	frameSize  = 16 << 10  // of its output
)

// session is what the caller of a command has said so far:
//
//	start ─▶ open ─end─▶ ended
//
// In open there is input, which end ends; a signal may come at any time, and a size where
// there is a terminal. What is said out of turn ends the session.
type session struct {
	open, ended     bool
	stdin, terminal bool
	ahead           int // bytes of input that the command has not taken
}

// Step says what a message makes of the session. It reads no clock and runs nothing.
func (s session) Step(m *apiv1.ExecRequest) (session, error) {
	start, starts := m.Part.(*apiv1.ExecRequest_Start)
	if !s.open {
		if !starts || start.Start == nil {
			return s, errors.New("the first message has to say what to run")
		}
		return session{open: true, stdin: start.Start.Stdin, ended: !start.Start.Stdin, terminal: start.Start.Terminal != nil}, nil
	}
	switch part := m.Part.(type) {
	case *apiv1.ExecRequest_Start:
		return s, errors.New("a session runs one command")
	case *apiv1.ExecRequest_Stdin:
		switch {
		case !s.stdin:
			return s, errors.New("input for a command that was started without input")
		case s.ended:
			return s, errors.New("input after the end of the input")
		case len(part.Stdin) > api.MaxInput:
			return s, fmt.Errorf("%d bytes of input in one message: at most %d", len(part.Stdin), api.MaxInput)
		case s.ahead+len(part.Stdin) > api.InputAhead:
			return s, fmt.Errorf("more than %d bytes of input that the command has not read", api.InputAhead)
		}
		s.ahead += len(part.Stdin)
	case *apiv1.ExecRequest_End:
		switch {
		case !part.End:
			return s, errors.New("end flag is false")
		case s.terminal:
			return s, errors.New("the input of a terminal cannot be ended")
		case s.ended:
			return s, errors.New("the input has ended already")
		}
		s.ended = true
	case *apiv1.ExecRequest_Size:
		if !s.terminal {
			return s, errors.New("a size for a command without a terminal")
		}
		_, err := sizeOf(part.Size)
		return s, err
	case *apiv1.ExecRequest_Signal:
		_, err := workload.ParseSignal(part.Signal)
		return s, err
	default:
		return s, errors.New("empty message")
	}
	return s, nil
}

func sizeOf(s *apiv1.TerminalSize) (engine.Size, error) {
	if w, h := s.GetWidth(), s.GetHeight(); w > math.MaxUint16 || h > math.MaxUint16 {
		return engine.Size{}, fmt.Errorf("a terminal of %d × %d characters is too large", w, h)
	}
	return engine.Size{Width: uint16(s.GetWidth()), Height: uint16(s.GetHeight())}, nil
}

// commandOf is what start asks for.
func commandOf(start *apiv1.ExecStart) (engine.Command, error) {
	c := engine.Command{Args: start.Command, Env: start.Env, User: start.User, WorkingDir: start.WorkingDir, Input: start.Stdin}
	size := len(start.User) + len(start.WorkingDir)
	for _, text := range append(append([]string{start.User, start.WorkingDir}, start.Command...), start.Env...) {
		if size += len(text) + 1; strings.ContainsRune(text, 0) {
			return c, fmt.Errorf("%.40q contains a zero byte", text)
		}
	}
	switch {
	case !workload.ValidID(start.Container):
		return c, fmt.Errorf("%.100q is not the name of a container", start.Container)
	case len(start.Command) == 0 || start.Command[0] == "":
		return c, errors.New("no command")
	case size > maxCommand:
		return c, fmt.Errorf("command and environment have %d bytes: at most %d", size, maxCommand)
	case start.WorkingDir != "" && !path.IsAbs(start.WorkingDir):
		return c, fmt.Errorf("working directory %q is not absolute", start.WorkingDir)
	}
	for _, e := range start.Env {
		if strings.IndexByte(e, '=') < 1 {
			return c, fmt.Errorf("environment %.40q is not NAME=value", e)
		}
	}
	if start.Terminal != nil {
		s, err := sizeOf(start.Terminal)
		if err != nil {
			return c, err
		}
		c.Terminal = &s
	}
	return c, nil
}

func (s *workloadService) Exec(ctx context.Context, stream *connect.BidiStream[apiv1.ExecRequest, apiv1.ExecResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	said, err := session{}.Step(first)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	command, err := commandOf(first.GetStart())
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	process, err := s.exec(ctx, first.GetStart(), command)
	if code := notStarted(err); code != 0 {
		return stream.Send(&apiv1.ExecResponse{Part: &apiv1.ExecResponse_End{End: &apiv1.ExecEnd{Code: code, Reason: err.Error()}}})
	}
	if err != nil {
		return err
	}
	t := &talk{stream: stream, process: process, said: said, more: make(chan struct{}, 1), out: make(chan *apiv1.ExecResponse)}
	return t.run(ctx)
}

// notStarted is what a shell would say of a command that could not be started; 0 for
// any other error, and for none.
func notStarted(err error) int32 {
	switch {
	case errors.Is(err, engine.ErrNoProgram):
		return 127
	case errors.Is(err, engine.ErrNotExecutable):
		return 126
	}
	return 0
}

// exec starts the command.
func (s *workloadService) exec(ctx context.Context, start *apiv1.ExecStart, command engine.Command) (*engine.Process, error) {
	keeper, err := known(s.containers)
	if err != nil {
		return nil, err
	}
	commands, err := known(s.commands)
	if err != nil {
		return nil, err
	}
	u, err := find(keeper, start.Container)
	if err != nil {
		return nil, err
	}
	start.Container = u.ID // for the events
	process, err := commands.Exec(ctx, u.Instance, command)
	switch {
	case errors.Is(err, engine.ErrNotRunning):
		state := strings.TrimSuffix(string(u.State)+", "+u.Reason, ", ")
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("container %s does not run: %s", u.ID, state))
	case errors.Is(err, engine.ErrTooMany):
		return nil, connect.NewError(connect.CodeResourceExhausted, err)
	case errors.Is(err, engine.ErrNoUser):
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && notStarted(err) == 0:
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return process, err
}

// talk is a session with a command that runs. One goroutine sends, one receives, one
// feeds the command, and one reads each of its outputs: a caller who is slow holds the
// command up and nothing else, and one whose command takes no input can still signal it.
type talk struct {
	stream  *connect.BidiStream[apiv1.ExecRequest, apiv1.ExecResponse]
	process *engine.Process
	out     chan *apiv1.ExecResponse
	more    chan struct{} // there is input, or its end

	mu    sync.Mutex // guards what follows
	said  session
	input []byte
}

// run lasts until the command ends, or ctx does and the command with it.
func (t *talk) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var beside, outputs sync.WaitGroup
	defer func() {
		cancel(nil)
		cut(ctx)
		t.process.Close()
		outputs.Wait()
		beside.Wait()
	}()
	if err := t.stream.Send(&apiv1.ExecResponse{Part: &apiv1.ExecResponse_Started{Started: true}}); err != nil {
		return err
	}
	beside.Go(func() { t.receive(ctx, cancel) })
	beside.Go(func() { t.feed(ctx) })
	outputs.Go(func() {
		t.pump(ctx, t.process.Stdout, func(b []byte) *apiv1.ExecResponse {
			return &apiv1.ExecResponse{Part: &apiv1.ExecResponse_Stdout{Stdout: b}}
		})
	})
	if t.process.Stderr != nil {
		outputs.Go(func() {
			t.pump(ctx, t.process.Stderr, func(b []byte) *apiv1.ExecResponse {
				return &apiv1.ExecResponse{Part: &apiv1.ExecResponse_Stderr{Stderr: b}}
			})
		})
	}
	read := make(chan struct{})
	beside.Go(func() {
		outputs.Wait()
		close(read)
	})
	ended := t.process.Ended()
	for read != nil || ended != nil {
		select {
		case m := <-t.out:
			if err := t.stream.Send(m); err != nil {
				return err
			}
		case <-read:
			read = nil
		case <-ended:
			ended = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	code, err := t.process.Wait()
	if err != nil {
		return connect.NewError(connect.CodeUnavailable, err)
	}
	return t.stream.Send(&apiv1.ExecResponse{Part: &apiv1.ExecResponse_End{End: &apiv1.ExecEnd{Code: int32(code)}}})
}

// cut ends what is still being received.
func cut(ctx context.Context) {
	if control := door.StreamControl(ctx); control != nil {
		_ = control.SetReadDeadline(time.Unix(1, 0))
	}
}

// send hands a message to the goroutine that sends; false: there is no more to send.
func (t *talk) send(ctx context.Context, m *apiv1.ExecResponse) bool {
	select {
	case t.out <- m:
		return true
	case <-ctx.Done():
		return false
	}
}

// pump sends an output. No more than one piece of it waits.
func (t *talk) pump(ctx context.Context, from io.Reader, message func([]byte) *apiv1.ExecResponse) {
	buffer := make([]byte, frameSize)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !t.send(ctx, message(bytes.Clone(buffer[:n]))) {
			return
		}
		if err != nil {
			return // its end; why is what Wait says
		}
	}
}

// receive does what the caller says. It never waits for the command.
func (t *talk) receive(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		m, err := t.stream.Receive()
		if errors.Is(err, io.EOF) { // no more from there, which ends the input too
			t.end()
			return
		}
		if err == nil {
			err = t.take(ctx, m)
		}
		if err != nil {
			cancel(err)
			return
		}
	}
}

func (t *talk) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.said.terminal {
		t.said.ended = true
	}
	t.wake()
}

func (t *talk) wake() {
	select {
	case t.more <- struct{}{}:
	default:
	}
}

// take carries out one message.
func (t *talk) take(ctx context.Context, m *apiv1.ExecRequest) error {
	t.mu.Lock()
	said, err := t.said.Step(m)
	if err == nil {
		t.said = said
		t.input = append(t.input, m.GetStdin()...)
		t.wake()
	}
	t.mu.Unlock()
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	switch part := m.Part.(type) {
	case *apiv1.ExecRequest_Size:
		size, _ := sizeOf(part.Size) // Step has looked at it, and at the signal
		err = t.process.Resize(ctx, size)
	case *apiv1.ExecRequest_Signal:
		number, _ := workload.ParseSignal(part.Signal)
		err = t.process.Signal(ctx, number)
	}
	select {
	case <-t.process.Ended():
		return nil // it came too late
	default:
		return err
	}
}

// feed gives the command its input, and says what it has taken.
func (t *talk) feed(ctx context.Context) {
	if t.process.Stdin == nil {
		return
	}
	for {
		select {
		case <-t.more:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		input, ended := t.input, t.said.ended
		t.input = nil
		t.mu.Unlock()
		_, err := t.process.Stdin.Write(input)
		if ended && err == nil {
			err = t.process.Stdin.Close()
		}
		if ended && err == nil {
			return
		}
		// Of a command that reads no more, its input is taken as into nowhere.
		t.mu.Lock()
		t.said.ahead -= len(input)
		t.mu.Unlock()
		if len(input) > 0 && !t.send(ctx, &apiv1.ExecResponse{Part: &apiv1.ExecResponse_Taken{Taken: uint32(len(input))}}) {
			return
		}
	}
}
