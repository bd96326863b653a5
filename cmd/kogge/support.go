package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/api"
)

func nodeSupportCommand() *cobra.Command {
	var t target
	var file string
	var output bool
	cmd := &cobra.Command{
		Use: "support [NODE]", Short: "Pack what tells what is wrong with a node", Args: cobra.MaximumNArgs(1),
		Long: "Packs the logs of a node, its kernel log, states of services, containers, network, disk and clock, and\n" +
			"its settings into one archive, for somebody who is to find out what is wrong. Settings are in it without\n" +
			"secrets: of node.yaml and Compose files it has the keys, and the values that are known to be harmless.\n" +
			"What containers said is in it only with --output, and may have secrets.",
		Example:           "  kogge node support n1\n  kogge node support n1 -o - > n1.tar.gz",
		ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, supportLimit)
				defer cancel()
				if file == "-" {
					return c.PackSupport(ctx, output, cmd.OutOrStdout())
				}
				if file == "" {
					file = fmt.Sprintf("kogge-%s-%s.tar.gz", t.node, time.Now().UTC().Format("20060102T150405Z"))
				}
				size, err := packSupport(ctx, c, output, file)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s, %s\n", file, iec(uint64(size)))
				}
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().StringVarP(&file, "file", "o", "", "`FILE` to write, - for standard output (default: kogge-NODE-TIME.tar.gz)")
	cmd.Flags().BoolVar(&output, "output", false, "with the newest output of the containers, which may have secrets")
	return cmd
}

// supportLimit is for a slow line.
const supportLimit = 15 * time.Minute

// packSupport writes an archive to a new file: a whole one, or none.
func packSupport(ctx context.Context, c *api.Client, output bool, file string) (size int64, err error) {
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("support: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(part)
		}
	}()
	err = c.PackSupport(ctx, output, f)
	if info, statErr := f.Stat(); statErr == nil {
		size = info.Size()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(part, file)
	}
	return size, err
}
