package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kogge.example/qemu"
)

func vmCommand() *cobra.Command {
	return group("vm", "Run images in QEMU", vmRunCommand(), vmFleetCommand(), vmListCommand(), vmStartCommand(), vmStopCommand(), vmConsoleCommand())
}

// vmDir is the folder of the VM called name.
func vmDir(name string) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	if strings.ContainsRune(name, filepath.Separator) {
		return "", fmt.Errorf("vm %s: a name has no %c in it", name, filepath.Separator)
	}
	return filepath.Join(cache, "vm", name), nil
}

// vmHint adds what to do about an error of the VM called name.
func vmHint(err error, name string) error {
	for sentinel, hint := range map[error]string{
		qemu.ErrPortInUse:    "choose another with --port HOST:GUEST; HOST 0 takes any that is free",
		qemu.ErrRunning:      "end it with: kogge vm stop " + name + ", or give the new one another name: kogge vm run NAME",
		qemu.ErrNotRunning:   "kogge vm list; kogge vm start " + name + " boots it again",
		qemu.ErrNoVM:         "kogge vm list",
		qemu.ErrForgotten:    "kogge vm run " + name + " --keep boots it with the disk that it has",
		qemu.ErrImageChanged: "leave out --keep to start with a fresh disk",
	} {
		if errors.Is(err, sentinel) {
			return hinted{err, hint}
		}
	}
	return err
}

func attach(name string) (*qemu.VM, error) {
	dir, err := vmDir(name)
	if err != nil {
		return nil, err
	}
	vm, err := qemu.Attach(dir)
	if err != nil {
		return nil, vmHint(err, name)
	}
	return vm, nil
}
