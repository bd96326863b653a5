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
)

// Files are the firmware of a virtual machine, as paths.
type Files struct {
	Code string
	// Vars is the template of the variables of UEFI firmware; "" for firmware that
	// keeps none, which is U-Boot here.
	Vars string
}

// file is where a package has firmware.
type file struct{ pkg, code, vars string }

// places are the packages' files, by boot loader and architecture.
var places = map[boards.Bootloader]map[string]file{
	boards.SystemdBoot: {
		"amd64": {"ovmf", "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"},
		"arm64": {"qemu-efi-aarch64", "usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "usr/share/AAVMF/AAVMF_VARS.fd"},
	},
	boards.UBoot: {
		"arm64": {"u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin", ""},
	},
}

// Fetch returns the firmware for virtual machines like the board. What is not in the
// cache is downloaded.
func Fetch(ctx context.Context, packages debian.Cache, b boards.Board) (Files, error) {
	want, ok := places[b.Bootloader][b.Arch]
	if !ok {
		return Files{}, fmt.Errorf("board %s: there is no firmware for virtual machines with %s on %s", b.Name, b.Bootloader, b.Arch)
	}
	lock, err := debian.LoadLock(debian.Firmware)
	if err != nil {
		return Files{}, err
	}
	if lock, err = lock.Only(want.pkg); err != nil {
		return Files{}, err
	}
	files, err := packages.Fetch(ctx, lock)
	if err != nil {
		return Files{}, err
	}
	f := Files{Code: filepath.Join(files[0].Dir, want.code)}
	if want.vars != "" {
		f.Vars = filepath.Join(files[0].Dir, want.vars)
	}
	return f, nil
}
