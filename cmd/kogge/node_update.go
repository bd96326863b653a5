package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/operate"
	layout "kogge.example/update/release"
)

// reboots are the values of --reboot.
var reboots = map[string]apiv1.Reboot{
	"now":    apiv1.Reboot_REBOOT_NOW,
	"window": apiv1.Reboot_REBOOT_WINDOW,
	"manual": apiv1.Reboot_REBOOT_MANUAL,
}

// changeSlot is what the commands have in common that have a node boot its other slot.
type changeSlot struct {
	target target
	reboot string
	noWait bool
	limit  time.Duration // of the wait for the assessment
	owner  ownerFlags
}

func (f *changeSlot) register(cmd *cobra.Command) {
	f.target.fleetFlag(cmd) // the node is an argument
	f.target.viaFlag(cmd)
	jsonFlag(cmd, &f.target.json)
	f.owner.register(cmd)
	cmd.Flags().StringVar(&f.reboot, "reboot", "now", "`WHEN` the node boots the slot: now, window (the one in its node.yaml), or manual (at the next kogge node reboot)")
	cmd.Flags().BoolVar(&f.noWait, "no-wait", false, "return once the node reboots; do not wait for the boot assessment")
	cmd.Flags().DurationVar(&f.limit, "timeout", followLimit, "`DURATION` to wait for the boot assessment")
	completeFlag(cmd, "reboot", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"now", "window", "manual"}, cobra.ShellCompDirectiveNoFileComp
	})
}

// when is what --reboot says.
func (f *changeSlot) when(cmd *cobra.Command) (apiv1.Reboot, error) {
	reboot, ok := reboots[f.reboot]
	if !ok {
		return 0, usage{hinted{fmt.Errorf("--reboot %q: use now, window or manual", f.reboot), cmd.CommandPath() + " --help explains them"}}
	}
	return reboot, nil
}

func nodeUpdateCommand() *cobra.Command {
	var f changeSlot
	cmd := &cobra.Command{
		Use: "update NODE [RELEASE]", Short: "Install a release on a node, and boot it on trial", Args: oneOrTwo("NODE", "RELEASE"),
		Long: `Writes a release to a node's inactive slot, boots it on trial, and waits for the boot assessment. A release
that proves itself stays. One that does not is given up after three tries, and the node runs what it ran
before: this command then says why, and exits with 1.

RELEASE is the folder or tar of an OCI layout (kogge release create makes one), or a place from which the
node fetches it by itself:

  https://releases.example/os/1.1   a folder that holds the layout
  registry.example/os:1.1           a name in a registry
  usb:                              a stick in the node, if its node.yaml has
                                    update: {usb: ask}

Without RELEASE, update.source of the node's node.yaml is used. For a server with plain HTTP, or with a
certificate of your own authority, use kogge registry set HOST first.

The node writes nothing of a release before it has checked the signatures. Containers keep running until the
node reboots. Then they stop in order, and start again after the reboot. If the connection breaks, the same
command continues where it stopped. kogge help updates has the details.`,
		Example:           "  kogge node update n1 1.1.oci\n  kogge node update n1 https://releases.example/os/1.1 --reboot window\n  kogge node update n1 usb: --no-wait",
		ValidArgsFunction: f.completeRelease,
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := f.when(cmd)
			if err != nil {
				return err
			}
			start := &apiv1.UpdateStart{Reboot: when, From: fromNodeYAML}
			var src layout.Stored
			if len(args) > 1 {
				if src, start.From, err = openRelease(args[1]); err != nil {
					return releaseHint(err)
				}
			}
			if src != nil {
				defer src.Close()
			}
			return f.run(cmd, args[0], func(ctx context.Context, c *api.Client, show func(*apiv1.UpdateStep) error) error {
				ring, err := f.target.openFleet()
				if err != nil {
					return err
				}
				start.Permit, err = f.owner.permit(ctx, ring, args[0], c, func(board string) (string, error) { return digestFor(ctx, src, board) })
				if err != nil {
					return err
				}
				return releaseHint(c.SendRelease(ctx, start, src, show))
			})
		},
	}
	f.register(cmd)
	return cmd
}

// digestFor names the release for a board, for the owner to sign. The release has to be on
// this computer: what somebody else may exchange is signed by nobody.
func digestFor(ctx context.Context, src layout.Stored, board string) (string, error) {
	if src == nil {
		return "", hinted{errors.New("in a founded fleet the owner signs which release a node gets, and this one is not on this computer"), "fetch it first: kogge release pull"}
	}
	b, err := layout.Read(ctx, src)
	if err != nil {
		return "", err
	}
	digest := b.Digest(board)
	if digest == "" {
		return "", fmt.Errorf("the release has nothing for board %s", board)
	}
	return digest, nil
}

