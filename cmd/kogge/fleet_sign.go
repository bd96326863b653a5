package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
)

func fleetSignCommand() *cobra.Command {
	var t target
	var owner ownerFlags
	var agreed consent
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign the founding of a fleet with an owner key, in a file that travels",
		Long: "Reads what kogge fleet found --sign-with has written, shows who gets a seat and who is an operator, and adds the\n" +
			"signatures of the owner keys that are here: in the fleet's folder, or on recovery sheets (--sheet). In scripts,\n" +
			"--record gives the hash of the record that you were told. The file holds no secret.",
		Example: "  kogge fleet sign founding.txt --sheet recovery-3.txt",
		Args:    exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ring, err := t.openFleet()
			if err != nil {
				return err
			}
			return signDraft(cmd.Context(), ring, args[0], &agreed, &owner, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	owner.register(cmd)
	agreed.register(cmd)
	return cmd
}

func signDraft(ctx context.Context, ring *keyring.Keyring, file string, agreed *consent, owner *ownerFlags, out io.Writer) error {
	d, err := readDraft(ring, file)
	if err != nil {
		return err
	}
	if d.Enough() {
		if err := printDraft(out, ring, d); err != nil {
			return err
		}
		fmt.Fprintf(out, "Enough owner keys have signed it already.\n")
		return nil
	}
	instead, err := agreed.get(ctx, ring, d, nil, out)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	keys, err := owner.some(ctx, ring)
	if err != nil {
		return err
	}
	signed, err := operate.SignDraft(ring, d, keys, instead)
	if err != nil {
		return err
	}
	if len(signed.Owners) == len(d.Owners) {
		return hinted{fmt.Errorf("%s: the owner keys that are here have signed it already", file), "another owner has to: send it on"}
	}
	if err := writeDraft(file, signed, out); err != nil || !signed.Enough() {
		return err
	}
	_, err = fmt.Fprintf(out, "Send it back to who founds the fleet, who types the command again that wrote it:\n  kogge fleet found … --sign-with %s\n", filepath.Base(file))
	return err
}

// readDraft reads the file of a founding that is being signed. The error wraps [fs.ErrNotExist]
// where there is none.
func readDraft(ring *keyring.Keyring, file string) (ledger.Draft, error) {
	f, err := os.Open(file)
	if err != nil {
		return ledger.Draft{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 2*ledger.MaxEntry+1))
	if err != nil {
		return ledger.Draft{}, err
	}
	e, err := ledger.ParseEntry(text, 1)
	if err == nil {
		var d ledger.Draft
		if d, err = ledger.ParseDraft(ring.Genesis, e); err == nil {
			return d, nil
		}
	}
	if errors.Is(err, ledger.ErrFile) {
		err = hinted{err, "kogge fleet found --sign-with writes such a file"}
	}
	return ledger.Draft{}, fmt.Errorf("%s: %w", file, err)
}

// writeDraft writes the file, and says who has to sign it.
func writeDraft(file string, d ledger.Draft, out io.Writer) error {
	if err := durable.Replace(file, ledger.FormatEntry(1, d.Entry()), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is signed by %s; %d found the fleet. Its record is\n  %s\n", file, count(len(d.Owners), "owner key"), d.State.Genesis.Threshold, d.State.Record)
	if !d.Enough() {
		fmt.Fprintf(out, "Send it to another owner, who types:\n  kogge fleet sign %s\n", filepath.Base(file))
	}
	return nil
}
