package boards

import (
	"slices"
	"time"
)

// qemuArm64 is a 64-bit ARM virtual machine with virtio devices, started by UEFI
// firmware.
//
// The kernel is the one of real computers: the cloud kernel of this architecture has
// neither i6300esb, the only watchdog of QEMU's machine "virt", nor gpio_keys, its
// power button where there is no ACPI.
// Source: config-6.12.118+deb13-arm64 and config-6.12.118+deb13-cloud-arm64.
var qemuArm64 = Board{
	Name:        "qemu-arm64",
	Description: "64-bit ARM virtual machine with virtio devices (QEMU, clouds), UEFI",
	Arch:        "arm64",
	Bootloader:  SystemdBoot,
	Kernel:      "linux-image-arm64",
	Consoles:    []string{"ttyAMA0,115200"},
	Root:        armRoot,
	Drivers:     slices.Concat([]string{"efivarfs"}, virtDrivers),
	Modules:     slices.Concat(virtModules, node),
	Watchdog:    virtWatchdog,
	// The kernel alone has 40 MB, and firmware and loader hold copies of it.
	Tried:        EmulatedWhole,
	MinMemoryMiB: 256,
}

var (
	// armRoot: libcrc32c, which erofs and ext4 need, asks for the alias "crc32c",
	// which nothing answers in an initramfs, so the module behind it comes by hand.
	// sha256_arm64 runs on every processor of the architecture; the faster sha2_ce
	// loads with the drivers, where the processor says that it can.
	armRoot     = []string{"crc32c_generic", "sha256_arm64", "dm_verity", "erofs"}
	virtDrivers = []string{"sha2_ce", "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "sd_mod", "nvme"}
	virtModules = []string{"virtio_net", "virtio_rng", "virtio_balloon", "ext4", "button", "gpio_keys", "evdev", "e1000e", "usb_storage", "uas", "xhci_pci"}

	virtWatchdog = Watchdog{Modules: []string{"i6300esb", "softdog"}, Timeout: 30 * time.Second, From: Stage0}
)
