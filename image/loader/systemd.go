package loader

import (
	"errors"
	"fmt"
	"strings"

	"kogge.example/image/uki"
	"kogge.example/update/gpt"
)

// systemdBoot is systemd-boot on UEFI. It lies on the boot partition where firmware looks
// for a loader; a slot is a unified kernel image.
type systemdBoot struct{}

// efiNames is how UEFI and systemd write the architectures in file names.
var efiNames = map[string]string{"amd64": "x64", "arm64": "aa64"}

// efiFolder is where Debian's package has the loader and the stub of kernel images.
const efiFolder = "usr/lib/systemd/boot/efi/"

func efiName(arch string) (string, error) {
	name, ok := efiNames[arch]
	if !ok {
		return "", fmt.Errorf("systemd-boot: architecture %q has no name in UEFI here", arch)
	}
	return name, nil
}

func (systemdBoot) Packages() []string { return []string{"systemd-boot-efi"} }

func (systemdBoot) Partition() gpt.GUID { return gpt.EFISystem }

func (systemdBoot) Files(arch string, read PackageFile) ([]File, error) {
	name, err := efiName(arch)
	if err != nil {
		return nil, err
	}
	loader, err := read(efiFolder + "systemd-boot" + name + ".efi")
	if err != nil {
		return nil, err
	}
	return []File{
		{"EFI/BOOT/BOOT" + strings.ToUpper(name) + ".EFI", loader},
		{"loader/loader.conf", []byte("timeout 0\neditor no\nauto-entries no\nauto-firmware no\n")},
	}, nil
}

func (systemdBoot) Boot(arch string, read PackageFile, r Release) ([]File, error) {
	if r.DTB != nil {
		return nil, errors.New("systemd-boot: the device tree of a machine with UEFI is its firmware's: the board must not name one")
	}
	name, err := efiName(arch)
	if err != nil {
		return nil, err
	}
	stub, err := read(efiFolder + "linux" + name + ".efi.stub")
	if err != nil {
		return nil, err
	}
	data, err := uki.Build(stub, uki.Image{OSRelease: r.OSRelease, Cmdline: r.Cmdline, Uname: r.Uname, Kernel: r.Kernel, Initrd: r.Initrd})
	if err != nil {
		return nil, err
	}
	return []File{{"uki", data}}, nil
}

func (systemdBoot) Firmware(arch string) (Firmware, bool) {
	switch arch {
	case "amd64":
		return Firmware{"ovmf", "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"}, true
	case "arm64":
		return Firmware{"qemu-efi-aarch64", "usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "usr/share/AAVMF/AAVMF_VARS.fd"}, true
	}
	return Firmware{}, false
}
