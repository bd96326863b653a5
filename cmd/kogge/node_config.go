package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/init/nodeconfig"
)

func nodeConfigCommand() *cobra.Command {
	return group("config", "Show and change a node's settings (node.yaml)",
		configGetCommand(), configSetCommand(), configEditCommand(), configConfirmCommand(), configUndoCommand())
}

// Where node.yaml stands, in the words of the API.
const (
	configKept  = "kept"
	configTried = "tried"
)

func configGetCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "get [NODE]", Short: "Print a node's present node.yaml", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node config get n1 > n1.yaml", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.GetConfig(ctx, connect.NewRequest(&apiv1.GetConfigRequest{}))
				if err != nil {
					return err
				}
				if s := answer.Msg.State; s.State != configKept {
					say("kogge: these network settings are undone in %s unless you confirm them: kogge node config confirm", seconds(s.UndoSeconds))
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { fmt.Fprint(data(w), answer.Msg.Text) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// configChange is what set and edit have in common.
type configChange struct {
	target    target
	check     bool
	noConfirm bool
	undo      time.Duration
	address   string
	base      string
}

func (f *configChange) register(cmd *cobra.Command) {
	f.target.nodeFlags(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.check, "check", false, "only check the text, and say what it would change")
	flags.BoolVar(&f.noConfirm, "no-confirm", false, "do not confirm new network settings; kogge node config confirm does")
	flags.DurationVar(&f.undo, "undo-after", 2*time.Minute, "undo new network settings after this `TIME` without confirmation, 10s to 1h")
	flags.StringVar(&f.address, "address", "", "`ADDRESS` of the node with the new settings (default: the old one)")
}

const configLong = `The node checks the text and accepts all of it or nothing. Services restart if they read
a setting that changed. Containers that did not change keep running.

The node tries new network settings for two minutes. kogge confirms them by reaching the
node over a new connection. If it cannot, the node returns to its old settings, as it
does after a power cut or reboot.`

func configSetCommand() *cobra.Command {
	var f configChange
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Replace a node's node.yaml", Args: exactly("FILE"),
		Long:    "Replaces a node's node.yaml with FILE, or with standard input if FILE is -.\n\n" + configLong,
		Example: "  kogge node config get n1 > n1.yaml\n  kogge node config set n1.yaml --node n1 --check\n  kogge node config set n1.yaml --node n1 --address 192.0.2.7",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readSettings(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return f.set(cmd, text)
		},
	}
	f.register(cmd)
	jsonFlag(cmd, &f.target.json)
	cmd.Flags().StringVar(&f.base, "base", "", "refuse unless the node still has this `REVISION` (kogge node config get --json shows it)")
	return cmd
}

// readSettings reads a node.yaml, which has to be one: what is wrong with it is known
// here as well as there.
func readSettings(ctx context.Context, name string) ([]byte, error) {
	text, err := readInput(ctx, name, nodeconfig.MaxSize)
	if err == nil {
		_, err = nodeconfig.Parse(filepath.Base(name), text)
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return text, nil
}

// set gives the text to the node, and confirms it over a new connection.
func (f *configChange) set(cmd *cobra.Command, text []byte) error {
	var state *apiv1.ConfigState
	var before *apiv1.StatusResponse
	err := f.target.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
		status, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
		if err != nil {
			return err
		}
		before = status.Msg
		answer, err := c.SetConfig(ctx, connect.NewRequest(&apiv1.SetConfigRequest{
			Text: string(text), Base: f.base, Check: f.check, UndoSeconds: int32(f.undo / time.Second),
		}))
		if err == nil {
			state = answer.Msg.State
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, w := range state.Warnings {
		say("warning: %s", w)
	}
	if state.State != configKept && !f.check && !f.noConfirm {
		say("kogge: node %s tries the new network settings; waiting for it to answer over a new connection", f.target.node)
		if state, err = f.confirm(cmd.Context(), state); err != nil {
			return nodeError(f.target.node, err)
		}
	}
	if state.State == configKept && !f.check && !f.noConfirm {
		if err := f.await(cmd.Context(), state.Restarts, before); err != nil {
			return nodeError(f.target.node, err)
		}
	}
	return f.target.print(cmd.OutOrStdout(), state, func(w io.Writer) { f.tell(w, state) })
}

// restartLimit is for services that take their time to stop.
const restartLimit = 2 * time.Minute

// await waits until the services have restarted, so that the node answers as it
// will. before is how it was.
func (f *configChange) await(ctx context.Context, services []string, before *apiv1.StatusResponse) error {
	ctx, cancel := context.WithTimeout(ctx, restartLimit)
	defer cancel()
	for {
		now, err := f.status(ctx)
		if err == nil && restarted(services, before, now) {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("the settings are kept, but not all of these services have restarted: %s", strings.Join(services, ", "))
			}
			return hinted{err, "kogge node services"}
		case <-time.After(confirmPause):
		}
	}
}

// status asks over a new connection: the old one ends with the agent.
func (f *configChange) status(ctx context.Context) (*apiv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTry)
	defer cancel()
	c, err := f.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// restarted says whether each of the services has started since before. The agent
// answers before all containers run, and that is soon enough.
func restarted(services []string, before, now *apiv1.StatusResponse) bool {
	starts := func(s *apiv1.StatusResponse, name string) (int32, string) {
		for _, one := range s.Services {
			if one.Name == name {
				return one.Starts, one.State
			}
		}
		return 0, ""
	}
	for _, name := range services {
		was, _ := starts(before, name)
		if is, state := starts(now, name); is <= was || state != "running" && name != "agent" {
			return false
		}
	}
	return true
}

// tell says for people what became of the text.
func (f *configChange) tell(w io.Writer, s *apiv1.ConfigState) {
	node := f.target.node
	services := "no service restarts"
	if len(s.Restarts) > 0 {
		services = "restarting: " + strings.Join(s.Restarts, ", ")
	}
	switch {
	case f.check && s.State == configKept:
		fmt.Fprintf(w, "node %s would keep these settings at once; %s\n", node, services)
	case f.check:
		fmt.Fprintf(w, "node %s would undo the new network settings after %s unless you confirm them; %s\n", node, f.undo, services)
	case s.State != configKept:
		fmt.Fprintf(w, "node %s undoes the new network settings in %s unless you confirm them: kogge node config confirm; %s\n", node, seconds(s.UndoSeconds), services)
	case f.noConfirm:
		fmt.Fprintf(w, "node %s keeps these settings; %s\n", node, services)
	default:
		fmt.Fprintf(w, "node %s keeps these settings; %s\n", node, strings.Replace(services, "restarting: ", "restarted: ", 1))
	}
}

// confirmPause is between two tries to reach the node, confirmTry the limit of one.
const (
	confirmPause = 500 * time.Millisecond
	confirmTry   = 10 * time.Second
)

// confirm tells the node over a new connection that it can be reached, once its
// network service runs with the settings in question.
func (f *configChange) confirm(ctx context.Context, asked *apiv1.ConfigState) (*apiv1.ConfigState, error) {
	// Beyond the time to confirm, to hear that the node has undone it.
	ctx, cancel := context.WithTimeout(ctx, seconds(asked.UndoSeconds)+30*time.Second)
	defer cancel()
	for {
		state, err := f.tryConfirm(ctx, asked.Running)
		switch {
		case err == nil && state.State == configKept && state.Kept == asked.Running:
			state.Restarts = asked.Restarts
			return state, f.remember()
		case err == nil && state.State == configKept:
			return nil, errors.New(state.Last)
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("the network service does not start")
			}
			return nil, hinted{fmt.Errorf("not confirmed within %s: %w", seconds(asked.UndoSeconds), err),
				"the node returns to its old settings; if its address changes, add: --address ADDRESS"}
		case <-time.After(confirmPause):
		}
	}
}

func (f *configChange) tryConfirm(ctx context.Context, revision string) (*apiv1.ConfigState, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTry)
	defer cancel()
	c, err := f.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	now, err := c.GetConfig(ctx, connect.NewRequest(&apiv1.GetConfigRequest{}))
	if err != nil {
		return nil, err
	}
	if now.Msg.State.State != configTried {
		return now.Msg.State, nil
	}
	kept, err := c.ConfirmConfig(ctx, connect.NewRequest(&apiv1.ConfirmConfigRequest{Revision: revision}))
	if err != nil {
		return nil, err
	}
	return kept.Msg.State, nil
}

