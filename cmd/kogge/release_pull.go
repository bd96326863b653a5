package main

import (
	"fmt"

	"github.com/spf13/cobra"

	layout "kogge.example/update/release"
)

func releasePullCommand() *cobra.Command {
	var ca, out string
	cmd := &cobra.Command{
		Use: "pull REF -o RELEASE", Short: "Get a release from a registry", Args: exactly("REF"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Gets a release from a registry, into a folder, or a tar if the name ends in .tar: for a stick, or for a node\n" +
			"that reaches no registry. Signatures are not checked here; kogge release verify and every node check them.",
		Example: "  kogge release pull registry.example/os:1.1 -o 1.1.tar",
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usage{hinted{fmt.Errorf("release pull: no output"), "add: -o 1.1.oci"}}
			}
			if err := checkRelease(cmd.Context(), out); err != nil {
				return fmt.Errorf("release pull: output: %w", err)
			}
			r, err := openRegistry(cmd.Context(), args[0], ca)
			if err != nil {
				return fmt.Errorf("release pull: %w", err)
			}
			b, err := layout.Read(cmd.Context(), r)
			if err != nil {
				return releaseHint(fmt.Errorf("release pull: %w", err))
			}
			if err := b.Write(cmd.Context(), out); err != nil {
				return fmt.Errorf("release pull: %s: %w", out, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is release %s.\n", out, b.Facts()[0].Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&ca, "ca", "", "`FILE` with the certificate of the registry's CA")
	cmd.Flags().StringVarP(&out, "output", "o", "", "folder to write, or tar if its name ends in .tar")
	return cmd
}
