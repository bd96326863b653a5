package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/cmd/kogge/admission"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet/document"
	fleetnotice "kogge.example/update/fleet/notice"
	keys "kogge.example/update/fleet/signed"
	"kogge.example/update/fleet/token"
)

func fleetAcceptCommand() *cobra.Command {
	var t target
	var key, instead string
	cmd := &cobra.Command{
		Use:   "accept NODE",
		Short: "Accept a node that came into the fleet by a token, or by hand",
		Long: "A node that came by a token is new: it gets no containers, no secrets and no volumes, and counts nowhere. This\n" +
			"shows the fingerprint of its key, which its console shows, too, and signs that it is accepted. The fleet's nodes\n" +
			"pass that on. A node without a seat that was adopted by hand is not new; accept it so that members renew its\n" +
			"certificate. In scripts, --key gives the fingerprint that you expect.",
		Example: "  kogge fleet accept n4\n  kogge fleet accept n4 --key 3be6f155f3e5\n  kogge fleet accept n4 --instead 0d5c2f8a91be",
		Args:    exactly("NODE"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return acceptNode(cmd.Context(), ring, args[0], key, instead, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&key, "key", "", "`FINGERPRINT` of the node's key, or its first 12 digits (default: ask on the terminal)")
	cmd.Flags().StringVar(&instead, "instead", "", "`FINGERPRINT` of the key of the node that had the name, and is gone: the new one takes its place")
	return cmd
}

func acceptNode(ctx context.Context, ring *keyring.Keyring, name, expected, instead string, out io.Writer) error {
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
	node, tlsKey, labels, came, err := whoCame(ctx, ring, a, name)
	if err != nil {
		return err
	}
	if seat, ok := l.State().Roster.ByName(name); ok {
		return hinted{fmt.Errorf("node %s has seat %d: no other node takes its name", name, seat.Number), "let the node in under another name: kogge fleet token create --node"}
	}
	if accepted, ok := a.Set.Accepted(node); ok && knows(a, accepted) == tlsKey {
		revoked, err := byRevoked(ring, a.Set.PaperOf(node))
		if err != nil {
			return err
		}
		if !revoked {
			_, err := fmt.Fprintf(out, "Node %s is accepted already.\n", name)
			return err
		}
	}
	holder, held := a.Set.Holder(name)
	if held && holder.Node != node {
		was := holder.Node.ID()
		if len(instead) < 12 || !strings.HasPrefix(was.String(), strings.ToLower(instead)) {
			return hinted{fmt.Errorf("node %s: a node of that name was accepted with key %s", name, was.Short()), "if that one is gone, the new one takes its place: kogge fleet accept " + name + " --instead " + was.Short()}
		}
	}
	finger := node.ID().String()
	attests := ""
	if len(labels) > 0 {
		attests = ", with " + labelsOf(labels)
	}
	fmt.Fprintf(out, "Node %s %s%s. The fingerprint of its key is\n  %s\n", name, came, cell(attests), finger)
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
	paper, err := ring.AcceptNode(node, tlsKey, name, labels, time.Unix(a.Set.Next(node, name, time.Now()), 0)) // whatever the clock was of who accepted it
	if err == nil {
		_, err = a.Set.Put(paper.Bytes(), l.State())
	}
	if _, counts := a.Set.Accepted(node); err == nil && !counts {
		err = errors.New("another acceptance of it, or of its name, counts before this one")
	}
	if err != nil {
		return hinted{fmt.Errorf("node %s: it is not accepted: %w", name, err), "if somebody's key was stolen: kogge operator revoke"}
	}
	if err := handOut(ctx, ring, paper.Bytes(), "node "+name+" is accepted", out); err != nil {
		return err
	}
	return sayUntold(ring, name, out)
}

// whoCame is the node of a name that waits, or was accepted: its keys, the labels that are attested of
// it, and how it came. One that does not wait and that this computer can ask says itself which its keys
// are: it may have got a new one for its certificate since it was accepted.
func whoCame(ctx context.Context, ring *keyring.Keyring, a admission.Arrivals, name string) (keys.Key, document.Hash, fleetnotice.Labels, string, error) {
	u, err := a.Waiting(name)
	switch {
	case err == nil && a.Set.Waits(u):
		return u.Node, u.TLSKey, u.Record.Labels, "came by a token", nil
	case err != nil && !errors.Is(err, admission.ErrNoSuchNode):
		return "", document.Hash{}, nil, "", hinted{err, "revoke the tokens (kogge fleet token revoke), and let the right one in by a token for its name: --node " + name}
	}
	node, tlsKey, unasked := adoptedKeys(ctx, ring, name, err)
	holder, held := a.Set.Holder(name)
	came := "came by a token"
	switch {
	case unasked == nil:
		if _, byToken := a.Set.CameBy(node); !byToken {
			came = "was adopted by hand, and has no seat"
		}
	case err == nil && held && holder.Node == u.Node:
		node, tlsKey = u.Node, knows(a, holder)
	case err == nil:
		node, tlsKey = u.Node, u.TLSKey
	case held: // its use is not kept any more
		node, tlsKey, came = holder.Node, holder.TLSKey, "was accepted before"
	default:
		return "", document.Hash{}, nil, "", unasked
	}
	labels, err := attested(ring, a, node)
	return node, tlsKey, labels, came, err
}

// attested are the labels of a node by its own acceptance, if the key of who has signed that is good, or
// else by its token. What another node of its name has is not its own.
func attested(ring *keyring.Keyring, a admission.Arrivals, node keys.Key) (fleetnotice.Labels, error) {
	if accepted, paper, ok := a.Set.Acceptance(node); ok && accepted.Attested != nil {
		if revoked, err := byRevoked(ring, paper); err != nil || !revoked {
			return accepted.Attested.Labels, err
		}
	}
	u, _ := a.Set.CameBy(node)
	return u.Record.Labels, nil
}

// knows is the TLS key by which the fleet knows a node that was accepted.
func knows(a admission.Arrivals, accepted token.Accept) document.Hash {
	if u, came := a.Set.CameBy(accepted.Node); came && accepted.TLSKey.IsZero() {
		return u.TLSKey
	}
	return accepted.TLSKey
}

// adoptedKeys are the keys of a node that an operator has adopted by hand: that for a seat, which it
// has none of, and that of its certificate. none is the error of a node that this computer does not know.
func adoptedKeys(ctx context.Context, ring *keyring.Keyring, name string, none error) (keys.Key, document.Hash, error) {
	l, _, err := operate.Ledger(ring)
	if err != nil {
		return "", document.Hash{}, err
	}
	if seat, ok := l.State().Roster.ByName(name); ok {
		return "", document.Hash{}, hinted{fmt.Errorf("node %s has seat %d", name, seat.Number), "a node that has a seat need not be accepted"}
	}
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return "", document.Hash{}, err
	}
	if _, known := nodes[name]; !known {
		return "", document.Hash{}, hinted{none, "kogge fleet nodes lists who came; one that was adopted by hand has to be known here: kogge node adopt ADDRESS"}
	}
	all, err := operate.Applicants(ctx, ring, []string{name}, notice)
	if err != nil {
		return "", document.Hash{}, err
	}
	return all[0].Key, all[0].TLSKey, nil
}

// byRevoked says whether an operator has signed a paper whose key is revoked by now: nodes that hear of
// it only now do not take it.
func byRevoked(ring *keyring.Keyring, paper []byte) (bool, error) {
	p, err := token.ParsePaper(paper)
	if err != nil {
		return false, err
	}
	revoked, err := ring.RevokedKeys()
	return slices.Contains(revoked, document.HashOf(p.Issuer).String()), err
}

// sayUntold says that a node which this computer cannot call has heard of revoked keys from the member
// alone that let it in, if there are some.
func sayUntold(ring *keyring.Keyring, name string, out io.Writer) error {
	nodes, err := operate.Nodes(ring)
	if err != nil {
		return err
	}
	_, known := nodes[name]
	keys, err := ring.RevokedKeys()
	if err != nil || known || len(keys) == 0 {
		return err
	}
	_, err = fmt.Fprintf(out, "Which keys are revoked (%s) it knows from the member that let it in. So that it hears all from you:\n  kogge node adopt ADDRESS\n", count(len(keys), "key"))
	return err
}