// dial makes a client for the address that the node has with the new settings.
func (f *configChange) dial(ctx context.Context) (*api.Client, error) {
	if f.address == "" {
		c, _, err := f.target.dial(ctx)
		return c, err
	}
	ring, err := f.target.openFleet()
	if err != nil {
		return nil, err
	}
	return operate.Dial(ctx, ring, withPort(f.address), f.target.node)
}

// remember notes the node's new address.
func (f *configChange) remember() error {
	if f.address == "" {
		return nil
	}
	ring, err := f.target.openFleet()
	if err != nil {
		return err
	}
	return operate.ChangeNodes(ring, func(nodes map[string]operate.Node) {
		known := nodes[f.target.node]
		known.Address = withPort(f.address)
		nodes[f.target.node] = known
	})
}

func configEditCommand() *cobra.Command {
	var f configChange
	cmd := &cobra.Command{
		Use: "edit [NODE]", Short: "Edit a node's node.yaml", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node config edit n1\n  EDITOR=nano kogge node config edit n1", ValidArgsFunction: f.target.completeNodes,
		Long: "Opens a node's node.yaml in VISUAL or EDITOR (else vi), and sends it back to the node\nwhen the editor ends.\n\n" + configLong,
		RunE: func(cmd *cobra.Command, args []string) error {
			var before []byte
			err := f.target.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.GetConfig(ctx, connect.NewRequest(&apiv1.GetConfigRequest{}))
				if err == nil {
					before, f.base = []byte(answer.Msg.Text), answer.Msg.State.Running
				}
				return err
			})
			if err != nil {
				return err
			}
			return f.edit(cmd, before)
		},
	}
	f.register(cmd)
	return cmd
}

