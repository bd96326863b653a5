// Package boards holds the facts about each computer that Kogge makes images
// for: its architecture, kernel, console, watchdog and the drivers it needs.
// Nothing flows through it. A board is one file with one literal; its sources
// stand beside the facts. The package needs the standard library alone.
//
// To add a board NAME: write its file, add a line to [All] below, and run
// `kogge image lock NAME` at the top of the source tree, which writes
// image/debian/lock/NAME.lock. Tests walk [All] and say what is wrong with it.
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
// and what the image builder has to, in image/loader: a file in each, and a case in its
// For. Tests find every other place that would have to know one.
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

// Units of places on a disk, in bytes.
const (
	Sector = 512
	MiB    = 1 << 20
)

// Blob is a program that the board's own ROM reads from a fixed place of the disk,
// which belongs to no partition.
type Blob struct {
	// Package is the Debian package that has it, and File its path there.
	Package, File string
	// Offset is its place, in bytes from the start of the disk: whole sectors.
	Offset int64
	// Max is the most bytes that it may have there; 0 means up to what comes next.
	Max int64
}

// Table is the kind of a partition table.
type Table string

const (
	// GPT is a GUID partition table with a protective MBR.
	GPT Table = "gpt"
	// Hybrid is a GPT whose MBR shows some of its partitions, for firmware that reads
	// nothing else.
	Hybrid Table = "hybrid"
	// MBR is a table of four partitions without GUIDs.
	MBR Table = "mbr"
)

// Tried says how far images for a board have been tried. Each one is less than the one
// before it.
type Tried string

const (
	OnHardware        Tried = "on hardware"
	EmulatedWhole     Tried = "emulated: loader, kernel and node"
	EmulatedWithEdits Tried = "emulated, with a device tree or loader that was edited for it"
	ReadInPackages    Tried = "read in the packages of kernel and loader, never started"
	NotTried          Tried = "not tried"
)

// TriedAll are all of them.
var TriedAll = []Tried{OnHardware, EmulatedWhole, EmulatedWithEdits, ReadInPackages, NotTried}

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
	// Required names the modules that stage 0 loads behind those, in order, because
	// nothing announces their hardware: a regulator that feeds the card, for instance.
	Required []string
	// Drivers names the modules that stage 0 loads if the hardware is there, to
	// reach the boot disk.
	Drivers []string
	// Modules selects what else the root file system carries: a module name, or
	// a folder below kernel/ that ends in "/". Dependencies are added.
	Modules []string
	// Without takes folders below kernel/ or modules out of that selection again.
	Without []string
	// DTB is the board's device tree, as a path below the kernel package's folder of
	// them: "rockchip/rk3328-rock64.dtb". It lies in each slot beside its kernel. ""
	// leaves it to the firmware.
	DTB string
	// Firmware lies on the disk outside of the partitions.
	Firmware []Blob
	// Table is the kind of the partition table; "" means GPT.
	Table Table
	// FirstPartition is where the first partition begins, in bytes: whole MiB. 0 means
	// 1 MiB.
	FirstPartition int64
	// Watchdog guards the boot.
	Watchdog Watchdog
	// Kernel command line words beyond the common ones.
	Cmdline []string
	// Tried says how far images for the board have been tried; "" means NotTried.
	Tried Tried
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
