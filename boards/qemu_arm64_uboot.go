package boards

import "slices"

// qemuArm64UBoot is the same virtual machine as [qemuArm64], started by Debian's
// U-Boot for it: what boards with U-Boot have in common is tried here.
var qemuArm64UBoot = Board{
	Name:         "qemu-arm64-uboot",
	Description:  "64-bit ARM virtual machine with virtio devices, U-Boot",
	Arch:         "arm64",
	Bootloader:   UBoot,
	Kernel:       "linux-image-arm64",
	Consoles:     []string{"ttyAMA0,115200"},
	Root:         armRoot,
	Drivers:      virtDrivers,
	Modules:      slices.Concat(virtModules, node),
	Watchdog:     virtWatchdog,
	Tried:        EmulatedWhole,
	MinMemoryMiB: 256,
}
