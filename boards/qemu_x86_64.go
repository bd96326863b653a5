package boards

import "time"

// qemuX8664 is a virtual machine under QEMU or another hypervisor with virtio
// devices, started by UEFI firmware.
//
// The cloud kernel has ext4, NVMe, packet sockets and virtio-pci built in and
// leaves out drivers for real hardware, which halves the image.
// Source: config-6.12.117+deb13-cloud-amd64 in its package.
var qemuX8664 = Board{
	Name:        "qemu-x86_64",
	Description: "virtual machine with virtio devices (QEMU, KVM, clouds), UEFI",
	Arch:        "amd64",
	Bootloader:  SystemdBoot,
	Kernel:      "linux-image-cloud-amd64",
	Consoles:    []string{"ttyS0,115200"},
	// sha256_ssse3 before dm_verity: the generic SHA-256 costs about a second
	// of a boot without hardware virtualisation.
	Root:    []string{"sha256_ssse3", "dm_verity", "erofs"},
	Drivers: []string{"virtio_blk", "virtio_scsi", "sd_mod", "efivarfs"},
	Modules: append([]string{"virtio_net", "virtio_rng", "virtio_balloon", "button", "evdev"}, node...),
	Watchdog: Watchdog{
		Modules: []string{"i6300esb", "softdog"},
		Timeout: 30 * time.Second,
		From:    Stage0,
	},
	Tried:        EmulatedWhole,
	MinMemoryMiB: 192,
}

// node is what every board carries: the boot partition, containers, their
// network, time and the kernel's own requests.
var node = []string{
	"vfat", "nls_cp437", "nls_ascii", "nls_utf8",
	"overlay", "loop", "fuse", "qemu_fw_cfg", "quota_v2",
	"bridge", "br_netfilter", "veth", "dummy", "macvlan", "tun", "vxlan", "wireguard",
	"nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_redir", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet", "nft_ct", "nft_connlimit", "nft_limit", "nft_log", "nft_reject", "nft_reject_ipv4", "nft_reject_ipv6", "nft_reject_inet",
	"nf_conntrack", "nf_conntrack_netlink", "nf_nat", "nfnetlink", "tcp_bbr", "sch_fq", "sch_fq_codel",
	"zram", "lz4", "efi_pstore", "ramoops",
}
