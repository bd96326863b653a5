package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kogge.example/agent/confine"
)

// Command is what somebody wants to run inside a running container.
type Command struct {
	Args       []string
	Env        []string // NAME=value, over the container's
	User       string   // as of [workload.Container]; "": the container's
	WorkingDir string   // absolute; "": the container's
	// Input says that it gets one; without, it reads an end at once.
	Input bool
	// Terminal is the size of the terminal that it gets; nil: none.
	Terminal *Size
}

// Size is that of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// Limits of the commands inside containers: each costs its shim and this process three
// pipes.
const (
	MaxExecs      = 64
	MaxExecsOfOne = 16 // container
)

const (
	hangupGrace = time.Second      // from SIGHUP to SIGKILL
	awayLimit   = 20 * time.Second // for one try to take a command away
	awayTries   = time.Minute      // for all of them
	closeLimit  = 5 * time.Second  // for all commands, when the agent stops
)

// What keeps a command from running.
var (
	ErrNotRunning    = errors.New("it does not run")
	ErrTooMany       = fmt.Errorf("too many commands are running: at most %d in one container and %d on a node", MaxExecsOfOne, MaxExecs)
	ErrNoUser        = errors.New("in the container") // there is no such user
	ErrNoProgram     = errors.New("no such program")
	ErrNotExecutable = errors.New("cannot be run") // though it is there
	errStopping      = errors.New("the node's agent is stopping")
)

// Process is a command that runs inside a container:
//
//	running ─it ends─▶ ended ─Close─▶ gone
//	   └─ctx, Close, Engine.Close─▶ SIGHUP ─1 s─▶ SIGKILL, with its whole session ─▶ gone
//
// Whoever has one reads its outputs to their end and then calls Close. A reader that is
// slow holds the command up, as a pipe does, and nothing else.
type Process struct {
	Stdin  io.WriteCloser // nil without Input
	Stdout io.Reader
	Stderr io.Reader // nil for a terminal: there is one output

	engine        *Engine
	instance      string
	process       client.Process
	pipes         *pipes
	ended, closed chan struct{} // when code and err are there, and by Close
	code          int
	err           error
	gone          chan struct{}
	close         func() // ends what is left of it
}

// execs are the commands that run.
type execs struct {
	mu      sync.Mutex // guards what follows
	of      map[string]int
	all     int
	stopped bool
	running sync.WaitGroup

	stop chan struct{} // closed with stopped
}

func newExecs() *execs { return &execs{of: make(map[string]int), stop: make(chan struct{})} }

// enter counts one more in an instance, until leave.
func (x *execs) enter(instance string) (leave func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.stopped:
		return nil, errStopping
	case x.of[instance] >= MaxExecsOfOne, x.all >= MaxExecs:
		return nil, ErrTooMany
	}
	x.of[instance]++
	x.all++
	x.running.Add(1)
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.all--
		if x.of[instance]--; x.of[instance] == 0 {
			delete(x.of, instance)
		}
		x.running.Done()
	}, nil
}

// end ends all of them and lets none come.
func (x *execs) end() {
	x.mu.Lock()
	if !x.stopped {
		x.stopped = true
		close(x.stop)
	}
	x.mu.Unlock()
	over := make(chan struct{})
	go func() {
		defer close(over)
		x.running.Wait()
	}()
	select {
	case <-over:
	case <-time.After(closeLimit): // the next agent takes away what is left
	}
}

// Exec runs a command in the running instance of a container, as its first process may
// and never more: capabilities, seccomp, limits and namespaces are the container's. It
// ends with ctx at the latest. The error wraps one of those above where one fits.
func (e *Engine) Exec(ctx context.Context, instance string, c Command) (*Process, error) {
	leave, err := e.execs.enter(instance)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(e.context(ctx))
	p, exit, err := e.exec(ctx, instance, c)
	if err != nil {
		cancel()
		leave()
		return nil, err
	}
	p.close = sync.OnceFunc(func() {
		close(p.closed)
		cancel()
	})
	go func() {
		defer leave()
		p.attend(ctx, exit)
	}()
	return p, nil
}

