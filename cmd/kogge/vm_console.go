package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func vmConsoleCommand() *cobra.Command {
	var followFlag bool
	cmd := &cobra.Command{
		Use: "console NAME", Short: "Show the console of a VM", Args: exactly("NAME"),
		Example: "  kogge vm console -f n2", ValidArgsFunction: completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, err := attach(args[0])
			if err != nil {
				return err
			}
			defer vm.Close()
			if followFlag {
				copyConsole(cmd.Context(), vm, cmd.OutOrStdout())
				return nil
			}
			lines, err := vm.Console().Lines()
			for _, l := range lines {
				fmt.Fprintln(cmd.OutOrStdout(), l)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&followFlag, "follow", "f", false, "keep printing until the VM ends")
	return cmd
}
