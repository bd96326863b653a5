package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/agent/api"
)

func imagesLoadCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "load FILE",
		Short: "Send the images in a tar to a node",
		Long: "Sends a tar of images to the node: an OCI layout, or what docker save and podman save write, plain or\n" +
			"packed with gzip or zstd. FILE may be - for standard input. If one of the images cannot be unpacked, the\n" +
			"node keeps those that it had, all of them.",
		Example: "  kogge images load web.tar\n  docker save web:1 | kogge images load - --node n1",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, size, err := openTar(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				ctx, cancel := context.WithTimeout(ctx, loadLimit)
				defer cancel()
				names, err := c.Load(ctx, &meter{r: patient{ctx, in}, total: size, w: os.Stderr, show: term.IsTerminal(int(os.Stderr.Fd()))})
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
func openTar(ctx context.Context, name string) (*os.File, int64, error) {
	f, err := openInput(ctx, name)
	if err != nil {
		return nil, 0, fmt.Errorf("images load: %w", err)
	}
	if f == os.Stdin {
		return f, 0, nil
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

// loadLimit bounds the upload of images: a slow board on a slow line takes long.
const loadLimit = time.Hour
