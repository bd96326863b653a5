package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kogge.example/qemu"
)

func vmStartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "start NAME", Short: "Boot a VM again, with the disk that it has", Args: exactly("NAME"),
		Long: "Boots a VM again that was stopped, as it was started: with its disk, its memory and its ports. It runs in the\n" +
			"background. One of kogge vm fleet is shut down with the others.",
		Example: "  kogge vm stop n3 --kill\n  kogge vm start n3", ValidArgsFunction: completeVMs,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := vmDir(args[0])
			if err != nil {
				return err
			}
			m, err := qemu.Again(dir)
			if err != nil {
				return vmHint(err, args[0])
			}
			m.Join, m.Detached = "", true // its disk knows its fleet
			vm, err := qemu.Start(context.WithoutCancel(cmd.Context()), m, dir)
			if err != nil {
				return vmHint(err, args[0])
			}
			defer vm.Close()
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s boots; kogge vm console %s shows it, kogge vm stop %s ends it\n", args[0], args[0], args[0])
			return err
		},
	}
}
