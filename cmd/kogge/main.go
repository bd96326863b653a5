// Command kogge is the one command line of Kogge: it builds images, writes them
// to media and runs them in QEMU. A file here holds each verb; the work is done in
// the packages beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"kogge.example/agent/api/kogge/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := group("kogge", "Build, write and run Kogge images", applyCommand(), boardsCommand(), fleetCommand(), imageCommand(), vmCommand(),
		nodeCommand(), operatorCommand(), imagesCommand(), registryCommand(), psCommand(), logsCommand(), projectsCommand(), removeCommand(),
		runCommand("start", apiv1.Action_ACTION_START), runCommand("stop", apiv1.Action_ACTION_STOP), runCommand("restart", apiv1.Action_ACTION_RESTART))
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hinted{err, cmd.CommandPath() + " --help lists the flags"}
	})
	if err := root.ExecuteContext(ctx); err != nil {
		report(err)
		stop()
		os.Exit(1)
	}
}

// group is a command that only has others below it. Alone it shows them.
func group(name, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0])
			return hinted{err, cmd.CommandPath() + " --help lists what there is"}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(below...)
	return cmd
}

// exactly wants one argument for each of the names, and says which is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return hinted{fmt.Errorf("%s: %s is missing", cmd.CommandPath(), names[len(args)]), cmd.UseLine()}
		case len(args) > len(names):
			return hinted{fmt.Errorf("%s: %q is one argument too many", cmd.CommandPath(), args[len(names)]), cmd.UseLine()}
		}
		return nil
	}
}

// report prints an error for the operator, with a hint where there is one.
func report(err error) {
	fmt.Fprintf(os.Stderr, "kogge: %v\n", err)
	var h hinted
	if errors.As(err, &h) {
		fmt.Fprintf(os.Stderr, "kogge: hint: %s\n", h.hint)
	}
}

// hinted is an error with advice. Only the command line knows hints.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }
