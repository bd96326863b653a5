package main

import (
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
)

// diskWait is how long stage 0 waits for the boot disk to appear: USB sticks and
// slow RAID controllers take their time.
const diskWait = 60 * time.Second

// handover is the file in which stage 0 tells PID 1 what it found.
const handover = "/run/kogge/boot.json"

// boot is what stage 0 found, and what the rest of the system is told about it.
type boot struct {
	Slot    string // "A" or "B"
	Version string // of the release
	Board   string
	Trial   bool   // this slot has not proven itself yet
	Disk    string // kernel's name of the boot disk
	// Alone is "" or the reason why no other partition may be used: two disks
	// carry one image, and writing to either could be the wrong one.
	Alone string
}

// stage0 is the first program in the machine, in the initramfs: the watchdog, the
// modules, the disk, the slot, then PID 1. It returns only with an error.
func stage0() error {
	if err := mount.Stage0(); err != nil {
		return fmt.Errorf("early file systems: %w", err)
	}
	dog := startWatchdog()
	if err := module.LoadOrder("/modules", "order"); err != nil {
		// A driver whose bus is not in this machine fails, and that is normal. A
		// missing disk or root will say more; the kernel log then has the cause.
		guard.Note(err.Error())
	}
	cmdline, err := mount.ReadCmdline()
	if err != nil {
		return err
	}
	loader, err := mount.ReadLoader()
	if err != nil {
		guard.Kmsg(err.Error()) // as with a loader that tells nothing: proven, and any one disk
	}
	b := boot{Version: cmdline.Version, Board: cmdline.Board, Trial: cmdline.Trial || loader.CountPath != ""}
	disk, err := waitForDisk(dog, loader)
	if errors.Is(err, mount.ErrTwoDisks) {
		b.Alone = err.Error() + ": unplug one of them"
		guard.Kmsg(b.Alone)
	} else if err != nil {
		return err
	}
	b.Disk = disk.Name
	if b.Slot, err = mount.OpenRoot(disk, cmdline.Verity, b.Trial); err != nil {
		return slotError(err, b, dog)
	}
	return handOver(b, dog)
}

// startWatchdog opens the first hardware timer of the board that is there. Its
// driver comes before everything that could hang.
func startWatchdog() *watchdog.Dog {
	if err := module.LoadOrder("/modules", "watchdog"); err != nil {
		guard.Kmsg(err.Error())
	}
	cmdline, err := mount.ReadCmdline()
	if err != nil {
		return watchdog.None(err)
	}
	board, err := boards.Find(cmdline.Board)
	if err != nil {
		return watchdog.None(err)
	}
	return watchdog.Open(watchdog.Device, board.Watchdog.Timeout)
}

// waitForDisk looks for the boot disk until it is there.
func waitForDisk(dog *watchdog.Dog, loader mount.Loader) (mount.Disk, error) {
	pause, end := 5*time.Millisecond, time.Now().Add(diskWait)
	for {
		disks, err := mount.Disks()
		if err != nil {
			return mount.Disk{}, err
		}
		disk, err := mount.BootDisk(disks, loader.Partition)
		if !errors.Is(err, mount.ErrNoDisk) || time.Now().After(end) {
			return disk, err
		}
		if err := dog.Ping(); err != nil {
			guard.Kmsg(err.Error())
		}
		time.Sleep(pause)
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// slotError ends a boot whose root cannot be opened. On a trial the restart uses
// up a try. A slot that nothing was ever tried beside is a medium written badly:
// starting over would only hide that, so the message stays on the screen.
func slotError(err error, b boot, dog *watchdog.Dog) error {
	if b.Trial {
		return err
	}
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

// handOver writes down what was found and becomes PID 1 in the root file system.
func handOver(b boot, dog *watchdog.Dog) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	if err := os.MkdirAll("/run/kogge", 0o755); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	if err := os.WriteFile(handover, data, 0o644); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	env := []string{"PATH=/bin:/sbin", "HOME=/", "TERM=" + os.Getenv("TERM")}
	dogEnv, err := dog.Environ()
	if err != nil {
		return err
	}
	if dogEnv != "" {
		env = append(env, dogEnv)
	}
	return mount.SwitchRoot("/init", []string{"/init", roleBoot}, env)
}

// readBoot reads what stage 0 found.
func readBoot() (boot, error) {
	data, err := os.ReadFile(handover)
	if err != nil {
		return boot{}, fmt.Errorf("what stage 0 found: %w", err)
	}
	var b boot
	if err := json.Unmarshal(data, &b); err != nil {
		return boot{}, fmt.Errorf("what stage 0 found: %w", err)
	}
	return b, nil
}

// release is "release 1.0" as people are told.
func (b boot) String() string {
	s := fmt.Sprintf("slot %s, release %s, board %s", b.Slot, b.Version, b.Board)
	if b.Trial {
		s += ", on trial"
	}
	return strings.TrimSpace(s)
}