// exec starts the command; when it fails, none runs.
func (e *Engine) exec(ctx context.Context, instance string, c Command) (*Process, <-chan client.ExitStatus, error) {
	limited, cancel := context.WithTimeout(ctx, testStart)
	defer cancel()
	task, spec, err := e.process(limited, instance, c)
	if err != nil {
		return nil, nil, err
	}
	if program, missing := confine.Unmet(task.Pid(), c.Args, spec); len(missing) > 0 {
		return nil, nil, fmt.Errorf("%w: %s: %s", ErrNotExecutable, program, confine.Lacking(missing))
	}
	done, err := e.turns.take(limited, instance)
	if err != nil {
		return nil, nil, fmt.Errorf("health checks and other commands are starting in it: %w", err)
	}
	defer done()
	name := strings.ToLower(rand.Text()[:12])
	pipes, err := makePipes(filepath.Join(e.paths.Files, instance, execFolder, name), c.Input, c.Terminal != nil)
	if err != nil {
		return nil, nil, fmt.Errorf("pipes of a command in %s: %w", instance, err)
	}
	p := &Process{
		engine: e, instance: instance, pipes: pipes, ended: make(chan struct{}), closed: make(chan struct{}), gone: make(chan struct{}),
	}
	var exit <-chan client.ExitStatus
	p.process, err = task.Exec(limited, name, spec.Process, func(string) (cio.IO, error) { return pipes, nil })
	if err == nil {
		// Its end has to be seen when that of ctx has come.
		exit, err = p.process.Wait(context.WithoutCancel(ctx))
	}
	if err == nil {
		err = start(ctx, p.process)
	}
	pipes.release()
	if err == nil {
		err = pipes.awaitReader(limited)
	}
	if err != nil {
		p.takeAway(ctx, true, awayLimit)
		return nil, nil, startError(err)
	}
	p.Stdout = &outlet{file: pipes.stdout, ended: p.ended}
	if pipes.stderr != nil {
		p.Stderr = &outlet{file: pipes.stderr, ended: p.ended}
	}
	if pipes.stdin != nil {
		p.Stdin = &inlet{pipes.stdin, p, c.Terminal != nil}
	}
	return p, exit, nil
}

// start starts a process, to the end of that even when ctx ends meanwhile: of one that
// is given up half started nobody knows the number, by which what it starts is found.
func start(ctx context.Context, process client.Process) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), testStart)
	defer cancel()
	return process.Start(limited)
}

// process is the container's own specification, with what c says in place of its process.
func (e *Engine) process(ctx context.Context, instance string, c Command) (client.Task, *oci.Spec, error) {
	container, err := e.client.LoadContainer(ctx, instance)
	if errdefs.IsNotFound(err) {
		return nil, nil, fmt.Errorf("container %s: %w", instance, ErrNotRunning)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("container %s: %w", instance, err)
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil, nil, fmt.Errorf("container %s: %w", instance, ErrNotRunning)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("task of %s: %w", instance, err)
	}
	status, err := task.Status(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("task of %s: %w", instance, err)
	}
	if status.Status != client.Running {
		return nil, nil, fmt.Errorf("container %s: %w", instance, ErrNotRunning)
	}
	info, err := container.Info(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("container %s: %w", instance, err)
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("container %s: spec: %w", instance, err)
	}
	if c.User != "" {
		if err := changeUser(spec, task.Pid(), c.User); err != nil {
			return nil, nil, err
		}
	}
	if c.Terminal != nil && !slices.ContainsFunc(spec.Process.Env, func(s string) bool { return strings.HasPrefix(s, "TERM=") }) {
		spec.Process.Env = append(spec.Process.Env, "TERM=xterm")
	}
	if err := oci.WithEnv(c.Env)(ctx, e.client, &info, spec); err != nil {
		return nil, nil, fmt.Errorf("environment: %w", err)
	}
	process := spec.Process
	if c.WorkingDir != "" {
		process.Cwd = c.WorkingDir
	}
	process.Args, process.Terminal, process.ConsoleSize = c.Args, c.Terminal != nil, nil
	if c.Terminal != nil {
		process.ConsoleSize = &specs.Box{Width: uint(c.Terminal.Width), Height: uint(c.Terminal.Height)}
	}
	return task, spec, nil
}

