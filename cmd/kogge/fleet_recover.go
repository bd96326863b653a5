package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func fleetRecoverCommand() *cobra.Command {
	var secret newPassphrase
	var sheet string
	var check bool
	cmd := &cobra.Command{
		Use:   "recover NAME --sheet FILE",
		Short: "Restore an owner key from its recovery sheet",
		Long: "Reads the four lines of a recovery sheet, printed or typed, and writes the owner key to the fleet's folder.\n" +
			"With --check it only says which key the sheet holds.",
		Example: "  kogge fleet recover hanse --sheet typed.txt --check",
		Args:    exactly("NAME"), ValidArgsFunction: completeFleets,
		RunE: func(cmd *cobra.Command, args []string) error {
			if sheet == "" {
				return usage{hinted{errors.New("fleet recover: no sheet"), "add: --sheet FILE"}}
			}
			return fleetHint(recoverOwner(cmd.Context(), args[0], sheet, check, secret, cmd.OutOrStdout()), args[0])
		},
	}
	secret.register(cmd)
	cmd.Flags().StringVar(&sheet, "sheet", "", "file with the four lines")
	cmd.Flags().BoolVar(&check, "check", false, "only check the sheet")
	return cmd
}

func recoverOwner(ctx context.Context, name, sheet string, check bool, secret newPassphrase, out io.Writer) error {
	f, err := loadFleet(name)
	if err != nil {
		return err
	}
	text, err := readInput(ctx, sheet, maxInput)
	if err != nil {
		return fmt.Errorf("fleet recover: sheet: %w", err)
	}
	i, err := f.Recover(text, "", true)
	if err != nil {
		return fmt.Errorf("%s: %w", sheet, err)
	}
	if check {
		fmt.Fprintf(out, "%s is correct: it is owner key %d of %d of fleet %s.\n", sheet, i, len(f.Genesis.Owners), name)
		return nil
	}
	passphrase, err := secret.get(ctx, name)
	if err != nil {
		return err
	}
	if _, err := f.Recover(text, passphrase, false); err != nil {
		return err
	}
	fmt.Fprintf(out, "Owner key %d of %d of fleet %s is in %s.\n", i, len(f.Genesis.Owners), name, f.Dir)
	return nil
}
