package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/cmd/kogge/keyring"
	"kogge.example/cmd/kogge/operate"
)

// ownerFlags say where the owner's keys come from, beside the fleet's folder.
type ownerFlags struct {
	secret passphraseFlags
	sheets []string
}

func (f *ownerFlags) register(cmd *cobra.Command) {
	f.secret.register(cmd)
	cmd.Flags().StringArrayVar(&f.sheets, "sheet", nil, "`FILE` with the four lines of a recovery sheet; may be repeated")
}

// open opens the owner keys: of sheets, and of the folder. It says what is missing before it
// asks for a passphrase.
func (f *ownerFlags) open(ctx context.Context, ring *keyring.Keyring) (keyring.OwnerKeys, error) {
	return f.openBy(ctx, ring, ring.OwnerKeys)
}

// some opens the owner keys that are at hand, where others sign too.
func (f *ownerFlags) some(ctx context.Context, ring *keyring.Keyring) (keyring.OwnerKeys, error) {
	return f.openBy(ctx, ring, ring.SomeOwnerKeys)
}

func (f *ownerFlags) openBy(ctx context.Context, ring *keyring.Keyring, open func(func() (string, error), ...[]byte) (keyring.OwnerKeys, error)) (keyring.OwnerKeys, error) {
	passphrase := func() (string, error) { return f.secret.known(ctx, "the owner keys of fleet "+ring.Genesis.Name) }
	var sheets [][]byte
	for _, name := range f.sheets {
		text, err := os.ReadFile(name)
		if there := ring.Sheets(); errors.Is(err, fs.ErrNotExist) && len(there) > 0 {
			return keyring.OwnerKeys{}, hinted{fmt.Errorf("sheet: %w", err), "the fleet's folder has " + strings.Join(there, " and ")}
		}
		if err != nil {
			return keyring.OwnerKeys{}, fmt.Errorf("sheet: %w", err)
		}
		sheets = append(sheets, text)
	}
	owner, err := open(passphrase, sheets...)
	if errors.Is(err, keyring.ErrOwners) {
		hint := "type the four lines of a recovery sheet into a file, and add: --sheet FILE"
		if there := ring.Sheets(); len(there) > 0 {
			hint = "add: --sheet " + there[0]
		}
		return owner, hinted{err, hint}
	}
	return owner, err
}

// permit is the owner's leave for a node to boot a release in its other slot: nil where the
// fleet is not founded, or has one vote. The node and this computer tell each other first what
// they know of the ledger. digest says which release, once it is known that this is asked.
func (f *ownerFlags) permit(ctx context.Context, ring *keyring.Keyring, name string, c *api.Client, digest func(board string) (string, error)) ([]byte, error) {
	l, node, err := operate.Level(ctx, ring, c, name)
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		return nil, nil // its release knows of no ledger
	}
	if err != nil || l.State().Roster.Votes() < 2 {
		return nil, err
	}
	owner, err := f.open(ctx, ring)
	if err != nil {
		return nil, err
	}
	status, err := c.Status(ctx, connect.NewRequest(&apiv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	which, err := digest(status.Msg.GetBoot().GetBoard())
	if err != nil {
		return nil, err
	}
	slots, err := c.ListSlots(ctx, connect.NewRequest(&apiv1.ListSlotsRequest{}))
	if err != nil {
		return nil, err
	}
	return operate.Permit(l.State(), node, which, slots.Msg, owner)
}