// fromNodeYAML has the node look for a release where its own settings say.
const fromNodeYAML = "source:"

// oneOrTwo wants the first of two arguments.
func oneOrTwo(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return exactly(names...)(cmd, args)
	}
}

// completeRelease offers nodes, then files.
func (f *changeSlot) completeRelease(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return f.target.completeNodes(cmd, args, toComplete)
}

// openRelease opens a release on this computer, or returns where the node is to get it
// from. What is there as a file is that.
func openRelease(name string) (layout.Stored, string, error) {
	_, err := os.Stat(name)
	switch {
	case err == nil:
		src, err := layout.Open(name)
		return src, "", err
	case strings.HasPrefix(name, "https://"), strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "usb:"):
		return nil, name, nil
	case filepath.IsAbs(name), strings.HasPrefix(name, "."), !strings.Contains(name, "/"), strings.HasSuffix(name, ".tar"), strings.HasSuffix(name, ".oci"):
		return nil, "", hinted{err, "a release is the folder or tar of an OCI layout, https://…, usb:, or a registry's name with a / in it"}
	}
	return nil, name, nil
}

// followLimit is for three tries of a slow board, each with ten minutes to prove itself.
const followLimit = time.Hour

// run has the node do it, shows its steps, and follows it through the reboot.
func (f *changeSlot) run(cmd *cobra.Command, node string, do func(context.Context, *api.Client, func(*apiv1.UpdateStep) error) error) error {
	show := showSteps(cmd.OutOrStdout(), node)
	if f.target.json {
		show = jsonSteps(cmd.OutOrStdout())
	}
	var last *apiv1.UpdateStep
	var before *apiv1.ListSlotsResponse
	err := f.target.ask(cmd, []string{node}, func(ctx context.Context, c *api.Client) error {
		answer, err := c.ListSlots(ctx, connect.NewRequest(&apiv1.ListSlotsRequest{}))
		if err != nil {
			return updateHint(err)
		}
		before = answer.Msg
		return updateHint(do(ctx, c, func(s *apiv1.UpdateStep) error {
			last = s
			return show(s)
		}))
	})
	if errors.Join(err, show(nil)) != nil || last.GetStep() != "rebooting" || f.noWait {
		return err
	}
	return f.follow(cmd, operate.Journey{From: before, Armed: last}, show)
}

// updateHint says what to do about an update that broke off.
func updateHint(err error) error {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded:
		if err != nil && !errors.Is(err, context.Canceled) {
			return hinted{err, "the same command continues where it stopped"}
		}
	case connect.CodeAborted:
		return hinted{err, "one update runs at a time; kogge node slots shows how far it is"}
	case connect.CodeFailedPrecondition:
		switch api.ReasonOf(err) {
		case apiv1.Reason_REASON_SIGNATURES:
			return hinted{err, "the node trusts the key set whose root.json is in its image (--trust): sign with that set, kogge release sign --keys NAME"}
		case apiv1.Reason_REASON_EXPIRED:
			return hinted{err, "make it again, with a later date: kogge release create --expires DATE"}
		case apiv1.Reason_REASON_FAILED_BEFORE:
			return hinted{err, "to try it again: kogge node forget-failure NODE RELEASE"}
		case apiv1.Reason_REASON_SERVER:
			return hinted{err, "kogge registry set HOST makes the node trust it: --ca ca.pem for its authority, --insecure for plain HTTP"}
		}
	}
	return err
}

// follow waits until the slot has proven itself, or the node has left it.
func (f *changeSlot) follow(cmd *cobra.Command, trip operate.Journey, show func(*apiv1.UpdateStep) error) error {
	remote, err := f.target.remote()
	if err != nil {
		return errors.Join(err, show(nil))
	}
	node := f.target.node
	err = remote.Follow(cmd.Context(), trip, f.limit, func(step *apiv1.UpdateStep, waited time.Duration) error {
		if step.Step == "following" {
			step.Text += " for " + age(waited)
		}
		return show(step)
	})
	ended := show(nil)
	switch {
	case err == nil:
		return ended
	case cmd.Context().Err() != nil:
		return errors.Join(err, ended)
	case errors.Is(err, operate.ErrNoAssessment):
		return hinted{errors.Join(fmt.Errorf("node %s: %w", node, err), ended), "when the node is back: kogge node slots " + node + ", kogge node history " + node}
	}
	return errors.Join(nodeError(node, err), ended)
}
