package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/votes"
	"kogge.example/cmd/kogge/votes/agenda"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/proposal"
	"kogge.example/update/fleet/roster"
)

// ownerAnswer are the flags of what an owner answers.
type ownerAnswer struct {
	target
	keys   ownerFlags
	yes    bool
	reason string
	file   string // that travels
	owner  string
	id     string // that he was told; "": ask on the terminal
}

func voteAnswerCommand(yes bool) *cobra.Command {
	p := ownerAnswer{yes: yes}
	word := yesNo(yes)
	short, example := "Say yes to a proposal, as an owner of seats", "  kogge vote yes 17 --sheet recovery-2.txt\n  kogge vote yes 17 --sign-with yes-17.txt"
	if !yes {
		short, example = "Say no to a proposal, as an owner of seats", "  kogge vote no 17 --reason too-early --sheet recovery-2.txt"
	}
	cmd := &cobra.Command{
		Use: word + " NUMBER", Short: short, Args: exactly("NUMBER"), Example: example,
		Long: "Shows what the proposal changes, has the owner sign the answer, and gives it to the nodes. It counts for all of his\n" +
			"seats; of two answers the later one counts. The owner signs with the owner keys in the fleet's folder, and with\n" +
			"recovery sheets (--sheet). If they are in several places, --sign-with writes the answer into a file, which travels:\n" +
			"each of the others types the same command with it, and the last one's gives the answer to the nodes. In scripts, --id\n" +
			"gives the id of the proposal, as kogge vote show has it. The file holds no secret.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := p.openFleet()
			if err != nil {
				return err
			}
			return voteHint(p.run(cmd.Context(), ring, args[0], cmd.OutOrStdout()))
		},
	}
	p.fleetFlag(cmd)
	p.keys.register(cmd)
	cmd.Flags().StringVar(&p.reason, "reason", "", "a `TEXT` that says why, for all who vote")
	cmd.Flags().StringVar(&p.file, "sign-with", "", "`FILE` that owners in other places sign, too")
	cmd.Flags().StringVar(&p.owner, "owner", "", "`OWNER` who answers (default: the fleet's)")
	cmd.Flags().StringVar(&p.id, "id", "", "`ID` of the proposal, or its first 12 digits (default: ask on the terminal)")
	return cmd
}

// run has an owner answer a proposal.
func (p *ownerAnswer) run(ctx context.Context, ring *keyring.Keyring, name string, out io.Writer) error {
	s, item, a, err := p.find(ctx, ring, name)
	if err != nil {
		return err
	}
	owner, there := s.Roster.Owner(a.Owner)
	if !there {
		return hinted{fmt.Errorf("fleet %s: it has no owner %.64q", ring.Genesis.Name, a.Owner), "kogge vote show lists the owners who are asked"}
	}
	needed := owner.Threshold
	if item.Kind.OneKey() {
		needed = 1
	}
	fmt.Fprintf(out, "proposal %d: ", item.Number)
	printDecision(out, s, item.Value)
	if item.Why != "" {
		fmt.Fprintf(out, "%s gives this reason: %s\n", cell(item.By), cell(item.Why))
	}
	if item.Wrong != "" {
		fmt.Fprintf(out, "It cannot be decided as the ledger is now: %s\n", cell(item.Wrong))
	}
	fmt.Fprintf(out, "Its id is %s.\n", item.ID)
	if len(a.Signatures) < needed {
		if err := p.consent(ctx, item, owner); err != nil {
			return err
		}
		if err := p.sign(ctx, ring, s, owner, &a, needed); err != nil {
			return err
		}
	}
	if p.file != "" {
		if err := writePaper(p.file, item, a, needed, out); err != nil || len(a.Signatures) < needed {
			return err
		}
	}
	told, err := votes.Submit(ctx, ring, [][]byte{item.Envelope.Bytes(), a.Encode()}, notice)
	if err != nil {
		return err
	}
	printTaken(out, fmt.Sprintf("The %s of owner %s", yesNo(p.yes), owner.Name), told)
	return nil
}

// find is the proposal, and the answer to it: as a file has it that came from another owner, or a new one.
func (p *ownerAnswer) find(ctx context.Context, ring *keyring.Keyring, name string) (s ledger.State, item agenda.Item, a proposal.Answer, err error) {
	if p.file != "" {
		s, item, a, err = p.read(ring, name)
		if !errors.Is(err, fs.ErrNotExist) {
			return s, item, a, err
		}
	}
	b, err := votes.Look(ctx, ring, notice)
	if err != nil {
		return s, item, a, err
	}
	if item, err = b.Find(name); err != nil {
		return s, item, a, waitsHint(err)
	}
	owner := p.owner
	if owner == "" {
		owner = ring.Genesis.Name
	}
	return b.State, item, votes.Answer(item, owner, p.yes, p.reason, time.Now()), nil
}

