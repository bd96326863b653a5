package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"kogge.example/boards"
	"kogge.example/init/guard"
	"kogge.example/init/module"
	"kogge.example/init/mount"
	"kogge.example/init/watchdog"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
)

// diskWait is how long stage 0 waits for the boot disk to appear: USB sticks and
// slow RAID controllers take their time.
const diskWait = 60 * time.Second

// findLimit is how long the watchdog is fed while drivers load and the disk is
// looked for: some drivers of storage probe their buses for a minute each.
const findLimit = diskWait + 4*time.Minute

// bootJSON tells programs of the node what stage 0 found.
const bootJSON = "/run/kogge/boot.json"

// boot is what stage 0 found, and what the rest of the system is told about it.
type boot struct {
	Slot    string `json:"slot"`    // "A" or "B"
	Version string `json:"version"` // of the release
	Board   string `json:"board"`
	Trial   bool   `json:"trial"` // this slot has not proven itself yet
	Disk    string `json:"disk"`  // kernel's name of the boot disk
	// Alone is "" or the reason why no other partition may be used: two disks
	// carry one image, and writing to either could be the wrong one.
	Alone string `json:"alone,omitempty"`
	// Loader is the boot loader that started us, as boards name it; "" where the kernel
	// was started directly. CountPath is the file on the boot partition whose name has
	// the tries of this slot, TriesLeft those after this one.
	Loader    string `json:"loader,omitempty"`
	CountPath string `json:"count_path,omitempty"`
	TriesLeft int    `json:"tries_left,omitempty"`
	// Parts are the device files of the boot disk's partitions, by name.
	Parts map[string]string `json:"parts,omitempty"`
	// RootHash names the root file system that runs, in hex.
	RootHash string `json:"root_hash,omitempty"`
}

// stage0 is the first code in the machine, in the initramfs: the watchdog, the
// modules, the disk, the slot. Then the root file system is the root of everything
// and the initramfs is gone but for this program, which goes on as PID 1: a second
// exec would read the same program from the slot once more.
func stage0() (boot, *watchdog.Dog, error) {
	if err := mount.Stage0(); err != nil {
		return boot{}, nil, fmt.Errorf("early file systems: %w", err)
	}
	cmdline, err := mount.ReadCmdline()
	if err != nil {
		return boot{}, nil, err
	}
	board, err := boards.Find(cmdline.Board)
	if err != nil {
		return boot{}, nil, fmt.Errorf("kernel command line: kogge.board: %w", err)
	}
	kind, err := bootloader.For(board.Bootloader)
	if err != nil {
		return boot{}, nil, err
	}
	modules, err := module.Open("/modules")
	if err != nil {
		return boot{}, nil, err
	}
	dog := startWatchdog(modules, board)
	fault("stage 0")
	var disk mount.Disk
	var loader mount.Loader
	dog.While(findLimit, guard.Go, func() { disk, loader, err = findBootDisk(modules, board, cmdline) })
	b := boot{
		Version: cmdline.Version, Board: cmdline.Board, Disk: disk.Name, Trial: cmdline.Trial || loader.CountPath != "",
		CountPath: loader.CountPath, Parts: disk.Parts, RootHash: hex.EncodeToString(cmdline.Verity.Root[:]),
	}
	if loader.Partition != nil || !kind.TellsByEFI() {
		b.Loader = string(board.Bootloader)
	}
	if errors.Is(err, mount.ErrTwoDisks) {
		b.Alone = err.Error() + ": unplug one of them"
		guard.Kmsg(b.Alone)
	} else if err != nil {
		return boot{}, nil, err
	}
	if b.Slot, err = mount.OpenRoot(disk, cmdline.Verity, b.Trial); err != nil {
		return boot{}, nil, slotError(err, b, board, disk, bootloader.Slot(loader.SelectedSlot()), dog)
	}
	// The loader may have counted a try of the other slot, failed to start it, and left
	// the machine to the firmware.
	if !cmdline.Trial && loader.CountedOther(b.Slot) {
		b.Trial, b.CountPath = false, ""
	}
	return b, dog, mount.SwitchRoot()
}

// findBootDisk loads what the root needs, and drivers until the boot disk is there.
func findBootDisk(modules *module.Index, board boards.Board, cmdline mount.Cmdline) (mount.Disk, mount.Loader, error) {
	if err := modules.LoadAll(board.Root...); err != nil {
		guard.Kmsg(err.Error()) // the root will not open, and say why
	}
	if err := modules.LoadAll(board.Required...); err != nil {
		guard.Kmsg(err.Error())
	}
	loader, err := readLoader(modules)
	if err != nil {
		guard.Kmsg(err.Error()) // as with a loader that tells nothing: proven, and any one disk
	}
	if cmdline.BootPart != (gpt.GUID{}) {
		// Whoever says it here has started us. After kexec the firmware's variables are
		// those of an earlier boot.
		loader = mount.Loader{Partition: &cmdline.BootPart}
	}
	disk, err := waitForDisk(modules, loader)
	return disk, loader, err
}

