package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
)

// release names the commit that the Makefile built this program from; the linker
// fills it in.
var release string

// versionFacts are what kogge version says.
type versionFacts struct {
	Client clientVersion `json:"client"`
	Node   *nodeVersion  `json:"node,omitempty"`
}

// clientVersion is that of this program.
type clientVersion struct {
	Release  string `json:"release"` // as the Makefile says, or as Go does
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// nodeVersion is that of a node.
type nodeVersion struct {
	Name    string `json:"name"`
	Release string `json:"release"`
	Slot    string `json:"slot"`
	Board   string `json:"board"`
	Kernel  string `json:"kernel"`
}

func versionCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version of this program, and of a node",
		Long:    "Shows what this program was built from and with. With --node it also shows that node's release.",
		Example: "  kogge version\n  kogge version --node n1 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			facts := versionFacts{Client: thisVersion()}
			if cmd.Flags().Changed("node") { // KOGGE_NODE alone must not make it need a network
				err := t.asks(cmd, nil, func(ctx context.Context, c *api.Client) error {
					answer, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
					if err == nil {
						boot := answer.Msg.Boot
						facts.Node = &nodeVersion{t.node, boot.GetVersion(), boot.GetSlot(), boot.GetBoard(), answer.Msg.Kernel}
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			facts.print(cmd.OutOrStdout())
			return nil
		},
	}
	t.register(cmd)
	return cmd
}

// thisVersion reads what the toolchain and the Makefile wrote into this program.
func thisVersion() clientVersion {
	v := clientVersion{Release: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "(devel)" { // it has no version control's word for it
			v.Release = cmp.Or(v.Release, info.Main.Version)
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	v.Release = cmp.Or(v.Release, "unversioned")
	return v
}

func (f versionFacts) print(w io.Writer) {
	fmt.Fprintf(w, "kogge  release %s, %s, %s\n", f.Client.Release, f.Client.Go, f.Client.Platform)
	if n := f.Node; n != nil {
		fmt.Fprintf(w, "node   %s: release %s, slot %s, board %s, kernel %s\n", n.Name, n.Release, n.Slot, n.Board, n.Kernel)
	}
}
