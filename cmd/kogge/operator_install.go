package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
)

func operatorInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install CERTIFICATE",
		Short: "Install the certificate that came back",
		Long: "Puts a certificate beside its key. After kogge operator join this creates the fleet's folder, and every\n" +
			"command works with the fleet. After kogge operator renew it replaces the old certificate.",
		Example: "  kogge operator install hanse-bob.certificate",
		Args:    exactly("CERTIFICATE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput(cmd.Context(), args[0], maxInput)
			if err != nil {
				return fmt.Errorf("operator install: %w", err)
			}
			cert, err := keyring.DecodeCertificate(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			root, err := configDir()
			if err != nil {
				return err
			}
			f, err := keyring.InstallOperator(root, cert, time.Now())
			if errors.Is(err, keyring.ErrNoKey) {
				return hinted{fmt.Errorf("%s: %w", args[0], err), "install it where kogge operator join made the key"}
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "You are %s, %s of fleet %s, until %s. The folder is %s.\n",
				f.Operator().Name, f.Operator().Role, filepath.Base(f.Dir), f.Certificate().Leaf.NotAfter.Local().Format(time.DateOnly), f.Dir)
			return nil
		},
	}
}