// startError finds out of runc's words why it did not start the command.
func startError(err error) error {
	_, text, ok := strings.Cut(err.Error(), "OCI runtime exec failed: ")
	if !ok {
		return err
	}
	if _, inner, ok := strings.Cut(text, "unable to start container process: "); ok {
		text = inner
	}
	kind := ErrNotExecutable
	switch {
	case strings.Contains(text, "stopped container"), strings.Contains(text, "container does not exist"):
		return ErrNotRunning
	case strings.HasPrefix(text, "exec: ") && (strings.Contains(text, "file not found") || strings.Contains(text, "no such file")):
		kind = ErrNoProgram
	}
	return fmt.Errorf("%w: %s", kind, strings.TrimPrefix(text, "exec: "))
}

// Wait returns the exit code once the command has ended: 128 and the number of a signal.
func (p *Process) Wait() (int, error) {
	<-p.ended
	return p.code, p.err
}

// Ended is closed when Wait would return.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Run runs a command inside a running container, without input and with no regard for
// its output, until it ends or ctx does, and returns its exit code.
func (e *Engine) Run(ctx context.Context, instance string, command []string) (exit int, err error) {
	p, err := e.Exec(ctx, instance, Command{Args: command})
	if err != nil {
		return 0, err
	}
	// It may write what it likes, but somebody has to read it.
	var heard sync.WaitGroup
	defer heard.Wait()
	defer p.Close()
	for _, r := range []io.Reader{p.Stdout, p.Stderr} {
		heard.Go(func() { _, _ = io.Copy(io.Discard, r) })
	}
	select {
	case <-p.Ended():
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return p.Wait()
}

// Close ends the command if it runs. When it returns, nothing is left of it, or there
// is a line in the log.
func (p *Process) Close() {
	p.close()
	<-p.gone
}

// Resize changes the size of its terminal.
func (p *Process) Resize(ctx context.Context, s Size) error {
	return p.process.Resize(p.engine.context(ctx), uint32(s.Width), uint32(s.Height))
}

// Signal sends it a signal. One that has ended gets none, which is no error.
func (p *Process) Signal(ctx context.Context, s syscall.Signal) error {
	err := p.process.Kill(p.engine.context(ctx), s)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// attend waits for the end of the command, or brings it about, and takes it away.
func (p *Process) attend(ctx context.Context, exit <-chan client.ExitStatus) {
	defer close(p.gone)
	select {
	case status := <-exit:
		p.note(status)
	case <-ctx.Done():
		p.err = context.Cause(ctx)
	case <-p.engine.execs.stop:
		p.err = errStopping
	}
	kill := !p.hasEnded() || p.err != nil
	if kill {
		p.hangUp(ctx, exit)
	} else {
		p.pipes.quiet()
		select {
		case <-p.closed:
		case <-ctx.Done():
		case <-p.engine.execs.stop:
		}
	}
	p.takeAway(ctx, kill, awayTries)
	if p.hasEnded() {
		return
	}
	select {
	case status := <-exit:
		p.note(status)
	case <-time.After(hangupGrace): // containerd is away
		p.note(client.ExitStatus{})
	}
}

// note takes down how it ended.
func (p *Process) note(status client.ExitStatus) {
	p.code = int(status.ExitCode())
	if err := status.Error(); err != nil && p.err == nil {
		p.err = fmt.Errorf("lost contact with the command: %w", err)
	}
	close(p.ended)
}

func (p *Process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// hangUp tells the command that its caller is gone, and gives it a moment.
func (p *Process) hangUp(ctx context.Context, exit <-chan client.ExitStatus) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangupGrace)
	defer cancel()
	if p.hasEnded() || p.Signal(ctx, syscall.SIGHUP) != nil {
		return // killing it comes next
	}
	select {
	case status := <-exit:
		p.note(status)
	case <-ctx.Done():
	}
}

// takeAway leaves nothing of the command, and with kill of what it started; while
// containerd is away it goes on trying until limit.
func (p *Process) takeAway(ctx context.Context, kill bool, limit time.Duration) {
	p.pipes.release()
	drained := p.pipes.drain()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	leader := 0
	if kill && p.process != nil {
		if leader = int(p.process.Pid()); leader == 0 {
			leader = unknown // its start was given up, which is not to say that there was none
		}
	}
	for {
		err := p.engine.takeExecAway(ctx, p.instance, filepath.Base(p.pipes.folder), &leader)
		if err == nil {
			drained()
			if err := os.RemoveAll(p.pipes.folder); err != nil {
				log.Printf("container %s: command: %v", p.instance, err)
			}
			return
		}
		select {
		case <-p.engine.execs.stop:
		case <-ctx.Done():
		case <-time.After(retryPause):
			continue
		}
		p.pipes.close()
		log.Printf("container %s: a command in it is still running, the agent ends it at its next start: %v", p.instance, err)
		return
	}
}

// retryPause is the pause before containerd is asked again.
const retryPause = 500 * time.Millisecond

// unknown is the process of a command that somebody else may know.
const unknown = -1

// takeExecAway kills the command called name in an instance, if it runs, and
// deletes it. None there is no error. With leader, its process, what the command started
// goes too; of one that is [unknown] it finds out and remembers it, as the command may be
// gone when this is tried again.
func (e *Engine) takeExecAway(ctx context.Context, instance, name string, leader *int) error {
	ctx, cancel := context.WithTimeout(ctx, awayLimit)
	defer cancel()
	task, err := e.task(ctx, instance)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if *leader == unknown {
		found, err := leaderOf(ctx, task, name)
		if err != nil {
			return err
		}
		*leader = found
	}
	process, err := task.LoadProcess(ctx, name, nil)
	if err == nil {
		_ = process.CloseIO(ctx, client.WithStdinCloser) // of a terminal containerd leaves it open
		err = forget(ctx, task, name)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if *leader > 0 {
		return endSession(*leader, filepath.Join(e.paths.Cgroup, instance))
	}
	return nil
}

// leaderOf returns the process of a command, or 0 if it does not run.
func leaderOf(ctx context.Context, task client.Task, name string) (int, error) {
	all, err := task.Pids(ctx)
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("processes of %s: %w", task.ID(), err)
	}
	for _, one := range all {
		var details options.ProcessDetails
		if one.Info != nil && typeurl.UnmarshalTo(one.Info, &details) == nil && details.ExecID == name {
			return int(one.Pid), nil
		}
	}
	return 0, nil
}

// EndExecs takes away the commands that an agent before this one left running.
func (e *Engine) EndExecs(ctx context.Context) error {
	ctx = e.context(ctx)
	folders, err := filepath.Glob(filepath.Join(e.paths.Files, "*", execFolder, "*"))
	if err != nil {
		return fmt.Errorf("commands in containers: %w", err)
	}
	var failed []error
	for _, folder := range folders {
		instance := filepath.Base(filepath.Dir(filepath.Dir(folder)))
		drained, leader := findPipes(folder).drain(), unknown
		err := e.takeExecAway(ctx, instance, filepath.Base(folder), &leader)
		drained()
		if err == nil {
			err = os.RemoveAll(folder)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("command in container %s: %w", instance, err))
		}
	}
	return errors.Join(failed...)
}
