package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/agent/identity"
	"kogge.example/image/disk"
	"kogge.example/image/medium"
)

func imageSeedCommand() *cobra.Command {
	var config, join string
	cmd := &cobra.Command{
		Use:   "seed FILE [--config node.yaml] [--join join.yaml]",
		Short: "Put a node.yaml or join.yaml on the boot partition of an image",
		Long: "Checks node.yaml and join.yaml and writes them to the boot partition of an image file, or of a card or\n" +
			"disk with an image. A node reads them at its next boot, and then removes join.yaml.",
		Example: "  kogge image seed kogge.img --config node.yaml\n  kogge image seed /dev/sdX --join join.yaml",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var files medium.Files
			var err error
			if config == "" && join == "" {
				return usage{hinted{errors.New("image seed: nothing to write"), "add: --config node.yaml, or --join join.yaml"}}
			}
			if config != "" {
				if files.Node, err = readConfig(cmd.Context(), config); err != nil {
					return err
				}
			}
			if join != "" {
				if files.Join, err = readJoin(cmd.Context(), join); err != nil {
					return err
				}
			}
			s, err := medium.Seed(args[0], files, time.Now())
			if err != nil {
				return mediumHint(fmt.Errorf("image seed: %w", err))
			}
			if !s.Repaired.Clean() {
				say("%s: repaired the boot partition: %s", args[0], s.Repaired)
			}
			if files.Node != nil {
				what := "written"
				if s.Replaced {
					what = "replaced"
				}
				say("%s: %s kogge/node.yaml on the boot partition (%d bytes from %s)", args[0], what, len(files.Node), config)
			}
			if files.Join != nil {
				say("%s: wrote kogge/join.yaml on the boot partition: delete %s now, it holds a token", args[0], join)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "node.yaml to write")
	cmd.Flags().StringVar(&join, "join", "", "join.yaml to write (kogge fleet token makes one)")
	return cmd
}

// readJoin reads a join.yaml and refuses one that a node would refuse.
func readJoin(ctx context.Context, name string) ([]byte, error) {
	data, err := readInput(ctx, name, maxInput)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if _, err := identity.ParseJoinFile(name, data); err != nil {
		return nil, fmt.Errorf("join:\n%w", err)
	}
	return data, nil
}

// mediumHint adds what to do about an error of a medium or an image file.
func mediumHint(err error) error {
	hints := []struct {
		is   error
		hint string
	}{
		{disk.ErrQcow2, "turn it into a raw image: qemu-img convert -O raw FILE.qcow2 FILE.img"},
		{disk.ErrNoImage, "kogge image build -o kogge.img makes one; a compressed image has to be unpacked first"},
		{medium.ErrSystem, "choose another device: lsblk lists them"},
		{medium.ErrBusy, "unmount it first: umount DEVICE*"},
		{medium.ErrTooSmall, "use a larger medium, or build the image with a smaller --slot-size"},
		{medium.ErrReadOnly, "look for a write-protect switch on the card or its adapter"},
		{medium.ErrKind, "name the whole disk, for instance /dev/sdb; lsblk lists them"},
		{medium.ErrReadBack, "try another medium, another adapter, another socket"},
		{disk.ErrDamaged, "build or download the image again"},
	}
	for _, h := range hints {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}
