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

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

// newPassphrase are the flags of a command that writes secret keys.
type newPassphrase struct {
	passphraseFlags
	none bool
}

func (p *newPassphrase) register(cmd *cobra.Command) {
	p.passphraseFlags.register(cmd)
	cmd.Flags().BoolVar(&p.none, "no-passphrase", false, "store the keys unencrypted: for trying things out")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "no-passphrase")
}

// get is the new passphrase, "" for none.
func (p *newPassphrase) get(ctx context.Context, fleet string) (string, error) {
	if p.none {
		return "", nil
	}
	passphrase, err := p.fresh(ctx, "the keys of fleet "+fleet)
	if errors.Is(err, errNoTerminal) {
		err = hinted{err, "add: --passphrase-file FILE, or --no-passphrase to store the keys unencrypted"}
	}
	return passphrase, err
}

func fleetCreateCommand() *cobra.Command {
	var secret newPassphrase
	var operator string
	var trial bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a fleet: its keys, and you as its first admin",
		Long: "Creates a fleet in a folder of its own below ~/.config/kogge (or $KOGGE_CONFIG): three owner keys, any two of\n" +
			"which act as the owner; a CA for operators and one for nodes; and your certificate as the first admin. One\n" +
			"owner key and the operator CA's key are encrypted under a passphrase. The other two owner keys are recovery\n" +
			"sheets to print. The fleet has no nodes yet: kogge fleet token lets them in.",
		Example: "  kogge fleet create hanse\n  kogge fleet create try --trial --no-passphrase",
		Args:    exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return fleetHint(createFleet(cmd.Context(), args[0], operator, policyOf(trial), secret, cmd.OutOrStdout()), args[0])
		},
	}
	secret.register(cmd)
	cmd.Flags().StringVar(&operator, "operator", defaultOperator(), "your name among the fleet's operators")
	cmd.Flags().BoolVar(&trial, "trial", false, "a fleet for trying things out: its policy has minutes where others have hours, for good")
	return cmd
}

func policyOf(trial bool) fleet.Policy {
	if trial {
		return fleet.TrialPolicy()
	}
	return fleet.DefaultPolicy()
}

// defaultOperator is the user's name, if it is one an operator may have.
func defaultOperator() string {
	name := strings.ToLower(os.Getenv("USER"))
	if name == "root" || fleet.CheckOperatorName(name) != nil {
		return "admin"
	}
	return name
}

func createFleet(ctx context.Context, name, operator string, policy fleet.Policy, secret newPassphrase, out io.Writer) error {
	dir, err := fleetDir(name)
	if err != nil {
		return err
	}
	f, err := keyring.CreateWith(policy, name, operator, time.Now())
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil { // before anybody thinks of a passphrase; Save makes sure
		return fmt.Errorf("fleet %s %w: %s", name, keyring.ErrExists, dir)
	}
	passphrase, err := secret.get(ctx, name)
	if err != nil {
		return err
	}
	if err := f.Save(dir, passphrase); err != nil {
		return err
	}
	fmt.Fprintf(out, "Fleet %s is created, with %s as its first admin.\n  id      %s\n  folder  %s\n\n", name, operator, f.Genesis.ID(), dir)
	fmt.Fprintf(out, "Print these recovery sheets, keep them in two places, and delete the files. There are\nthree owner keys, these and one in the folder; any two act as the owner of the fleet:\n")
	for _, sheet := range f.Sheets() {
		fmt.Fprintf(out, "  %s\n", sheet)
	}
	if passphrase == "" {
		fmt.Fprintf(out, "\nThe keys are not encrypted: whoever can read the folder controls the fleet.\n")
	}
	fmt.Fprintf(out, "\nNext, a file that lets a node in:\n  kogge fleet token %s\n", name)
	return nil
}
