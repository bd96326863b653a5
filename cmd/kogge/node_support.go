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
		Use: "support [NODE]", Short: "Collect diagnostics from a node", Args: cobra.MaximumNArgs(1),
		Long: "Collects diagnostics from a node into one archive: logs, the kernel log, the state of services, containers,\n" +
			"network, disk and clock, and the settings. Secrets are left out: of node.yaml and Compose files, only keys\n" +
			"are included, and values that are known to be harmless. The output of containers is included only with\n" +
			"--output, and may hold secrets.",
		Example:           "  kogge node support n1\n  kogge node support n1 -o - > n1.tar.gz",
		ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "-" && isTerminal(cmd.OutOrStdout()) != nil {
				return usage{hinted{errors.New("node support: the archive is not for a terminal"), "kogge node support -o - > FILE"}}
			}
			return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, supportLimit)
				defer cancel()
				if file == "-" {
					return c.PackSupport(ctx, output, raw(cmd.OutOrStdout()))
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
	cmd.Flags().BoolVar(&output, "output", false, "include the newest output of containers, which may hold secrets")
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
