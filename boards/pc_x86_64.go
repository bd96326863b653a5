package boards

import "time"

// pcX8664 is any 64-bit PC, server or mini PC that boots by UEFI.
//
// The serial line comes first and the screen last: the last console is
// /dev/console, and a screen is always there in the kernel's eyes, while the
// driver of a missing UART finds no port and would leave nothing to open. PID 1
// writes to both.
// Source: Documentation/admin-guide/serial-console.rst in the kernel tree.
var pcX8664 = Board{
	Name:        "pc-x86_64",
	Description: "any 64-bit PC, server or mini PC with UEFI",
	Arch:        "amd64",
	Bootloader:  SystemdBoot,
	Kernel:      "linux-image-amd64",
	Consoles:    []string{"ttyS0,115200", "tty0"},
	// libcrc32c, which erofs and ext4 need, asks for the alias "crc32c", which
	// nothing answers in an initramfs: so the module behind it comes by hand.
	Root: []string{"crc32c_generic", "sha256_ssse3", "dm_verity", "erofs"},
	Drivers: []string{
		"efivarfs", "nvme", "ahci", "ata_piix", "sd_mod", "sr_mod", "uas", "usb_storage",
		"xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci",
		"mmc_block", "sdhci_pci", "sdhci_acpi", "rtsx_pci_sdmmc",
		"virtio_blk", "virtio_scsi", "virtio_pci",
		"megaraid_sas", "mpt3sas", "aacraid", "hpsa", "smartpqi", "mptspi", "vmw_pvscsi", "hv_storvsc",
	},
	Modules: append([]string{
		"kernel/drivers/ata/", "kernel/drivers/nvme/", "kernel/drivers/scsi/", "kernel/drivers/mmc/",
		"kernel/drivers/usb/host/", "kernel/drivers/usb/storage/", "kernel/drivers/usb/core/", "kernel/drivers/usb/typec/",
		"kernel/drivers/net/ethernet/", "kernel/drivers/net/usb/", "kernel/drivers/net/phy/", "kernel/drivers/net/mdio/",
		"kernel/drivers/watchdog/", "kernel/drivers/hid/", "kernel/drivers/input/keyboard/",
		"kernel/drivers/thunderbolt/", "kernel/drivers/pinctrl/", "kernel/drivers/i2c/busses/",
		"kernel/drivers/char/ipmi/", "kernel/drivers/char/tpm/", "kernel/drivers/hwmon/", "kernel/drivers/char/hw_random/",
		"kernel/drivers/acpi/", "kernel/drivers/virtio/", "kernel/drivers/md/",
		"virtio_net", "hv_netvsc", "hv_utils", "vmxnet3", "ext4", "button", "evdev", "usbhid", "hid_generic",
		"intel_powerclamp", "coretemp", "i2c_i801", "cdc_acm", "ftdi_sio", "pl2303", "cp210x", "ch341",
	}, node...),
	Without: []string{
		// Wanted by no node: cards for fabrics and accelerators that bring megabytes each.
		"kernel/drivers/scsi/lpfc/", "kernel/drivers/scsi/qla2xxx/", "kernel/drivers/scsi/bfa/", "kernel/drivers/scsi/pcmcia/",
		"kernel/drivers/net/ethernet/mellanox/mlxsw/", "kernel/drivers/net/ethernet/netronome/",
	},
	Watchdog: Watchdog{
		// lpc_ich and i2c_i801 make the device that iTCO_wdt drives.
		Modules: []string{"lpc_ich", "i2c_i801", "iTCO_wdt", "sp5100_tco", "wdat_wdt", "i6300esb", "softdog"},
		Timeout: 30 * time.Second,
		From:    Stage0,
	},
	Tried:        EmulatedWhole,
	MinMemoryMiB: 256,
}
