package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
)

func operatorJoinCommand() *cobra.Command {
	var as, out string
	cmd := &cobra.Command{
		Use:   "join INVITATION",
		Short: "Accept an invitation: make your key, and ask for a certificate",
		Long: "Makes your key on this computer, where it stays, and writes a request to send back. The request holds no\n" +
			"secret. When the certificate comes back, kogge operator install creates the fleet's folder.",
		Example: "  kogge operator join hanse-bob.invite",
		Args:    exactly("INVITATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return joinFleet(cmd.Context(), args[0], as, out, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "`NAME` of the fleet on this computer (default: the name in the invitation)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.request)")
	return cmd
}

func joinFleet(ctx context.Context, file, as, out string, stdout io.Writer) error {
	text, err := readInput(ctx, file, maxInput)
	if err != nil {
		return fmt.Errorf("operator join: %w", err)
	}
	i, err := keyring.ParseInvitation(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if as == "" {
		as = i.Genesis.Name
	}
	root, err := configDir()
	if err != nil {
		return err
	}
	if out == "" {
		out = i.Genesis.Name + "-" + i.Name + ".request"
	}
	j, err := keyring.Accept(root, as, i, time.Now())
	switch {
	case errors.Is(err, keyring.ErrExists):
		return hinted{err, "if you are in the fleet already: kogge operator renew; if another fleet has this name: add --as NAME"}
	case errors.Is(err, keyring.ErrInvitationExpired):
		return hinted{err, "ask for another one"}
	case err != nil:
		return err
	}
	if err := writeRequest(out, j.Request); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s asks to be %s of fleet %s, as %s. Send it back, and compare with\nwhoever invited you, for example by telephone:\n", out, i.Name, i.Genesis.Name, i.Role)
	fmt.Fprintf(stdout, "  your key   %s\n  the fleet  %s\n", fingerprint(j.Request.Key()), fingerprint(i.Genesis.ID()))
	fmt.Fprintf(stdout, "You get a certificate back:\n  kogge operator install %s-%s.certificate\n", i.Genesis.Name, i.Name)
	return nil
}

// writeRequest writes a request, which is no secret, over an earlier one.
func writeRequest(name string, r *keyring.OperatorRequest) error {
	text, err := keyring.MarshalRequest(r)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}
