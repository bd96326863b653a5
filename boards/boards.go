// Package boards holds the facts about each computer that Kogge makes images
// for: its architecture, kernel, console, watchdog and the drivers it needs.
// Nothing flows through it. A board is one file with one literal; its sources
// stand beside the facts. The package needs the standard library alone.
package boards

import (
	"fmt"
	"strings"
	"time"
)

// Bootloader names the program that picks a slot and counts its tries.
type Bootloader string

const (
	// SystemdBoot is systemd-boot on UEFI: Type #1 entries, tries in the file name.
	SystemdBoot Bootloader = "systemd-boot"
	// UBoot is a U-Boot of the board's own that runs our boot.scr from the boot
	// partition: tries in a small text file beside it.
	UBoot Bootloader = "u-boot"
)

// Bootloaders are all of them. What a node has to know of one is in update/bootloader,
// and what the image builder has to, in image/loader: a file each, and a line where the
// files are listed.
var Bootloaders = []Bootloader{SystemdBoot, UBoot}

// Moment says from when on a watchdog guards the boot.
type Moment string

// Stage0 is the first line of our own code in the initramfs. A hang before it
// needs somebody to cut the power; the try is counted by then.
const Stage0 Moment = "stage 0"

// Watchdog is the hardware timer that resets a board which hangs.
type Watchdog struct {
	// Modules are loaded in order until there is a watchdog: drivers of hardware
	// first, the kernel's own timer last. They lie in the initramfs.
	Modules []string
	// Timeout is what stage 0 asks for. The hardware may round it.
	Timeout time.Duration
	// From is the moment from which the watchdog guards the boot.
	From Moment
}

// Board is everything that image building and stage 0 need to know about one
// computer. A zero field means the default that its comment names.
type Board struct {
	// Name is what --board takes, lower case, with the architecture where two
	// would clash.
	Name string
	// Description is one line for `kogge boards list`.
	Description string
	// Arch is Go's name of the architecture; Debian's is the same for amd64 and arm64.
	Arch string
	// Bootloader picks the slot.
	Bootloader Bootloader
	// Kernel is the Debian meta package whose dependency is the kernel.
	Kernel string
	// Consoles are the kernel's console= values in order; the last one is
	// /dev/console. A console whose hardware is missing must not slow the boot.
	Consoles []string
	// Root names the modules that stage 0 loads on every machine: those of the
	// root file system. Module names, in order.
	Root []string
	// Drivers names the modules that stage 0 loads if the hardware is there, to
	// reach the boot disk.
	Drivers []string
	// Modules selects what else the root file system carries: a module name, or
	// a folder below kernel/ that ends in "/". Dependencies are added.
	Modules []string
	// Without takes folders below kernel/ or modules out of that selection again.
	Without []string
	// Watchdog guards the boot.
	Watchdog Watchdog
	// Kernel command line words beyond the common ones.
	Cmdline []string
	// MinMemoryMiB is the least memory that a node with one small container boots with.
	MinMemoryMiB int
}

// All are the boards of this release, in the order in which they are listed.
var All = []Board{qemuX8664, pcX8664, qemuArm64, qemuArm64UBoot}

// Find returns the board called name, or an error that lists what there is.
func Find(name string) (Board, error) {
	names := make([]string, len(All))
	for i, b := range All {
		if b.Name == name {
			return b, nil
		}
		names[i] = b.Name
	}
	return Board{}, fmt.Errorf("board %q is unknown; there are: %s", name, strings.Join(names, ", "))
}
