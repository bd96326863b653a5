package mount

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"kogge.example/update/bootloader"
	"kogge.example/update/gpt"
)

// Loader is what a boot loader that follows the boot loader interface tells us.
//
// Source: systemd.io/BOOT_LOADER_INTERFACE
type Loader struct {
	// Partition is the ESP that the loader was started from; nil without one.
	Partition *gpt.GUID
	// CountPath is the entry's file with its tries, as a path on the ESP with
	// slashes; "" means that this entry is not counted: a proven slot.
	CountPath string
	// Selected is the entry that the loader last set out to start, by its file's name;
	// "" is not known. If that failed, the firmware may have started us all the same.
	Selected string
}

// CountedOther tells whether the try that the loader counted was one of another slot than
// the one that runs: the loader could not start that, and the firmware has started ours.
func (l Loader) CountedOther(slot string) bool {
	counted, ours := bootloader.SlotOfEntry(path.Base(l.CountPath))
	return ours && string(counted) != slot
}

// SelectedSlot is the slot of the selected entry, "A" or "B"; "" is not known.
func (l Loader) SelectedSlot() string {
	slot, _ := bootloader.SlotOfEntry(l.Selected)
	return string(slot)
}

// loaderVendor is the vendor GUID of the interface's EFI variables.
const loaderVendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// EFIVariables is where stage 0 mounts the variables of the firmware.
const EFIVariables = "/sys/firmware/efi/efivars"

// HasFirmware tells whether the machine was started by UEFI firmware whose variables are
// there.
func HasFirmware() bool {
	names, err := os.ReadDir(EFIVariables)
	return err == nil && len(names) > 0
}

// ReadLoader reads the variables. A machine without UEFI gives the zero Loader.
func ReadLoader() (Loader, error) {
	if _, err := os.Stat("/sys/firmware/efi"); errors.Is(err, os.ErrNotExist) {
		return Loader{}, nil
	}
	if err := unix.Mount("efivarfs", EFIVariables, "efivarfs", plain, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return Loader{}, fmt.Errorf("mount EFI variables: %w", err)
	}
	return loaderIn(EFIVariables)
}

// loaderIn reads the variables from a folder. What one of them says is good even
// where the other makes no sense.
func loaderIn(dir string) (Loader, error) {
	var l Loader
	text, err := efiString(dir, "LoaderDevicePartUUID")
	if err == nil && text != "" {
		var guid gpt.GUID
		if guid, err = gpt.ParseGUID(text); err == nil {
			l.Partition = &guid
		} else {
			err = fmt.Errorf("EFI variable LoaderDevicePartUUID: %w", err)
		}
	}
	count, countErr := efiString(dir, "LoaderBootCountPath")
	l.CountPath = strings.ReplaceAll(count, `\`, "/")
	var selectedErr error
	l.Selected, selectedErr = efiString(dir, "LoaderEntrySelected")
	return l, errors.Join(err, countErr, selectedErr)
}

// efiString reads a variable of the interface; "" if it is not set.
func efiString(dir, name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, name+"-"+loaderVendor))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("EFI variable %s: %w", name, err)
	}
	text, err := decodeEFI(data)
	if err != nil {
		return "", fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return text, nil
}

// decodeEFI turns a variable as efivarfs shows it, four bytes of attributes and
// then UTF-16 with or without a final zero, into a string.
func decodeEFI(data []byte) (string, error) {
	if len(data) < 4 || len(data)%2 != 0 {
		return "", fmt.Errorf("%d bytes are not text", len(data))
	}
	units := make([]uint16, 0, len(data)/2)
	for rest := data[4:]; len(rest) > 0; rest = rest[2:] {
		units = append(units, binary.LittleEndian.Uint16(rest))
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00"), nil
}
