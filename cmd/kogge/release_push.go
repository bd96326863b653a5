package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"kogge.example/update/release/remote"
)

// openRegistry names a place in a registry, with a CA from a file if there is one.
func openRegistry(ctx context.Context, reference, caFile string) (*remote.Registry, error) {
	var ca []byte
	if caFile != "" {
		var err error
		if ca, err = readInput(ctx, caFile, maxInput); err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
	}
	r, err := remote.Open(reference, ca)
	if err != nil {
		return nil, hinted{err, "write it as HOST/NAME:TAG, like registry.example/os:1.1"}
	}
	return r, nil
}

func releasePushCommand() *cobra.Command {
	var ca string
	cmd := &cobra.Command{
		Use: "push RELEASE REF", Short: "Send a release to a registry", Args: exactly("RELEASE", "REF"),
		Long: "Sends a release to a registry, as one image index with a manifest for each board. What the registry already\n" +
			"has is not sent again. Credentials are those of docker login or podman login.",
		Example: "  kogge release push 1.1.oci registry.example/os:1.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			src, b, err := openStored(cmd.Context(), args[0])
			if err != nil {
				return releaseHint(fmt.Errorf("release push: %w", err))
			}
			defer src.Close()
			r, err := openRegistry(cmd.Context(), args[1], ca)
			if err != nil {
				return fmt.Errorf("release push: %w", err)
			}
			if err := r.Push(cmd.Context(), b); err != nil {
				return fmt.Errorf("release push: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has release %s.\n", r, b.Facts()[0].Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&ca, "ca", "", "`FILE` with the certificate of the registry's CA")
	return cmd
}
