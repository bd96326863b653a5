package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/boards"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/qemu"
)

// shells are those that can complete, each with what writes its script.
var shells = map[string]func(*cobra.Command) error{
	"bash":       func(cmd *cobra.Command) error { return cmd.Root().GenBashCompletionV2(cmd.OutOrStdout(), true) },
	"zsh":        func(cmd *cobra.Command) error { return cmd.Root().GenZshCompletion(cmd.OutOrStdout()) },
	"fish":       func(cmd *cobra.Command) error { return cmd.Root().GenFishCompletion(cmd.OutOrStdout(), true) },
	"powershell": func(cmd *cobra.Command) error { return cmd.Root().GenPowerShellCompletionWithDesc(cmd.OutOrStdout()) },
}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that makes your shell complete commands",
		Long: `Prints a script that makes your shell complete commands, flags, and the names of fleets, nodes,
containers, projects and images. The node has a second to answer when such a name is completed.

Save the script where your shell looks for it, and start a new shell:

  bash         kogge completion bash > ~/.local/share/bash-completion/completions/kogge
               (needs the package bash-completion)
  zsh          kogge completion zsh > ~/.zfunc/_kogge
               and in ~/.zshrc: fpath+=~/.zfunc; autoload -U compinit; compinit
  fish         kogge completion fish > ~/.config/fish/completions/kogge.fish
  powershell   kogge completion powershell >> $PROFILE`,
		Example:   "  kogge completion bash > ~/.local/share/bash-completion/completions/kogge",
		Args:      exactly("SHELL"),
		ValidArgs: slices.Sorted(maps.Keys(shells)),
		RunE: func(cmd *cobra.Command, args []string) error {
			script, ok := shells[args[0]]
			if !ok {
				return usage{hinted{fmt.Errorf("completion: there is no script for %s", args[0]), cmd.UseLine()}}
			}
			return script(cmd)
		},
	}
}

// completeLimit bounds what a shell waits for a node.
const completeLimit = time.Second

// completeWith offers the names that a node answers with, for the first argument.
// Nobody reads errors in the middle of typing, so there are none.
func (t *target) completeWith(names func(context.Context, *api.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
		defer cancel()
		client, _, err := t.dial(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer client.Close()
		found, _ := names(ctx, client)
		// The shell prints them, and takes one into its line.
		found = slices.DeleteFunc(found, func(name string) bool { return clean(name) != name || strings.Contains(name, "\n") })
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

func containerNames(ctx context.Context, c *api.Client) ([]string, error) {
	answer, err := c.List(ctx, connect.NewRequest(&apiv1.ListRequest{}))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, one := range answer.Msg.Containers {
		names = append(names, cobra.CompletionWithDesc(one.Name, one.State+", "+one.Image))
	}
	return names, nil
}

func projectNames(ctx context.Context, c *api.Client) ([]string, error) {
	answer, err := c.ListProjects(ctx, connect.NewRequest(&apiv1.ListProjectsRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.Projects, nil
}

func imageNames(ctx context.Context, c *api.Client) ([]string, error) {
	answer, err := c.ListImages(ctx, connect.NewRequest(&apiv1.ListImagesRequest{}))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, one := range answer.Msg.Images {
		names = append(names, cobra.CompletionWithDesc(one.Name, iec(uint64(max(0, one.Size)))))
	}
	return names, nil
}

func volumeNames(ctx context.Context, c *api.Client) ([]string, error) {
	answer, err := c.ListVolumes(ctx, connect.NewRequest(&apiv1.ListVolumesRequest{}))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, one := range answer.Msg.Volumes {
		names = append(names, cobra.CompletionWithDesc(one.Name, iec(uint64(max(0, one.Size)))))
	}
	return names, nil
}

func serviceNames(ctx context.Context, c *api.Client) ([]string, error) {
	answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, one := range answer.Msg.Services {
		names = append(names, cobra.CompletionWithDesc(one.Name, one.State))
	}
	return names, nil
}

// completeNodes offers the nodes of the fleet for the first argument.
func (t *target) completeNodes(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return t.completeNodeFlag(cmd, args, toComplete)
}

func (t *target) completeNodeFlag(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ring, err := t.openFleet()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	nodes, _ := operate.Nodes(ring)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		names = append(names, cobra.CompletionWithDesc(name, nodes[name].Address))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeFleets offers the fleets for the first argument.
func completeFleets(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeFleetFlag(cmd, args, toComplete)
}

func completeFleetFlag(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	dir, err := configDir()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, _ := keyring.List(dir)
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeVMs offers the VMs for the first argument.
func completeVMs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	dir, err := vmDir("")
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := qemu.List(dir)
	var names []string
	for _, i := range all {
		state := "stopped"
		if i.Running {
			state = "running"
		}
		names = append(names, cobra.CompletionWithDesc(i.Name, state))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeBoards offers the boards for the first argument.
func completeBoards(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeBoardFlag(cmd, args, toComplete)
}

func completeBoardFlag(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, b := range boards.All {
		names = append(names, cobra.CompletionWithDesc(b.Name, b.Description))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeFlag has the shell complete the values of a flag.
func completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // no such flag: every test finds it
	}
}
