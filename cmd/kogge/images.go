package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func imagesCommand() *cobra.Command {
	return group("images", "Manage a node's container images", imagesListCommand(), imagesPullCommand(), imagesLoadCommand(), imagesRemoveCommand(), imagesPruneCommand())
}

func imagesListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "ls [NODE]", Short: "List the images of a node", Args: cobra.MaximumNArgs(1),
		Example: "  kogge images ls n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, args, func(ctx context.Context, c *api.Client) error {
				answer, err := c.ListImages(ctx, connect.NewRequest(&apiv1.ListImagesRequest{}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) { printImages(w, answer.Msg.Images, time.Now()) })
			})
		},
	}
	t.register(cmd)
	return cmd
}

func printImages(w io.Writer, all []*apiv1.Image, now time.Time) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	defer tw.Flush()
	fmt.Fprintln(tw, "NAME\tDIGEST\tSIZE\tON DISK\tHERE FOR\tLAST USED\tUSED BY")
	for _, i := range all {
		used := "never"
		switch {
		case len(i.UsedBy) > 0:
			used = "now"
		case i.Used != nil:
			used = age(max(0, now.Sub(i.Used.AsTime()))) + " ago"
		}
		by := dash(i.UsedBy)
		switch {
		case i.Pulling:
			by = "(being pulled)"
		case i.Preload && len(i.UsedBy) == 0:
			by = "(preload)"
		}
		fmt.Fprintf(tw, "%s\t%.19s\t%s\t%s\t%s\t%s\t%s\n", i.Name, i.Digest, iec(uint64(max(0, i.Size))), iec(uint64(max(0, i.Disk))),
			age(max(0, now.Sub(i.Created.AsTime()))), used, by)
	}
}

func imagesPruneCommand() *cobra.Command {
	var t target
	var check bool
	cmd := &cobra.Command{
		Use: "prune [NODE]", Short: "Remove images that no container uses", Args: cobra.MaximumNArgs(1),
		Long: `Removes images that no container uses, and the remains of broken pulls. Preloaded images stay,
and so do images that are being pulled. When less than a tenth of its STATE is free, a node does
the same by itself, least recently used first.`,
		Example: "  kogge images prune --check\n  kogge images prune n1", ValidArgsFunction: t.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, args, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, runLimit)
				defer cancel()
				answer, err := c.PruneImages(ctx, connect.NewRequest(&apiv1.PruneImagesRequest{Check: check}))
				if err != nil {
					return err
				}
				return t.print(cmd.OutOrStdout(), answer.Msg, func(w io.Writer) {
					for _, i := range answer.Msg.Images {
						fmt.Fprintln(w, i.Name)
					}
					if !check {
						fmt.Fprintf(w, "%s freed\n", iec(uint64(max(0, answer.Msg.Freed))))
					}
				})
			})
		},
	}
	t.register(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "only list what would be removed")
	return cmd
}

// loadLimit bounds the upload of images: a slow board on a slow line takes long.
const loadLimit = time.Hour

func imagesLoadCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "load FILE",
		Short: "Send the images in a tar to a node",
		Long: "Sends a tar of images to the node: an OCI layout, or what docker save and podman save write. FILE\n" +
			"may be - for standard input.",
		Example: "  kogge images load web.tar\n  docker save web:1 | kogge images load - --node n1",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, size, err := openTar(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, loadLimit)
				defer cancel()
				names, err := c.Load(ctx, &meter{r: in, total: size, w: os.Stderr, show: term.IsTerminal(int(os.Stderr.Fd()))})
				if connect.CodeOf(err) == connect.CodeResourceExhausted {
					return hinted{err, spaceHint}
				}
				if t.json && err == nil {
					return printJSON(cmd.OutOrStdout(), loadedImages{append([]string{}, names...)})
				}
				for _, name := range names {
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
				return err
			})
		},
	}
	t.register(cmd)
	return cmd
}

// loadedImages is what kogge images load answers programs.
type loadedImages struct {
	Images []string `json:"images"`
}

// openTar opens a file, or standard input, whose size is 0.
func openTar(name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return os.Stdin, 0, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("images load: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = hinted{fmt.Errorf("%s is a folder", name), "pack the layout into a tar: tar -C " + name + " -cf images.tar ."}
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("images load: %w", err), f.Close())
	}
	return f, info.Size(), nil
}

// meter shows on a terminal how much of a file was read.
type meter struct {
	r           io.Reader
	done, total int64 // bytes; total 0: not known
	w           io.Writer
	show        bool
	shown       time.Time
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.done += int64(n)
	if !m.show {
		return n, err
	}
	if now := time.Now(); err != nil {
		fmt.Fprint(m.w, "\r\x1b[K")
	} else if now.Sub(m.shown) > 200*time.Millisecond {
		m.shown = now
		of := ""
		if m.total > 0 {
			of = fmt.Sprintf(" of %s, %d %%", iec(uint64(m.total)), m.done*100/m.total)
		}
		fmt.Fprintf(m.w, "\r\x1b[Ksent %s%s", iec(uint64(m.done)), of)
	}
	return n, err
}

func imagesRemoveCommand() *cobra.Command {
	var t target
	var force bool
	cmd := &cobra.Command{
		Use: "rm IMAGE", Short: "Remove an image from a node", Args: exactly("IMAGE"),
		Long:    "Removes an image. If a container uses it, or if it was preloaded, add --force: running containers go\non, but their next start pulls the image again.",
		Example: "  kogge images rm registry.example/web:1", ValidArgsFunction: t.completeWith(imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
				_, err := c.RemoveImage(ctx, connect.NewRequest(&apiv1.RemoveImageRequest{Name: args[0], Force: force}))
				if connect.CodeOf(err) == connect.CodeFailedPrecondition {
					return hinted{err, "--force removes it anyway"}
				}
				return err
			})
		},
	}
	t.nodeFlags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also if it is in use, or was preloaded")
	return cmd
}