// read is the answer that a file has. The error wraps [fs.ErrNotExist] where there is none.
func (p *ownerAnswer) read(ring *keyring.Keyring, name string) (s ledger.State, item agenda.Item, a proposal.Answer, err error) {
	f, err := os.Open(p.file)
	if err != nil {
		return s, item, a, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, votes.MaxPaper+1))
	if err == nil {
		s, _, err = votes.Here(ring)
	}
	var paper votes.Paper
	if err == nil {
		paper, item, err = votes.ParsePaper(raw, s)
	}
	switch {
	case err != nil:
		return s, item, a, fmt.Errorf("%s: %w", p.file, hinted{err, "kogge vote yes NUMBER --sign-with FILE writes such a file; kogge ledger fetch, if this computer's ledger is old"})
	case fmt.Sprint(item.Number) != name && !begins(item.ID.String(), name):
		err = fmt.Errorf("%s: it answers proposal %d, and not %.64q", p.file, item.Number, name)
	case paper.Answer.Yes != p.yes:
		err = fmt.Errorf("%s: it says %s", p.file, yesNo(paper.Answer.Yes))
	case p.reason != "" && p.reason != paper.Answer.Why:
		err = fmt.Errorf("%s: others have signed it with another reason", p.file)
	case p.owner != "" && p.owner != paper.Answer.Owner:
		err = fmt.Errorf("%s: it is the answer of owner %s", p.file, paper.Answer.Owner)
	}
	return s, item, paper.Answer, err
}

// consent has a person see what he signs.
func (p *ownerAnswer) consent(ctx context.Context, item agenda.Item, owner roster.Owner) error {
	switch {
	case p.id != "":
		if !begins(item.ID.String(), p.id) {
			return hinted{fmt.Errorf("proposal %d: its id is %s, and not %.64q", item.Number, item.ID, p.id), "do not sign: it is another one than you were told"}
		}
		return nil
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return hinted{fmt.Errorf("proposal %d: there is no terminal to ask whether owner %s says %s", item.Number, owner.Name, yesNo(p.yes)), "look at what it changes; if that is right, add: --id " + item.ID.Short()}
	}
	fmt.Fprintf(errorOutput(), "Owner %s says %s to this? (yes or no): ", owner.Name, yesNo(p.yes))
	answer, err := askLine(ctx)
	if err == nil && answer != "yes" {
		err = fmt.Errorf("proposal %d: nothing was signed", item.Number)
	}
	return err
}

// sign adds the signatures of the owner's keys that are at hand.
func (p *ownerAnswer) sign(ctx context.Context, ring *keyring.Keyring, s ledger.State, owner roster.Owner, a *proposal.Answer, needed int) error {
	keys, err := p.keys.openBy(ctx, ring, func(passphrase func() (string, error), sheets ...[]byte) (keyring.OwnerKeys, error) {
		return ring.KeysOf(owner, needed, passphrase, sheets...)
	})
	if err != nil {
		return err
	}
	news := votes.Sign(s, a, keys, needed)
	if _, err := proposal.ParseAnswer(a.Encode()); err != nil { // a reason that is too long, say
		return err
	}
	switch {
	case len(a.Signatures) < needed && p.file == "":
		hint := "add --sheet FILE, or --sign-with FILE for an owner key that is elsewhere"
		if there := ring.Sheets(); len(there) > 0 {
			hint = "add: --sheet " + there[0]
		}
		return hinted{fmt.Errorf("owner %s: %w: here is %d, and any %d of %d act as the owner", owner.Name, keyring.ErrOwners, len(a.Signatures), needed, len(owner.Keys)), hint}
	case news == 0:
		return hinted{fmt.Errorf("%s: the owner keys that are here have signed it already", p.file), "another owner has to: send it on"}
	}
	return nil
}

// writePaper writes the file, and says who has to sign it.
func writePaper(file string, item agenda.Item, a proposal.Answer, needed int, out io.Writer) error {
	raw, err := votes.Paper{Proposal: item.Envelope.Bytes(), Answer: a}.Encode()
	if err == nil {
		err = durable.Replace(file, raw, 0o644)
	}
	if err != nil {
		return err
	}
	var by []string
	for _, s := range a.Signatures {
		by = append(by, fmt.Sprint(s.By))
	}
	fmt.Fprintf(out, "%s is signed by owner key %s; %d answer.\n", file, strings.Join(by, " and "), needed)
	if len(a.Signatures) < needed {
		fmt.Fprintf(out, "Send it to another owner, who types:\n  kogge vote %s %d --sign-with %s\n", yesNo(a.Yes), item.Number, filepath.Base(file))
	}
	return nil
}
