package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

func vmStopCommand() *cobra.Command {
	var kill bool
	cmd := &cobra.Command{
		Use: "stop NAME", Short: "Shut a VM down", Args: exactly("NAME"),
		Example: "  kogge vm stop n2\n  kogge vm stop n2 --kill", ValidArgsFunction: completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			vm, err := attach(args[0])
			if err != nil {
				return err
			}
			defer vm.Close()
			if kill {
				return vm.Kill()
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Minute)
			defer cancel()
			return vm.Stop(ctx)
		},
	}
	cmd.Flags().BoolVar(&kill, "kill", false, "cut the power instead")
	return cmd
}
