package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kogge.example/cmd/kogge/keyring"
	"kogge.example/update/fleet"
)

func fleetCommand() *cobra.Command {
	return group("fleet", "Create fleets, and let nodes into them",
		fleetCreateCommand(), fleetListCommand(), fleetShowCommand(), fleetTokenCommand(), fleetRenewCommand(), fleetRecoverCommand(), fleetFoundCommand(), fleetStatusCommand(), fleetNodesCommand(), fleetMembersCommand(), fleetEventsCommand(), fleetAcceptCommand(), fleetIsolateCommand(), fleetRejoinCommand(), fleetBackupCommand(), fleetRestoreCommand(), fleetUpgradeCommand(), fleetSignCommand(), fleetProposeCommand())
}

// configDir is where the folders of the fleets are.
func configDir() (string, error) {
	if dir := os.Getenv("KOGGE_CONFIG"); dir != "" {
		return filepath.Abs(dir)
	}
	base := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) { // the XDG specification has relative ones ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("configuration folder: %w; set KOGGE_CONFIG", err)
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "kogge"), nil
}

// fleetDir is the folder of the fleet called name, whether it is there or not.
func fleetDir(name string) (string, error) {
	if err := fleet.CheckName(name); err != nil {
		return "", fmt.Errorf("fleet: %w", err)
	}
	if name == releaseFolder {
		return "", fmt.Errorf("fleet: name %q: a folder of this name holds the keys of releases", name)
	}
	dir, err := configDir()
	return filepath.Join(dir, name), err
}

// loadFleet reads the folder of the fleet called name, and renews the operator's
// certificate if it is time and the key for it lies open.
func loadFleet(name string) (*keyring.Keyring, error) {
	dir, err := fleetDir(name)
	if err != nil {
		return nil, err
	}
	f, err := keyring.Load(dir)
	if err != nil {
		return nil, fleetHint(err, name)
	}
	if fleet.RenewDue(f.Certificate().Leaf, f.Genesis.OperatorCA, time.Now()) {
		say("%s", renew(f))
	}
	return f, nil
}

// fleetHint adds what to do about an error of the fleet called name.
func fleetHint(err error, name string) error {
	hints := []struct {
		is   error
		hint string
	}{
		{keyring.ErrNoFleet, "kogge fleet list lists the fleets; kogge fleet create " + name + " creates this one"},
		{keyring.ErrExists, "kogge fleet show " + name},
		{keyring.ErrNoKey, "do this on the computer where the fleet was created; kogge fleet show " + name + " lists the keys that are here"},
		{keyring.ErrSheet, "compare the file with the paper: a line is four groups of four, letters A to Z and digits 2 to 7"},
		{errNoTerminal, "add: --passphrase-file FILE"},
	}
	if errors.As(err, new(hinted)) {
		return err // who was closer knew better
	}
	for _, h := range hints {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}
