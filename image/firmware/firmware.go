// Package firmware finds what a virtual machine of a board starts with: the board's
// facts in, the paths of firmware files in the package cache out. Computers that
// people own bring their own; nothing of it goes onto a disk.
package firmware

import (
	"context"
	"fmt"
	"path/filepath"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/loader"
)

// Files are the firmware of a virtual machine, as paths.
type Files struct {
	Code string
	// Vars is the template of the variables of UEFI firmware; "" for firmware that
	// keeps none, which is U-Boot here.
	Vars string
}

// Fetch returns the firmware for virtual machines like the board. What is not in the
// cache is downloaded.
func Fetch(ctx context.Context, packages debian.Cache, b boards.Board) (Files, error) {
	l, err := loader.For(b.Bootloader)
	if err != nil {
		return Files{}, fmt.Errorf("board %s: %w", b.Name, err)
	}
	want, ok := l.Firmware(b.Arch)
	if !ok {
		return Files{}, fmt.Errorf("board %s: there is no firmware for virtual machines with %s on %s", b.Name, b.Bootloader, b.Arch)
	}
	lock, err := debian.LoadLock(debian.Firmware)
	if err != nil {
		return Files{}, err
	}
	if lock, err = lock.Only(want.Package); err != nil {
		return Files{}, err
	}
	files, err := packages.Fetch(ctx, lock)
	if err != nil {
		return Files{}, err
	}
	f := Files{Code: filepath.Join(files[0].Dir, want.Code)}
	if want.Vars != "" {
		f.Vars = filepath.Join(files[0].Dir, want.Vars)
	}
	return f, nil
}
