package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

func operatorInviteCommand() *cobra.Command {
	var t target
	var role, out string
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "invite NAME --role ROLE",
		Short: "Invite somebody to operate the fleet",
		Long: "Writes an invitation to send to somebody: the fleet's genesis, a name, a role (kogge help roles explains\n" +
			"them), and a secret that is good for one key. Signing and revoking stay with this computer.\n\n" +
			"Without the file, nobody can use the invitation. Somebody who reads the file on its way could come first,\n" +
			"with a key of their own: so compare the key with each other when you sign.",
		Example: "  kogge operator invite bob --role operator",
		Args:    exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := t.openFleet()
			if err != nil {
				return err
			}
			return fleetHint(invite(f, args[0], role, life, out, cmd.OutOrStdout()), t.fleet)
		},
	}
	t.fleetFlag(cmd)
	cmd.Flags().StringVar(&role, "role", "", "reader, operator or admin")
	cmd.Flags().DurationVar(&life, "expires", keyring.InvitationLife, "time until the invitation expires")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.invite)")
	completeFlag(cmd, "role", cobra.FixedCompletions([]string{"reader", "operator", "admin"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func invite(f *keyring.Keyring, name, role string, life time.Duration, out string, stdout io.Writer) error {
	if role == "" {
		return usage{hinted{errors.New("operator invite: no role"), "add: --role reader, --role operator or --role admin"}}
	}
	if life <= 0 {
		return errors.New("operator invite: --expires must be positive")
	}
	parsed, err := fleet.ParseRole(role)
	if err != nil {
		return fmt.Errorf("operator invite: %w", err)
	}
	if err := fleet.CheckOperatorName(name); err != nil { // before it becomes the name of a file
		return fmt.Errorf("operator invite: %w", err)
	}
	if out == "" {
		out = f.Genesis.Name + "-" + name + ".invite"
	}
	var i *keyring.Invitation
	err = writeSecret(out, func() ([]byte, error) {
		if i, err = f.Invite(name, parsed, life, time.Now()); err != nil {
			return nil, err
		}
		return keyring.MarshalInvitation(i)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s invites %s into fleet %s as %s, until %s.\nSend it to %s, who types:\n  kogge operator join %s\n",
		out, name, f.Genesis.Name, parsed, i.Expires.Local().Format(minute), name, filepath.Base(out))
	fmt.Fprintf(stdout, "Compare the id of the fleet with each other, for example by telephone:\n  %s\n", fingerprint(f.Genesis.ID()))
	return tellUnlisted(f, name, "")
}

// writeSecret writes a file that is not there yet, for this user alone, with what
// content returns; where that fails there is no file.
func writeSecret(name string, content func() ([]byte, error)) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hinted{fmt.Errorf("%s exists already", name), "delete it, or add: -o FILE"}
	}
	if err != nil {
		return err
	}
	text, err := content()
	if err == nil {
		_, err = file.Write(text)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}
