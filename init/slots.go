package main

import (
	"os"
	"strings"

	"kogge.example/boards"
	"kogge.example/init/bootoption"
	"kogge.example/init/guard"
	"kogge.example/init/mount"
	"kogge.example/update/bootloader"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// selectedSlot is the slot that a boot loader of UEFI machines has set out to start.
func selectedSlot() (string, error) {
	l, err := mount.ReadLoader()
	return l.SelectedSlot(), err
}

// openPstore loads the driver for a kernel's last words, which then are in the folder;
// from now on those of this one are kept. Where a device tree has room for them, it has
// been loaded with all other drivers.
func (n *node) openPstore() (dir string, err error) {
	dir = "/sys/fs/pstore"
	if _, err := os.Stat("/sys/firmware/efi"); err != nil || n.modules == nil {
		return dir, nil
	}
	_, err = n.modules.Load("efi_pstore")
	return dir, err
}

// bootID is the kernel's name of this boot.
func bootID() string {
	return strings.TrimSpace(string(readOptional("/proc/sys/kernel/random/boot_id")))
}

// nameSlots has the firmware know both slots, for the day on which the boot loader cannot
// start one. A slot on trial does not: the order is for slots that have proven themselves.
func (n *node) nameSlots() error {
	if n.boot.Trial || n.boot.Alone != "" || n.disk.Name == "" || !mount.HasFirmware() {
		return nil
	}
	board, err := boards.Find(n.boot.Board)
	if err != nil {
		return err
	}
	loader, err := bootloader.For(board.Bootloader)
	if err != nil || loader.Direct() == "" {
		return err
	}
	f, err := os.Open(n.disk.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	table, err := gpt.Read(f, n.disk.Size) // the first boot has given the partitions names of their own
	if err != nil {
		return err
	}
	esp, err := table.Find(partition.ESP)
	if err != nil {
		return err
	}
	kernels := map[bootloader.Slot]string{}
	for _, slot := range []bootloader.Slot{bootloader.A, bootloader.B} {
		if kernels[slot], err = loader.Path(slot, loader.Direct()); err != nil {
			return err
		}
	}
	changed, err := bootoption.Keep(mount.EFIVariables, esp, bootloader.Slot(n.boot.Slot), kernels)
	if changed {
		guard.Note("boot options of the firmware: slot " + n.boot.Slot + " first, then the other one")
	}
	return err
}
