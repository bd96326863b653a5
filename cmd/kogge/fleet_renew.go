package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
)

// renew renews the operator's certificate and tells how it went. It is no error if it
// cannot be: the old one may do for months.
func renew(f *keyring.Keyring) string {
	err := f.RenewOperator(time.Now())
	yours := fmt.Sprintf("your certificate for fleet %s is good until %s", f.Genesis.Name, f.Certificate().Leaf.NotAfter.Local().Format(time.DateOnly))
	switch {
	case err == nil:
		return "renewed: " + yours
	case errors.Is(err, keyring.ErrLocked):
		return yours + "; to renew it with the passphrase: kogge fleet renew " + f.Genesis.Name
	case errors.Is(err, keyring.ErrNoKey):
		return yours + "; to ask for a new one: kogge operator renew --fleet " + filepath.Base(f.Dir)
	}
	return fmt.Sprintf("%s; %v", yours, err)
}

func fleetRenewCommand() *cobra.Command {
	var secret passphraseFlags
	cmd := &cobra.Command{
		Use:   "renew NAME",
		Short: "Renew your certificate for a fleet",
		Long: "Gives you a certificate for another year, signed with the operator CA's key in this folder. If that key is not\n" +
			"encrypted, every command renews the certificate in time; if it is, use this command.",
		Example: "  kogge fleet renew hanse",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := loadFleet(args[0])
			if err != nil {
				return err
			}
			if f.Locked() {
				passphrase, err := secret.known(cmd.Context(), "the keys of fleet "+args[0])
				if err != nil {
					return fleetHint(err, args[0])
				}
				if err := f.Unlock(passphrase); err != nil {
					return err
				}
			}
			if err := f.RenewOperator(time.Now()); err != nil {
				return fleetHint(err, args[0])
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has a new certificate for fleet %s, until %s.\n", f.Operator().Name, args[0], f.Certificate().Leaf.NotAfter.Local().Format(time.DateOnly))
			return nil
		},
	}
	secret.register(cmd)
	return cmd
}
