package loader

import (
	"fmt"

	"kogge.example/update/bootloader"
	"kogge.example/update/gpt"
)

// uBoot is a U-Boot that the board brings, or that the board's file names as
// boards.Blob; our script is on the boot partition. A slot is a folder of files.
type uBoot struct{}

func (uBoot) Packages() []string { return nil }

// Partition is not UEFI's kind: on that one U-Boot would keep a file of EFI variables, and
// it writes that file at every boot that finds none.
func (uBoot) Partition() gpt.GUID { return gpt.ExtendedBoot }

func (uBoot) Files(string, PackageFile) ([]File, error) {
	return []File{{bootloader.ScriptFile, bootloader.BootScript()}}, nil
}

// Boot: the script says booti, which is for one architecture.
func (uBoot) Boot(arch string, _ PackageFile, r Release) ([]File, error) {
	if arch != "arm64" {
		return nil, fmt.Errorf("u-boot: the boot script starts kernels for arm64, not for %q", arch)
	}
	files := []File{{"kernel", r.Kernel}, {"initrd", r.Initrd}, {"cmdline", bootloader.UBootCmdline(r.Cmdline)}}
	if r.DTB != nil {
		files = append(files, File{"dtb", r.DTB})
	}
	return files, nil
}

func (uBoot) Firmware(arch string) (Firmware, bool) {
	switch arch {
	case "arm64":
		return Firmware{"u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin", ""}, true
	}
	return Firmware{}, false
}
