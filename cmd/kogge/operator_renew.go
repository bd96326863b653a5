package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

func operatorRenewCommand() *cobra.Command {
	var t target
	var out string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Ask for a new certificate for the key you have",
		Long: "Writes a request for another year, to send to whoever signed you. The old certificate may have expired.\n" +
			"When the new one comes back, use kogge operator install. On the computer where the fleet was created,\n" +
			"kogge fleet renew does it at once.",
		Example: "  kogge operator renew --fleet hanse",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			if f.HoldsCA(fleet.KindOperator) != keyring.Elsewhere {
				return hinted{fmt.Errorf("operator renew: this computer signs the operators of fleet %s", t.fleet), "kogge fleet renew " + t.fleet}
			}
			r, err := f.RenewalRequest()
			if err != nil {
				return err
			}
			if out == "" {
				out = f.Genesis.Name + "-" + r.Name + ".request"
			}
			if err := writeRequest(out, r); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s asks for another year as %s of fleet %s. Send it to whoever signed you before, who types:\n  kogge operator sign %s\n",
				out, r.Role, f.Genesis.Name, filepath.Base(out))
			return nil
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.request)")
	return cmd
}