// startWatchdog loads the board's drivers until there is a watchdog, and starts it
// before anything else that could hang.
func startWatchdog(modules *module.Index, board boards.Board) *watchdog.Dog {
	for _, name := range board.Watchdog.Modules {
		if err := modules.LoadAll(name); err != nil {
			guard.Note(err.Error()) // another machine's driver
		}
		if _, err := os.Stat(watchdog.Device); err == nil {
			break
		}
	}
	return watchdog.Open(watchdog.Device, board.Watchdog.Timeout)
}

// readLoader asks the firmware, where there is one that keeps variables.
func readLoader(modules *module.Index) (mount.Loader, error) {
	if _, err := os.Stat("/sys/firmware/efi"); err != nil {
		return mount.Loader{}, nil
	}
	if err := modules.LoadAll("efivarfs"); err != nil {
		return mount.Loader{}, err
	}
	return mount.ReadLoader()
}

// waitForDisk loads the drivers of the hardware that shows up until the boot disk
// is there.
func waitForDisk(modules *module.Index, loader mount.Loader) (mount.Disk, error) {
	pause, end := 5*time.Millisecond, time.Now().Add(diskWait)
	for {
		if err := modules.Coldplug(); err != nil {
			// A driver whose bus is not in this machine fails, and that is normal. A
			// missing disk says more; the kernel log then has the cause.
			guard.Note(err.Error())
		}
		disks, err := mount.Disks()
		if err != nil {
			return mount.Disk{}, err
		}
		disk, err := mount.BootDisk(disks, loader.Partition)
		if !errors.Is(err, mount.ErrNoDisk) || time.Now().After(end) {
			return disk, err
		}
		time.Sleep(pause)
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// slotError ends a boot whose root cannot be opened. On a trial the restart uses up a
// try. A proven slot that has decayed is left for the other one, if that was proven too.
// Otherwise it is a medium written badly: starting over would only hide that, so the
// message stays on the screen.
func slotError(err error, b boot, board boards.Board, disk mount.Disk, selected bootloader.Slot, dog *watchdog.Dog) error {
	if b.Trial {
		return err
	}
	left, leaveErr := leaveSlot(b, board, disk, selected)
	if leaveErr == nil {
		return fmt.Errorf("%w; slot %s is marked bad, and the other one starts", err, left)
	}
	guard.Kmsg("no other slot to start: " + leaveErr.Error())
	text := fmt.Sprintf("%v. This medium was written badly or has decayed: flash it again. The machine waits here; switch it off.", err)
	for {
		guard.Kmsg(text)
		for range 30 {
			if err := dog.Ping(); err != nil {
				guard.Kmsg(err.Error())
			}
			time.Sleep(2 * time.Second)
		}
	}
}

// leaveSlot marks the slot that was just started as bad, if it and the other one are
// proven, so that the loader starts the other one from now on. It cannot go back and
// forth: a slot that is bad is not proven. selected is what the loader says that it has
// started, somebody's choice at its menu maybe; "" is not known.
func leaveSlot(b boot, board boards.Board, disk mount.Disk, selected bootloader.Slot) (left bootloader.Slot, err error) {
	if b.Alone != "" {
		return "", errors.New(b.Alone)
	}
	loader, err := bootloader.For(board.Bootloader)
	if err != nil {
		return "", err
	}
	partition, err := bootPartition(disk)
	if err != nil {
		return "", err
	}
	return left, partition.Edit(func(v *fat.Volume) error {
		state, err := loader.State(v)
		if err != nil {
			return err
		}
		if left = selected; left == "" {
			left, _ = state.Next() // starting a proven slot changes nothing: it is the next one still
		}
		if !state.Of(left).Proven() || !state.Of(left.Other()).Proven() {
			return fmt.Errorf("slot A: %s; slot B: %s", state.A, state.B)
		}
		return loader.MarkBad(v, left, time.Now())
	})
}

// publish writes down what stage 0 found, for programs of the node.
func (b boot) publish() error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(bootJSON, data, 0o644)
}

// String is "slot A, release 1.0, board pc-x86_64", as people are told.
func (b boot) String() string {
	s := fmt.Sprintf("slot %s, release %s, board %s", b.Slot, b.Version, b.Board)
	if b.Trial {
		s += ", on trial"
	}
	return strings.TrimSpace(s)
}
