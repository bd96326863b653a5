package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
)

func fleetAcceptCommand() *cobra.Command {
	var t target
	var key string
	cmd := &cobra.Command{
		Use:   "accept NODE",
		Short: "Accept a node that came into the fleet by a token",
		Long: "A node that came by a token is new: it gets no containers, no secrets and no volumes, and counts nowhere. This\n" +
			"shows the fingerprint of its key, which its console shows, too, and signs that it is accepted. The fleet's nodes\n" +
			"pass that on. In scripts, --key gives the fingerprint that you expect.",
		Example: "  kogge fleet accept n4\n  kogge fleet accept n4 --key 3be6f155f3e5",
		Args:    exactly("NODE"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return acceptNode(cmd.Context(), ring, args[0], key, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`FINGERPRINT` of the node's key, or its first 12 digits (default: ask on the terminal)")
	return cmd
}

func acceptNode(ctx context.Context, ring *keyring.Keyring, name, expected string, out io.Writer) error {
	l, _, err := operate.Ledger(ring)
	if err != nil {
		return err
	}
	if l.State().Height == 0 {
		return hinted{fmt.Errorf("fleet %s is not founded: its nodes are adopted, and need nobody to accept them", ring.Genesis.Name), "kogge help fleets tells how it is founded"}
	}
	a, err := askPapers(ctx, ring)
	if err != nil {
		return hinted{err, "kogge fleet status says which nodes this computer reaches"}
	}
	node, labels, err := a.Waiting(name)
	if errors.Is(err, admission.ErrNoSuchNode) {
		return hinted{err, "kogge fleet nodes lists who came; a node that an operator has adopted need not be accepted"}
	}
	if err != nil {
		return hinted{err, "revoke all of them (kogge help roles), and let the right one in by another token"}
	}
	if _, ok := a.Set.Accepted(node); ok {
		_, err := fmt.Fprintf(out, "Node %s is accepted already.\n", name)
		return err
	}
	finger := node.ID().String()
	attests := ""
	if len(labels) > 0 {
		attests = ", with " + labelsOf(labels)
	}
	fmt.Fprintf(out, "Node %s came by a token%s. The fingerprint of its key is\n  %s\n", name, cell(attests), finger)
	switch {
	case expected != "":
		if len(expected) < 12 || !strings.HasPrefix(finger, strings.ToLower(expected)) {
			return hinted{fmt.Errorf("node %s: its key is %s, and not %.64q", name, finger, expected), "do not accept it: somebody else has used the token"}
		}
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return hinted{fmt.Errorf("node %s: there is no terminal to ask whether it may be accepted", name), "add the fingerprint that its console shows: --key " + node.ID().Short()}
	default:
		fmt.Fprint(errorOutput(), "Does the node's console show the same, and is it to be accepted? (yes or no): ")
		answer, err := askLine(ctx)
		if err != nil {
			return err
		}
		if answer != "yes" {
			return fmt.Errorf("node %s: it is not accepted", name)
		}
	}
	paper, err := ring.AcceptNode(node, name, labels, time.Now())
	if err != nil {
		return err
	}
	return handOut(ctx, ring, paper.Bytes(), "node "+name+" is accepted", out)
}
