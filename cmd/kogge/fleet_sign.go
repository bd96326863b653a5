package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
	"kogge.example/update/durable"
	"kogge.example/update/fleet/ledger"
)

func fleetSignCommand() *cobra.Command {
	var t target
	var owner ownerFlags
	var record string
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
			return signDraft(cmd.Context(), ring, args[0], record, &owner, cmd.OutOrStdout())
		},
	}
	t.fleetFlag(cmd)
	owner.register(cmd)
	cmd.Flags().StringVar(&record, "record", "", "`HASH` of the record, or its first 12 digits (default: ask on the terminal)")
	return cmd
}

func signDraft(ctx context.Context, ring *keyring.Keyring, file, record string, owner *ownerFlags, out io.Writer) error {
	d, err := readDraft(ring, file)
	if err != nil {
		return err
	}
	if err := printRoster(out, d.State); err != nil {
		return err
	}
	t := newTable(out)
	t.head("OPERATOR\tROLE\tKEY")
	for _, o := range d.State.Operators {
		t.row("%s\t%s\t%s\n", o.Name, o.Role, o.Key.Short())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	hash := d.State.Record.String()
	fmt.Fprintf(out, "\nRecord 1 of fleet %s would be %s.\n", ring.Genesis.Name, hash)
	if d.Enough() {
		fmt.Fprintf(out, "Enough owner keys have signed it already.\n")
		return nil
	}
	switch {
	case record != "":
		if len(record) < 12 || !strings.HasPrefix(hash, strings.ToLower(record)) {
			return hinted{fmt.Errorf("%s: its record is %s, and not %.64q", file, hash, record), "do not sign: the file was changed, or is another one"}
		}
	case !term.IsTerminal(int(os.Stdin.Fd())):
		return hinted{fmt.Errorf("%s: there is no terminal to ask whether it may be signed", file), "add the record that you were told: --record " + d.State.Record.Short()}
	default:
		fmt.Fprint(errorOutput(), "Sign this? (yes or no): ")
		answer, err := askLine(ctx)
		if err != nil {
			return err
		}
		if answer != "yes" {
			return fmt.Errorf("%s: nothing was signed", file)
		}
	}
	keys, err := owner.some(ctx, ring)
	if err != nil {
		return err
	}
	signed := operate.SignDraft(d, keys)
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
