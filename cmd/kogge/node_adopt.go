package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
)

func nodeAdoptCommand() *cobra.Command {
	var t target
	var name, shows string
	var letIn []string
	var all bool
	cmd := &cobra.Command{
		Use:   "adopt ADDRESS",
		Short: "Take a new node into the fleet",
		Long: `Takes the node at ADDRESS (HOST or HOST:PORT; kogge node find shows HOST.local) into the fleet. The node
has to have booted with a join.yaml of the fleet (kogge fleet token). It proves the token in join.yaml
without sending it, and gets a certificate for a key that it made itself.

If the node is already in the fleet, only its address is recorded here: use this when another operator
adopted the node, or when it has moved.

A node that has a seat in a founded fleet shows the seat's key. One whose STATE was lost or reset shows
another. So does a stranger who has a key of the node CA: you are shown both keys, and asked. In scripts,
--shows gives the key that you were told.

A node that came in by a token turns away those whom the member has called revoked that let it in. You are
shown whom nobody has revoked here: revoke them here, too, or, if the member has lied, give each key, or the
name of who has it, with --let-in. A node whose list of revoked keys is damaged lets in the first operator alone, who says with
--all-revoked that no key is missing on his computer.`,
		Example: "  kogge node adopt 192.0.2.7\n  kogge node adopt kogge-3f2a9c.local\n  kogge node adopt [2001:db8::7]:7443 --name n1 --fleet hanse",
		Args:    exactly("ADDRESS"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return adoptAs(cmd.Context(), ring, args[0], adoption{name, shows, letIn, all}, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the node in the fleet (default: the name in its token, else its host name)")
	cmd.Flags().StringVar(&shows, "shows", "", "`KEY` that the node shows in the place of its seat's, or its first 12 digits (default: ask on the terminal)")
	cmd.Flags().StringArrayVar(&letIn, "let-in", nil, "`KEY` that a member has called revoked and that is not, its first 12 digits, or who has it (may be repeated)")
	cmd.Flags().BoolVar(&all, "all-revoked", false, "the keys that are revoked on this computer are all that the fleet has revoked")
	return cmd
}

// adoption is what an operator says about the node that he adopts.
type adoption struct {
	name  string
	shows string // the key that it is known to show in the place of its seat's
	letIn []string
	all   bool
}

// adopt takes the node at address into the fleet, and says by which name.
func adopt(ctx context.Context, ring *keyring.Keyring, address, name string, out io.Writer) error {
	return adoptAs(ctx, ring, address, adoption{name: name}, out)
}

// adoptAs is adopt of a node that may have lost the key of its seat, or knows of revoked keys what
// this computer does not.
func adoptAs(ctx context.Context, ring *keyring.Keyring, address string, says adoption, out io.Writer) error {
	address = withPort(address)
	node, err := operate.Adopt(ctx, ring, address, says.name, notice)
	if other := new(operate.OtherSeat); errors.As(err, &other) {
		if err := lostSeat(ctx, other, says.shows); err != nil {
			return err
		}
		if err := other.Unseat(ring); err != nil {
			return err
		}
		before := node.Before
		node, err = operate.Adopt(ctx, ring, address, says.name, notice)
		node.Before = before
	}
	switch {
	case errors.As(err, new(operate.Unanswered)):
		return nodeError("at "+address, hinted{err, "is the node on? kogge node find looks for nodes on this computer's networks"})
	case errors.Is(err, keyring.ErrTokenUnknown):
		return hinted{fmt.Errorf("node at %s: %w", address, err), "kogge fleet token makes a join.yaml; the node reads it at its next boot"}
	case errors.Is(err, api.ErrNodeRevoked), errors.Is(err, fleet.ErrRevoked):
		return hinted{fmt.Errorf("node at %s: %w", address, err), lostHint}
	case errors.Is(err, api.ErrAdopted) && node.Name != "":
		return hinted{fmt.Errorf("node at %s: %w", address, err), "a node keeps its name; leave --name away"}
	case errors.As(err, new(operate.Untold)):
		return nodeError(node.Name, overHint(node.Name, err))
	case err != nil:
		return nodeError("at "+address, err)
	}
	joined := "has joined"
	if node.Before {
		joined = "is in"
	}
	fmt.Fprintf(out, "node %s %s fleet %s: kogge node status %s\n", node.Name, joined, ring.Genesis.Name, node.Name)
	if node.Unasked {
		say("No other node of fleet %s answers. If the fleet is founded, node %s does not know it, and is bound by nothing that the fleet decides.\n"+
			"Once one answers: kogge ledger fetch --fleet %[1]s, and then kogge node adopt %[3]s --fleet %[1]s", ring.Genesis.Name, node.Name, address)
	}
	return settleKeys(ctx, ring, address, node, says, out)
}

// settleKeys says what a node has of others about revoked keys, and tells it what the operator says of that.
func settleKeys(ctx context.Context, ring *keyring.Keyring, address string, node operate.Adopted, says adoption, out io.Writer) error {
	other, word := node.Other, &apiv1.RevokeRequest{All: says.all}
	again := "kogge node adopt " + address + " --fleet " + ring.Genesis.Name
	if node.Denied && (says.all || len(says.letIn) > 0) {
		return hinted{fmt.Errorf("node %s: only an admin of the fleet may say which keys are revoked, and which are not", node.Name), "ask one of them (kogge operator list) for: " + again}
	}
	if node.Denied {
		say("Whom node %s turns away on a member's word alone is told to an admin: %s", node.Name, again)
	}
	for _, typed := range says.letIn {
		key, err := toldKey(ring, other.GetTold(), typed)
		if err != nil {
			return fmt.Errorf("node %s: %w", node.Name, err)
		}
		if key == "" {
			say("Node %s does not turn away %.64q on a member's word: there is nobody to let in.", node.Name, typed)
			continue
		}
		word.LetIn = append(word.LetIn, key)
	}
	if word.All || len(word.LetIn) > 0 {
		var err error
		if other, err = (operate.Remote{Keys: ring, Name: node.Name, Address: address, Tell: notice}).TellRevoked(ctx, word); err != nil {
			return nodeError(node.Name, overHint(node.Name, err))
		}
		for _, key := range word.LetIn {
			fmt.Fprintf(out, "node %s lets in key %s again.\n", node.Name, fleet.Short(key))
		}
	}
	if other.GetForgets() {
		say("Node %s cannot read any more which keys were revoked, and of operators lets in the first one alone. If the keys that\n"+
			"are revoked here are all that the fleet has revoked: %s --all-revoked", node.Name, again)
	}
	if len(other.GetTold()) == 0 {
		return nil
	}
	named, err := holders(ring)
	if err != nil {
		return err
	}
	say("Node %s turns away %s that nobody has revoked here. The member that let it in has called them revoked:", node.Name, count(len(other.Told), "key"))
	for _, key := range other.Told {
		say("  %s  %s", apart(other.Told, key), cmp.Or(named[key].String(), "not known here"))
	}
	say("If that is so, revoke them here, too (kogge operator revoke, kogge node revoke). If the member has lied, let them in:\n"+
		"%s --let-in %s", again, apart(other.Told, other.Told[0]))
	return nil
}

// toldKey is the one of some keys that somebody means: by its digits, or by the name of who has it, as far as
// this computer knows. Who made up the others may have had them begin alike. "": none of them is meant.
func toldKey(ring *keyring.Keyring, told []string, typed string) (string, error) {
	named, err := holders(ring)
	if err != nil {
		return "", err
	}
	revoked, err := ring.RevokedKeys()
	if err != nil {
		return "", err
	}
	means := func(key string) bool { return begins(key, typed) }
	if len(typed) < hashDigits || strings.Trim(strings.ToLower(typed), "0123456789abcdef") != "" { // else a node's name could pass for a key
		means = func(key string) bool { return named[key].name == typed }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(named)), means) {
			return "", hinted{fmt.Errorf("no operator and no node of the name %.64q is known here", typed), fmt.Sprintf("of a key type %d digits or more", hashDigits)}
		}
		if has := slices.Collect(maps.Values(named)); slices.Contains(has, holder{operatorHolder, typed}) && slices.Contains(has, holder{nodeHolder, typed}) {
			return "", hinted{fmt.Errorf("an operator and a node have the name %.64q", typed), fmt.Sprintf("type %d digits or more of the key", hashDigits)}
		}
	}
	fits := slices.DeleteFunc(slices.Clone(told), func(key string) bool { return !means(key) })
	switch {
	case len(fits) == 1:
		return fits[0], nil
	case len(fits) > 1:
		return "", hinted{fmt.Errorf("%.64q is %d keys: %s", typed, len(fits), strings.Join(fits[:min(len(fits), 4)], ", ")), "type all digits of the one that is to be let in"}
	case slices.ContainsFunc(revoked, means):
		return "", hinted{fmt.Errorf("%.64q is revoked on this computer", typed), "whom operators have revoked makes a new key: kogge operator invite"}
	}
	return "", nil
}

// apart is a key in few digits, or in all of them if another one begins with the few.
func apart(all []string, key string) string {
	short := fleet.Short(key)
	if slices.ContainsFunc(all, func(other string) bool { return other != key && strings.HasPrefix(other, short) }) {
		return key
	}
	return short
}

// holder is who has a key.
type holder struct{ kind, name string }

const operatorHolder, nodeHolder = "operator", "node"

func (h holder) String() string { return strings.TrimSpace(h.kind + " " + h.name) }

// holders are those whose keys this computer knows, by key as in fleet.Peer.Key.
func holders(ring *keyring.Keyring) (map[string]holder, error) {
	all := make(map[string]holder)
	l, _, err := operate.Ledger(ring)
	if err != nil {
		return nil, err
	}
	for _, o := range l.State().Operators {
		all[o.Key.String()] = holder{operatorHolder, o.Name}
	}
	people, err := ring.Operators()
	if err != nil {
		return nil, err
	}
	for _, o := range people {
		all[o.Key] = holder{operatorHolder, o.Name}
	}
	lost, err := ring.RevokedNodes()
	if err != nil {
		return nil, err
	}
	for _, n := range lost {
		all[n.Key] = holder{nodeHolder, n.Name}
	}
	nodes, err := operate.Nodes(ring)
	for name, n := range nodes {
		all[n.Key] = holder{nodeHolder, name}
	}
	return all, err
}

// lostSeat asks whether a node is the one that it says it is, though it does not show the key of
// its seat.
func lostSeat(ctx context.Context, o *operate.OtherSeat, shows string) error {
	switch {
	case shows != "" && !begins(o.Key(), shows):
		return hinted{fmt.Errorf("node %s: %w, and %.64q was given", o.Node, o, shows), "somebody else answers there, or a digit is wrong"}
	case shows != "":
		return nil
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return hinted{fmt.Errorf("node %s: %w", o.Node, o), "if its STATE was lost or reset, add: --shows " + fleet.Short(o.Key()) + "; if not, somebody else answers in its name"}
	}
	say("Node %s has a seat in the fleet. The key of the seat, and the key that who answers at %s is known by:\n\n    %s\n    %s\n\n"+
		"A node whose STATE was lost or reset has another key, and has lost its vote. A stranger with a key of the fleet's\n"+
		"node CA has, too. The console of the node shows its key.", o.Node, o.Address, o.Seat.ID().Short(), fleet.Short(o.Key()))
	fmt.Fprint(errorOutput(), "Was its STATE lost, and is this the node? (yes or no): ")
	answer, err := askLine(ctx)
	if err != nil {
		return err
	}
	if answer != "yes" {
		return fmt.Errorf("node %s: %w: nothing was changed", o.Node, o)
	}
	return nil
}
