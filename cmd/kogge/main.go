// Command kogge is the one command line of Kogge: it builds images, writes them
// to media and runs them in QEMU, and it operates fleets of nodes. A file here holds each
// verb and is named NOUN_VERB.go, for what people say less of too: kogge ps is
// container_ps.go. NOUN.go has what the verbs of a noun share; events.go and top.go have
// the same verb for two of them. The work is done in the packages beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/agent/api/kogge/v1"
)

func main() {
	ctx, stop := untilSignal(context.Background())
	defer stop()
	root, out := rootCommand(), standardOutput()
	root.SetOut(out)
	if err := out.end(root.ExecuteContext(ctx)); err != nil {
		if e := new(exited); !errors.As(err, e) || e.why != nil {
			report(err)
		}
		stop()
		os.Exit(exitCode(err))
	}
}

// rootCommand is the whole command line, in the order in which kogge help shows it.
func rootCommand() *cobra.Command {
	root := group("kogge", "Build images, run them, and operate fleets of nodes")
	root.Long = "Kogge builds images, runs them in virtual machines or writes them to media, adopts the machines that boot " +
		"from them into a fleet, and gives them work. kogge help first-steps shows the whole way once."
	help := helpCommand()
	root.SetHelpCommand(help)
	section(root, "First steps", help, completionCommand(), versionCommand())
	section(root, "Nodes", nodeCommand())
	section(root, "Work", applyCommand(), projectsCommand(), removeCommand(), psCommand(), logsCommand(), eventsCommand(), topCommand(), execCommand(),
		runCommand("start", apiv1.Action_ACTION_START), runCommand("stop", apiv1.Action_ACTION_STOP), runCommand("restart", apiv1.Action_ACTION_RESTART))
	section(root, "Images and media", imagesCommand(), registryCommand(), volumesCommand(), imageCommand(), boardsCommand())
	section(root, "Releases", releaseCommand())
	section(root, "Fleet and operators", fleetCommand(), voteCommand(), ledgerCommand(), operatorCommand())
	section(root, "Virtual machines", vmCommand())
	root.AddCommand(pages()...)
	root.CompletionOptions.DisableDefaultCmd = true // ours tells where the script goes
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage{hinted{err, cmd.CommandPath() + " --help lists the flags"}}
	})
	teach(root)
	checkUsage(root)
	tame(root)
	return root
}

// checkUsage has every command say that its arguments are wrong before it begins.
func checkUsage(cmd *cobra.Command) {
	if check := cmd.Args; cmd.Runnable() && check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := cmd.ValidateFlagGroups()
			if err == nil {
				err = check(cmd, args)
			}
			switch {
			case err == nil:
				return nil
			case errors.As(err, new(hinted)):
				return usage{err}
			}
			return usage{hinted{err, cmd.UseLine()}}
		}
	}
	for _, below := range cmd.Commands() {
		checkUsage(below)
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
			return hinted{err, cmd.CommandPath() + " --help lists the commands"}
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
	for i, line := range strings.Split(err.Error(), "\n") {
		line = cut(line, maxErrorLine)
		switch {
		case i == 0:
			line = "kogge: " + line
		case strings.HasPrefix(line, "kogge:"):
			line = "  " + line // it is not ours, and shall not look so
		}
		say("%s", line)
	}
	var h hinted
	if errors.As(err, &h) {
		for line := range strings.Lines(h.hint) {
			say("kogge: hint: %s", strings.TrimSuffix(line, "\n"))
		}
	}
}

// exitCode is what the program ends with; kogge help exit-codes tells of it.
func exitCode(err error) int {
	if e := new(exited); errors.As(err, e) {
		return e.code
	}
	if errors.As(err, new(usage)) {
		return 2
	}
	return 1
}

// usage is an error in the command line itself: nothing was done.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// hinted is an error with advice. Only the command line knows hints.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// say prints one line of progress.
func say(format string, args ...any) {
	fmt.Fprintf(errorOutput(), format+"\n", args...)
}
