package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/module"
	"kogge.example/init/mount"
	"kogge.example/init/watchdog"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
)

// diskWait is how long stage 0 waits for the boot disk to appear: USB sticks and
// slow RAID controllers take their time.
const diskWait = 60 * time.Second

// findLimit is how long the watchdog is fed while drivers load and the disk is
// looked for: some drivers of storage probe their buses for a minute each.
const findLimit = diskWait + 4*time.Minute

// stage0 is the first code in the machine, in the initramfs: the watchdog, the
// modules, the disk, the slot. Then the root file system is the root of everything
// and the initramfs is gone but for this program, which goes on as PID 1: a second
// exec would read the same program from the slot once more.
func stage0() (control.Boot, *watchdog.Dog, error) {
	if err := mount.Stage0(); err != nil {
		return control.Boot{}, nil, fmt.Errorf("early file systems: %w", err)
	}
	words, err := cmdline.Read(cmdline.File)
	if err != nil {
		return control.Boot{}, nil, err
	}
	board, err := boards.Find(words.Board)
	if err != nil {
		return control.Boot{}, nil, fmt.Errorf("kernel command line: kogge.board: %w", err)
	}
	kind, err := bootloader.For(board.Bootloader)
	if err != nil {
		return control.Boot{}, nil, err
	}
	modules, err := module.Open("/modules")
	if err != nil {
		return control.Boot{}, nil, err
	}
	dog := startWatchdog(modules, board)
	fault("stage 0")
	var disk mount.Disk
	var loader mount.Loader
	dog.While(findLimit, guard.Go, func() { disk, loader, err = findBootDisk(modules, board, words) })
	b := control.Boot{
		Version: words.Version, Board: words.Board, Disk: disk.Name, Trial: words.Trial || loader.CountPath != "",
		Parts: disk.Parts, RootHash: hex.EncodeToString(words.Verity.Root[:]), Marks: words.Marks,
	}
	if loader.Partition != nil || !kind.TellsByEFI() {
		b.Loader = string(board.Bootloader)
	}
	if errors.Is(err, mount.ErrTwoDisks) {
		b.Alone = err.Error() + ": unplug one of them"
		guard.Kmsg(b.Alone)
	} else if err != nil {
		return control.Boot{}, nil, err
	}
	if b.Slot, err = mount.OpenRoot(disk, words.Verity, b.Trial); err != nil {
		return control.Boot{}, nil, slotError(err, b, board, disk, bootloader.Slot(loader.SelectedSlot()), dog)
	}
	// The loader may have counted a try of the other slot, failed to start it, and left
	// the machine to the firmware.
	if !words.Trial && loader.CountedOther(b.Slot) {
		b.Trial = false
	}
	return b, dog, mount.SwitchRoot()
}

// findBootDisk loads what the root needs, and drivers until the boot disk is there.
func findBootDisk(modules *module.Index, board boards.Board, words cmdline.Words) (mount.Disk, mount.Loader, error) {
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
	if words.BootPart != (gpt.GUID{}) {
		// Whoever says it here has started us, and has no variables to say it in.
		loader = mount.Loader{Partition: &words.BootPart}
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
// is there. Where that takes long it says so.
func waitForDisk(modules *module.Index, loader mount.Loader) (disk mount.Disk, err error) {
	look := func() (disk mount.Disk, unusable, err error) {
		if err := modules.Coldplug(); err != nil {
			// A driver whose bus is not in this machine fails, and that is normal. A
			// missing disk says more; the kernel log then has the cause.
			guard.Note(err.Error())
		}
		disks, unusable, err := mount.Disks()
		if err != nil {
			return mount.Disk{}, nil, err
		}
		disk, err = mount.BootDisk(disks, loader.Partition)
		return disk, unusable, err
	}
	// Kmsg names us itself.
	say := func(line string) { guard.Kmsg(strings.TrimPrefix(line, "kogge: ")) }
	tellWhile(say, sayAfter, "looking for the boot disk", func() {
		disk, err = lookForDisk(look, diskWait, unusableAfter, guard.Kmsg)
	})
	return disk, err
}

// unusableAfter is how long a disk has the same fault before that is said: while the kernel
// gets to know a disk, it lacks partitions.
const unusableAfter = time.Second

// lookForDisk looks until there is a boot disk, or for so long. What keeps a disk from being
// it is said meanwhile, once it has been so for the time of steady.
func lookForDisk(look func() (disk mount.Disk, unusable, err error), limit, steady time.Duration, say func(string)) (mount.Disk, error) {
	pause, end := 5*time.Millisecond, time.Now().Add(limit)
	last, since, told := "", time.Now(), ""
	for {
		disk, unusable, err := look()
		if !errors.Is(err, mount.ErrNoDisk) {
			return disk, err
		}
		why := errors.Join(err, unusable)
		now := time.Now()
		if now.After(end) {
			return disk, why
		}
		if why.Error() != last {
			last, since = why.Error(), now
		}
		// Without a disk there is nothing to say yet.
		if last != told && last != mount.ErrNoDisk.Error() && now.Sub(since) >= steady {
			told = last
			say(last)
		}
		time.Sleep(pause)
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// slotError ends a boot whose root cannot be opened. On a trial the restart uses up a
// try. A proven slot that has decayed is left for the other one, if that was proven too.
// Otherwise it is a medium written badly: starting over would only hide that, so the
// message stays on the screen.
func slotError(err error, b control.Boot, board boards.Board, disk mount.Disk, selected bootloader.Slot, dog *watchdog.Dog) error {
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
func leaveSlot(b control.Boot, board boards.Board, disk mount.Disk, selected bootloader.Slot) (left bootloader.Slot, err error) {
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
