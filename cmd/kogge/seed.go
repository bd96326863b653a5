package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/image/disk"
	"kogge.example/image/medium"
)

func imageSeedCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "seed FILE --config node.yaml",
		Short: "Put a node.yaml on the boot partition of an image",
		Long: "Checks node.yaml and writes it to the boot partition of an image file, or of a card or disk that an\n" +
			"image was written to. A node reads it at its next boot.",
		Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if config == "" {
				return hinted{errors.New("image seed: no settings"), "add: --config node.yaml"}
			}
			data, err := readConfig(config)
			if err != nil {
				return err
			}
			s, err := medium.Seed(args[0], data, time.Now())
			if err != nil {
				return mediumHint(fmt.Errorf("image seed: %w", err))
			}
			if !s.Repaired.Clean() {
				say("%s: repaired the boot partition: %s", args[0], s.Repaired)
			}
			what := "written"
			if s.Replaced {
				what = "replaced"
			}
			say("%s: %s kogge/node.yaml on the boot partition (%d bytes from %s)", args[0], what, len(data), config)
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "node.yaml to write")
	return cmd
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
