package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/document"
)

func operatorSignCommand() *cobra.Command {
	var secret passphraseFlags
	var compared, out string
	cmd := &cobra.Command{
		Use:   "sign REQUEST",
		Short: "Sign an invited operator's request",
		Long: "Signs the request of somebody who was invited, or of an operator who wants a new certificate. If the key is\n" +
			"new, its fingerprint is shown: compare it by telephone, because a file can be changed on its way. In scripts,\n" +
			"--fingerprint gives the fingerprint that you were told.",
		Example: "  kogge operator sign hanse-bob.request",
		Args:    exactly("REQUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return sign(cmd, args[0], compared, out, &secret)
		},
	}
	secret.register(cmd)
	cmd.Flags().StringVar(&compared, "fingerprint", "", "fingerprint that you were told (default: ask on the terminal)")
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: FLEET-NAME.certificate)")
	return cmd
}

func sign(cmd *cobra.Command, file, compared, out string, secret *passphraseFlags) error {
	text, err := readInput(cmd.Context(), file, maxInput)
	if err != nil {
		return fmt.Errorf("operator sign: %w", err)
	}
	r, err := keyring.ParseRequest(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	name, f, err := fleetByID(r.Fleet)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	known, err := f.CheckRequest(r, time.Now())
	if err != nil {
		return requestHint(err, r, name)
	}
	if !known {
		if err := compare(cmd.Context(), r, f.Genesis.Name, compared); err != nil {
			return err
		}
	}
	if err := unlock(cmd.Context(), f, name, secret); err != nil {
		return err
	}
	if out == "" {
		out = f.Genesis.Name + "-" + r.Name + ".certificate"
	}
	der, err := f.SignRequest(r, time.Now())
	if err != nil {
		return requestHint(fleetHint(err, name), r, name)
	}
	if err := os.WriteFile(out, keyring.EncodeCertificate(der), 0o644); err != nil {
		return err // the same request is signed again at any time
	}
	what := "makes " + r.Name + " " + string(r.Role) + " of fleet " + f.Genesis.Name
	if known {
		what = "renews " + r.Name + ", " + string(r.Role) + " of fleet " + f.Genesis.Name
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s for a year. Send it to %s, who types:\n  kogge operator install %s\n", out, what, r.Name, filepath.Base(out))
	return tellUnlisted(f, r.Name, r.Key())
}

// tellUnlisted warns of an operator whom the fleet does not list.
func tellUnlisted(f *keyring.Keyring, name, key string) error {
	warning, err := unlisted(f, name, key)
	if warning != "" {
		say("%s", warning)
	}
	return err
}

// unlisted says that nodes turn an operator away until the fleet lists him; "" where they do
// not. key is as in fleet.Peer.Key; "" is one that is not made yet.
func unlisted(f *keyring.Keyring, name, key string) (string, error) {
	l, _, err := operate.Ledger(f)
	if err != nil || l.State().Height == 0 {
		return "", err
	}
	if id, err := document.ParseHash(key); err == nil {
		if _, listed := l.State().Operator(id); listed {
			return "", nil
		}
	}
	return fmt.Sprintf("fleet %s is founded, and its ledger does not list this key of %s: a certificate alone gives no rights there.\n"+
		"Nodes turn %[2]s away until the fleet has decided to list the key. This release cannot decide that yet.", f.Genesis.Name, name), nil
}

// requestHint adds what to do about a request that is not signed.
func requestHint(err error, r *keyring.OperatorRequest, fleetName string) error {
	again := fmt.Sprintf("to let them in: kogge operator invite %s --role %s --fleet %s", r.Name, r.Role, fleetName)
	for _, h := range []struct {
		is   error
		hint string
	}{
		{keyring.ErrNotInvited, "invitations are signed where they were made; " + again},
		{keyring.ErrInvitationExpired, again},
		{keyring.ErrInvitationUsed, "did " + r.Name + " make the other key? if not, a stranger read the mail: kogge operator revoke " + r.Name + " --fleet " + fleetName},
		{keyring.ErrAskedOther, "the file was changed on its way: ask for it again"},
		{fleet.ErrRevoked, "an operator who returns makes a new key; " + again},
	} {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}

// fleetByID finds the folder of a fleet, and what it is called here.
func fleetByID(id string) (string, *keyring.Keyring, error) {
	root, err := configDir()
	if err != nil {
		return "", nil, err
	}
	names, err := keyring.List(root)
	if err != nil {
		return "", nil, err
	}
	for _, name := range names {
		if f, err := keyring.Load(filepath.Join(root, name)); err == nil && f.Genesis.ID() == id {
			f, err := loadFleet(name) // which also renews
			return name, f, err
		}
	}
	return "", nil, hinted{fmt.Errorf("it is for fleet %s, which this computer does not have", fleet.Short(id)), "kogge fleet list lists the fleets"}
}

// unlock opens the operator CA's key, if it is under a passphrase.
func unlock(ctx context.Context, f *keyring.Keyring, name string, secret *passphraseFlags) error {
	if !f.Locked() {
		return nil
	}
	passphrase, err := secret.known(ctx, "the keys of fleet "+name)
	if err == nil {
		err = f.Unlock(passphrase)
	}
	return fleetHint(err, name)
}

// compare wants that somebody has compared the key of a request with who made it.
func compare(ctx context.Context, r *keyring.OperatorRequest, fleet, told string) error {
	own := fingerprint(r.Key())
	if told != "" {
		if plain := strings.NewReplacer(" ", "", ":", "").Replace; plain(strings.ToLower(told)) != plain(own) {
			return hinted{fmt.Errorf("request of operator %s: its key is %s, not %s", r.Name, own, told), "do not sign: somebody else made this request, or a digit is wrong"}
		}
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return hinted{fmt.Errorf("request of operator %s: there is no terminal to ask whether its key was compared", r.Name), "add what you were told: --fingerprint '…'"}
	}
	say("%s wants to be %s of fleet %s. The key in this request is\n\n    %s\n", r.Name, r.Role, fleet, own)
	fmt.Fprintf(errorOutput(), "Does %s see the same? Ask, but not over the way that the file came (yes or no): ", r.Name)
	answer, err := askLine(ctx)
	if err != nil {
		return err
	}
	if answer != "yes" {
		return fmt.Errorf("request of operator %s: not compared: nothing was signed", r.Name)
	}
	return nil
}

// askLine reads a line from the terminal.
func askLine(ctx context.Context) (string, error) {
	text, err := bufio.NewReader(patient{ctx, os.Stdin}).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimSpace(text), err
}
