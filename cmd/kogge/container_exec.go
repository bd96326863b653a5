package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

// ourFault is the exit code of exec where not the command fails, but we do before it.
const ourFault = 125

func execCommand() *cobra.Command {
	var t target
	var input, terminal bool
	start := &apiv1.ExecStart{}
	cmd := &cobra.Command{
		Use:   "exec [-it] CONTAINER COMMAND [ARGUMENT...]",
		Short: "Run a command in a running container",
		Long: "Runs a command in a running container, beside the container's own process and with no more rights.\n\n" +
			"The exit code is that of the command; 125 if kogge fails first, 126 if the command cannot be run, 127 if the\n" +
			"container has no such command. The command ends when this program ends. On a terminal " +
			"its control characters are shown and not obeyed, but with -t.",
		Example: "  kogge exec -it web /bin/sh\n  kogge exec -u root -e LANG=C db psql -c 'select 1'", ValidArgsFunction: t.completeWith(containerNames),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return exited{ourFault, hinted{errors.New("exec: a container and a command are needed"), "kogge exec CONTAINER COMMAND [ARGUMENT...]"}}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			start.Container, start.Command, start.Stdin = args[0], args[1:], input
			start.Env = fromHere(start.Env)
			if terminal {
				start.Terminal = &apiv1.TerminalSize{}
			}
			return t.converse(cmd.Context(), start)
		},
	}
	t.nodeFlags(cmd)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return exited{ourFault, hinted{err, "kogge exec --help lists the flags"}}
	})
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the container is the command's
	flags.BoolVarP(&input, "interactive", "i", false, "pass standard input on to the command")
	flags.BoolVarP(&terminal, "tty", "t", false, "give the command a terminal")
	flags.StringVarP(&start.User, "user", "u", "", "`USER` to run it as: a name or number, and :GROUP (default: the container's)")
	flags.StringVarP(&start.WorkingDir, "workdir", "w", "", "`FOLDER` to run it in (default: the container's)")
	flags.StringArrayVarP(&start.Env, "env", "e", nil, "set `NAME=VALUE` in its environment; NAME alone takes the value from here")
	return cmd
}

// fromHere gives variables without a value that of this program's environment, and
// leaves out those that are not there.
func fromHere(env []string) []string {
	var all []string
	for _, e := range env {
		if !strings.Contains(e, "=") {
			value, ok := os.LookupEnv(e)
			if !ok {
				continue
			}
			e += "=" + value
		}
		all = append(all, e)
	}
	return all
}

// converse calls the node and runs the command.
func (t *target) converse(ctx context.Context, start *apiv1.ExecStart) error {
	remote, err := t.remote()
	if err != nil {
		return exited{ourFault, err}
	}
	err = remote.Call(ctx, func(ctx context.Context, c *api.Client) error {
		return t.execute(ctx, c, start)
	})
	if err != nil && !errors.As(err, new(exited)) {
		err = exited{ourFault, nodeError(t.node, overHint(t.node, err))}
	}
	return err
}

// execute runs the command. Signals, also that of Ctrl-C, are for the command once it
// runs.
func (t *target) execute(ctx context.Context, client *api.Client, start *apiv1.ExecStart) error {
	before, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	session := api.Session{Start: start, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if start.Terminal == nil { // else the command has this terminal for its own
		for _, w := range []*io.Writer{&session.Stdout, &session.Stderr} {
			if isTerminal(*w) != nil {
				h := &harmless{w: *w}
				*w = h
				defer h.flush()
			}
		}
	}
	restore := func() {}
	if start.Terminal != nil {
		var err error
		if restore, err = ownTerminal(&session); err != nil {
			return exited{ourFault, err}
		}
		defer restore()
	}
	defer takeSignals(&session, cancel)()
	end, err := client.ExecSession(before, session)
	restore() // before anything is said
	if err != nil {
		if cause := context.Cause(before); cause != nil {
			err = cause
		}
		return exited{ourFault, nodeError(t.node, overHint(t.node, err))}
	}
	if end.Reason != "" {
		return exited{int(end.Code), fmt.Errorf("container %s: %s", start.Container, end.Reason)}
	}
	if end.Code != 0 {
		return exited{code: int(end.Code)}
	}
	return nil
}

// ownTerminal prepares this program's terminal to be that of the command. The function
// it returns makes it again what it was.
func ownTerminal(s *api.Session) (restore func(), err error) {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if !term.IsTerminal(out) || s.Start.Stdin && !term.IsTerminal(in) {
		return nil, hinted{errors.New("exec -t: input and output are not a terminal"), "leave out -t when input or output is a file or a pipe"}
	}
	width, height, err := term.GetSize(out)
	if err != nil {
		return nil, fmt.Errorf("exec -t: size of the terminal: %w", err)
	}
	s.Start.Terminal.Width, s.Start.Terminal.Height = uint32(width), uint32(height)
	if !s.Start.Stdin {
		return func() {}, nil
	}
	var old *term.State
	s.Started = func() { // until then Ctrl-C is ours
		old, _ = term.MakeRaw(in)
	}
	return func() {
		if old != nil {
			_ = term.Restore(in, old)
			old = nil
		}
	}, nil
}

// takeSignals passes on signals to the command, and the size of the terminal; before
// the command runs a signal ends the call. The function it returns undoes that.
func takeSignals(s *api.Session, cancel context.CancelCauseFunc) func() {
	names := map[os.Signal]string{
		syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGQUIT: "QUIT", syscall.SIGHUP: "HUP",
		syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2",
	}
	came := make(chan os.Signal, 16)
	for sig := range names {
		signal.Notify(came, sig)
	}
	sizes, signals := make(chan *apiv1.TerminalSize, 1), make(chan string)
	if s.Start.Terminal != nil {
		signal.Notify(came, syscall.SIGWINCH)
	}
	running, over := make(chan struct{}), make(chan struct{})
	owned := s.Started
	s.Sizes, s.Signals = sizes, signals
	s.Started = func() {
		if owned != nil {
			owned()
		}
		close(running)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-over:
				return
			case sig := <-came:
				if sig == syscall.SIGWINCH {
					resized(sizes)
					continue
				}
				select {
				case <-running:
					select {
					case signals <- names[sig]:
					case <-over:
						return
					}
				default:
					cancel(fmt.Errorf("%s before the command ran", sig))
				}
			}
		}
	}()
	return func() {
		signal.Stop(came)
		close(over)
		<-done
	}
}

// resized leaves the newest size in sizes, which has room for one.
func resized(sizes chan *apiv1.TerminalSize) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return
	}
	select {
	case <-sizes:
	default:
	}
	sizes <- &apiv1.TerminalSize{Width: uint32(width), Height: uint32(height)}
}

// exited is the end of the program with an exit code, and with an error unless what was
// run has said all that there is to say.
type exited struct {
	code int
	why  error
}

func (e exited) Error() string {
	if e.why == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.why.Error()
}

func (e exited) Unwrap() error { return e.why }
