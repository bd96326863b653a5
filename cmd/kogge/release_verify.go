package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	layout "kogge.example/update/release"
)

func releaseVerifyCommand() *cobra.Command {
	var trust, board string
	cmd := &cobra.Command{
		Use: "verify RELEASE", Short: "Check a release as a node does", Args: exactly("RELEASE"),
		Long: "Checks the signatures of a release as a node that trusts a root.json does, and each byte of each file. A\n" +
			"file that is not part of the release is an error, too. It does not know what a node has installed\n" +
			"before, so the node may still refuse the release.",
		Example: "  kogge release verify 1.1.oci\n  kogge release verify 1.1.tar --trust root.json --board pc-x86_64",
		RunE: func(cmd *cobra.Command, args []string) error {
			return releaseHint(verifyRelease(cmd.Context(), args[0], trust, board, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&trust, "trust", "", "root.json to begin with: a `FILE` or the name of a key set (default: the set default, or the only one)")
	cmd.Flags().StringVar(&board, "board", "", "`BOARD` to check (default: all)")
	completeFlag(cmd, "board", completeBoardFlag)
	return cmd
}

func verifyRelease(ctx context.Context, name, trust, board string, out io.Writer) error {
	src, b, err := openStored(ctx, name)
	if err != nil {
		return fmt.Errorf("release verify: %w", err)
	}
	defer src.Close()
	var root []byte
	if trust == "" {
		set, err := openKeys("")
		if err != nil {
			return err
		}
		root = set.Newest()
	} else if root, err = readTrust(trust); err != nil {
		return err
	}
	names := []string{board}
	if board == "" {
		names = nil
		for _, f := range b.Facts() {
			names = append(names, f.Board)
		}
	}
	newest := root
	var releases []*layout.Release
	for _, board := range names {
		r, err := layout.Verify(ctx, src, root, time.Now(), board)
		if err != nil {
			return fmt.Errorf("release verify: %s: %w", name, err)
		}
		newest = r.Root
		releases = append(releases, r)
	}
	// Parts are blobs of the digests that the signed facts have.
	if err := src.Check(ctx); err != nil {
		return fmt.Errorf("release verify: %s: %w", name, err)
	}
	for _, r := range releases {
		fmt.Fprintf(out, "%s: release %s for %s (counter %d) is correct: %s\n", name, r.Facts.Version, r.Facts.Board, r.Facts.Counter, r.Digest)
	}
	trusted, err := layout.ParseRoot(newest)
	if err != nil {
		return err
	}
	for _, t := range b.Signatures(trusted) {
		fmt.Fprintf(out, "  %s (of %d keys)\n", t, t.Of)
	}
	fmt.Fprintf(out, "  good until %s\n", b.Expires().Format(time.DateOnly))
	return nil
}
