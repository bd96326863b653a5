package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	layout "kogge.example/update/release"
	"kogge.example/update/release/keys"
)

func releaseCommand() *cobra.Command {
	return group("release", "Build, sign and distribute releases",
		releaseCreateCommand(), releaseSignCommand(), releaseInspectCommand(), releaseVerifyCommand(),
		releasePushCommand(), releasePullCommand(),
		group("keys", "Manage the keys that sign releases",
			keysCreateCommand(), keysListCommand(), keysMakeCommand(), keysAddCommand(), keysRotateCommand()))
}

// openStored opens a release on this computer and reads its documents.
func openStored(ctx context.Context, name string) (layout.Local, *layout.Bundle, error) {
	src, err := layout.Open(name)
	if err != nil {
		return nil, nil, err
	}
	b, err := layout.Read(ctx, src)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), src.Close())
	}
	return src, b, nil
}

// releaseHint adds what to do about an error of a release or its keys.
func releaseHint(err error) error {
	hints := []struct {
		is   error
		hint string
	}{
		{keys.ErrNoSet, "kogge release keys create makes one; kogge release keys list lists the sets"},
		{keys.ErrExists, "kogge release keys list shows it"},
		{keys.ErrTooFew, "name the others: --key FILE, once for each; they may be on other media"},
		{layout.ErrSignatures, "kogge release inspect shows who has signed; kogge release sign adds a signature"},
		{layout.ErrExpired, "make it again: kogge release create"},
		{layout.ErrTrust, "name a root.json or a key set: --trust"},
		{layout.ErrNoLayout, "a release is a folder or tar that kogge release create made"},
		{layout.ErrLayout, "copy it again, or make it again: a release is a folder or tar that kogge release create made"},
		{errNoTerminal, "add: --passphrase-file FILE"},
	}
	if err == nil || errors.As(err, new(hinted)) || errors.As(err, new(usage)) {
		return err // who was closer knew better
	}
	for _, h := range hints {
		if errors.Is(err, h.is) {
			return hinted{err, h.hint}
		}
	}
	return err
}

// keysDir is where the key sets are.
func keysDir() (string, error) {
	dir, err := configDir()
	return filepath.Join(dir, releaseFolder), err
}

// releaseFolder lies beside the folders of the fleets.
const releaseFolder = "release"

const (
	defaultKeys = "default"
	devKeys     = "dev" // those of the VMs on this computer, as the fleet dev is
)

// openKeys opens a key set: the one called name, or, if that is "", the one called
// default, or the only one that there is.
func openKeys(name string) (*keys.Set, error) {
	dir, err := keysDir()
	if err != nil {
		return nil, err
	}
	if name == "" {
		names, err := keySets()
		if err != nil {
			return nil, err
		}
		name = defaultKeys
		if len(names) == 1 {
			name = names[0]
		}
	}
	if err := checkKeysName(name); err != nil {
		return nil, err
	}
	set, err := keys.Open(filepath.Join(dir, name))
	if errors.Is(err, keys.ErrNoSet) {
		return nil, releaseHint(fmt.Errorf("key set %s: %w", name, err))
	}
	return set, err
}

// keySets are the names of the key sets, sorted.
func keySets() ([]string, error) {
	dir, err := keysDir()
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "1.root.json"))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	for i, file := range found {
		names[i] = filepath.Base(filepath.Dir(file))
	}
	return names, nil
}

// readTrust is the root.json that a --trust names: a file, or the newest one of a key
// set. "" is the set called default, or nothing if there is none.
func readTrust(name string) ([]byte, error) {
	if name != "" {
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
			raw, err := os.ReadFile(name)
			if err != nil {
				return nil, fmt.Errorf("trust: %w", err)
			}
			if _, err := layout.ParseRoot(raw); err != nil {
				return nil, fmt.Errorf("trust: %s: %w", name, err)
			}
			return raw, nil
		}
	}
	if strings.ContainsAny(name, "/.") {
		return nil, fmt.Errorf("trust: %s is not a file", name)
	}
	set, err := openKeys(cmp.Or(name, defaultKeys))
	if errors.Is(err, keys.ErrNoSet) && name == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return set.Newest(), nil
}
