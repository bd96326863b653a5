package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

func imagesPullCommand() *cobra.Command {
	var t target
	var platform string
	cmd := &cobra.Command{
		Use: "pull IMAGE", Short: "Pull an image from its registry to a node",
		Args: exactly("IMAGE"), ValidArgsFunction: t.completeWith(imageNames),
		Long: `Makes a node pull an image from its registry, even if the node has one of that name.

IMAGE is a name as in a Compose file; with @sha256:… it means exactly those bytes.
Ctrl-C ends the pull, unless a container waits for the image too. The bytes received so
far stay for a week, and the next pull continues there. With --json every line is a
report of its own.`,
		Example: "  kogge images pull caddy:2\n  kogge images pull registry.example/ada/app@sha256:9f2c… --node n1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.ask(cmd, nil, func(ctx context.Context, c *api.Client) error {
				stream, err := c.PullImage(ctx, connect.NewRequest(&apiv1.PullImageRequest{Name: args[0], Platform: platform}))
				if err != nil {
					return err
				}
				defer stream.Close()
				show := showPull(cmd.OutOrStdout())
				if t.json {
					show = jsonPull(cmd.OutOrStdout())
				}
				for stream.Receive() {
					if err := show(stream.Msg()); err != nil {
						return err
					}
				}
				return pullHint(args[0], errors.Join(show(nil), stream.Err()))
			})
		},
	}
	t.register(cmd)
	cmd.Flags().StringVar(&platform, "platform", "", "pull the image for `OS/ARCH`, which the node has to be able to run")
	return cmd
}

// pullHint says what to do about a pull that failed.
func pullHint(image string, err error) error {
	switch {
	case api.ReasonOf(err) == apiv1.Reason_REASON_REGISTRY_CREDENTIALS:
		return hinted{err, "kogge registry login has the node keep a password for " + registryOf(image)}
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		return hinted{err, spaceHint}
	}
	return err
}

// spaceHint is for a STATE that is full.
const spaceHint = "kogge images ls and kogge volumes ls show what takes the space, kogge images prune frees some"

// registryOf is the first part of an image's name, if that is a registry.
func registryOf(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if !ok || host != "localhost" && !strings.ContainsAny(host, ".:") {
		return "docker.io"
	}
	return host
}

// jsonPull prints each report as a line of JSON.
func jsonPull(w io.Writer) func(*apiv1.PullImageResponse) error {
	return func(p *apiv1.PullImageResponse) error {
		if p == nil {
			return nil
		}
		line, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(p)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", line)
		}
		return err
	}
}

// plainEvery is how often somebody who has no terminal reads how far a pull is.
const plainEvery = 10 * time.Second

// showPull prints reports for people: a line for each layer that is complete, and
// below them, on a terminal, bars of those that come. nil is the end.
func showPull(w io.Writer) func(*apiv1.PullImageResponse) error {
	f := isTerminal(w)
	bars := f != nil
	if bars {
		w = raw(w) // for the cursor
	}
	var view pullView
	shown, told := 0, time.Now()
	return func(p *apiv1.PullImageResponse) error {
		var b strings.Builder
		if shown > 0 {
			fmt.Fprintf(&b, "\x1b[%dA\x1b[J", shown) // up, and away with what is below
			shown = 0
		}
		if p != nil {
			lines, live := view.next(p)
			for _, all := range [][]string{lines, live} {
				for i := range all {
					all[i] = clean(all[i])
				}
			}
			if !bars && time.Since(told) > plainEvery && p.Digest == "" {
				lines = append(lines, live[len(live)-1])
			}
			if len(lines) > 0 {
				told = time.Now()
			}
			if bars {
				live = fit(live, f)
				lines, shown = append(lines, live...), len(live)
			}
			for _, line := range lines {
				b.WriteString(line + "\n")
			}
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
}

// fit is as much of live as the terminal has room for.
func fit(live []string, f *os.File) []string {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 1 || height < 2 {
		width, height = 80, 24
	}
	if over := len(live) - (height - 1); over > 0 {
		live = live[over:]
	}
	short := make([]string, len(live))
	for i, line := range live {
		short[i] = fmt.Sprintf("%.*s", width-1, line)
	}
	return short
}

// pullView remembers which layers were told to be complete.
type pullView struct{ told map[string]bool }

// next returns the lines to keep of a report, and those that the next report
// replaces: a bar for each layer that is coming, and how far it all is.
func (v *pullView) next(p *apiv1.PullImageResponse) (lines, live []string) {
	if v.told == nil {
		v.told = make(map[string]bool)
	}
	for _, l := range p.Layers {
		short := strings.TrimPrefix(l.Digest, "sha256:")
		short = short[:min(12, len(short))]
		switch {
		case l.Done < l.Size && (l.From != "" || l.Done > 0):
			live = append(live, fmt.Sprintf("%-12s %s %9s of %9s  %s", short, bar(l.Done, l.Size), iec(uint64(max(0, l.Done))), iec(uint64(max(0, l.Size))), l.From))
		case l.Done >= l.Size && !v.told[l.Digest]:
			v.told[l.Digest] = true
			lines = append(lines, fmt.Sprintf("%-12s %9s %s", short, iec(uint64(max(0, l.Size))), whence(l)))
		}
	}
	if p.Digest != "" {
		return append(lines, p.Name+" "+p.Digest), nil
	}
	done, total := p.Pull.GetDone(), p.Pull.GetTotal()
	sum := "asking the registry"
	switch {
	case total > 0 && done >= total:
		sum = "unpacking"
	case total > 0:
		sum = fmt.Sprintf("%s of %s, %d %%", iec(uint64(max(0, done))), iec(uint64(total)), 100*done/total)
	}
	return lines, append(live, p.Name+": "+sum)
}

// whence says where a complete layer is from.
func whence(l *apiv1.Layer) string {
	switch {
	case l.Before >= l.Size:
		return "here already"
	case l.Before > 0:
		return fmt.Sprintf("from %s, which continued at %s", l.From, iec(uint64(l.Before)))
	case l.From == "":
		return "pulled"
	}
	return "from " + l.From
}

// bar is a picture of done of size, 22 wide.
func bar(done, size int64) string {
	const width = 20
	n := 0
	if size > 0 {
		n = int(min(width, max(0, done*width/size)))
	}
	return "[" + strings.Repeat("=", n) + strings.Repeat(" ", width-n) + "]"
}