// edit has the user change the text. What he wrote is kept where the node, or the
// parser, refuses it.
func (f *configChange) edit(cmd *cobra.Command, before []byte) error {
	dir, err := os.MkdirTemp("", "kogge-edit-") // for the user alone: the text may have secrets
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(file, before, 0o600); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	command := append(strings.Fields(editor()), file)
	run := exec.Command(command[0], command[1:]...)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, os.Stderr
	theirs := make(chan os.Signal, 1)
	signal.Notify(theirs, os.Interrupt) // Ctrl-C is the editor's while that runs
	err = run.Run()
	signal.Stop(theirs)
	if err != nil {
		return hinted{fmt.Errorf("config edit: %s: %w", command[0], err), "your text is in " + file}
	}
	if len(theirs) > 0 {
		ctx, stop := untilSignal(context.WithoutCancel(cmd.Context()))
		defer stop()
		cmd.SetContext(ctx)
	}
	after, err := readSettings(cmd.Context(), file)
	if err == nil && bytes.Equal(before, after) {
		say("kogge: nothing changed")
		return os.RemoveAll(dir)
	}
	if err == nil {
		err = f.set(cmd, after)
	}
	if err != nil {
		return hinted{err, "your text is in " + file + ": kogge node config set " + file + " --node " + f.target.node}
	}
	return os.RemoveAll(dir)
}

// editor is the command that the user edits with.
func editor() string {
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if command := os.Getenv(name); strings.TrimSpace(command) != "" {
			return command
		}
	}
	return "vi"
}

func configConfirmCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "confirm [NODE]", Short: "Confirm the network settings that a node is trying", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node config confirm n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ConfirmConfig(ctx, connect.NewRequest(&apiv1.ConfirmConfigRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg.State, func(w io.Writer) { fmt.Fprintf(w, "node %s keeps the new network settings\n", t.node) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func configUndoCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "undo [NODE]", Short: "Undo the network settings that a node is trying", Args: cobra.MaximumNArgs(1),
		Example: "  kogge node config undo n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.UndoConfig(ctx, connect.NewRequest(&apiv1.UndoConfigRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg.State, func(w io.Writer) { fmt.Fprintf(w, "node %s returns to its old network settings\n", t.node) })
			})
		},
	}
	t.register(cmd)
	return cmd
}
