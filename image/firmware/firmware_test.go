package firmware

import (
	"strings"
	"testing"

	"kogge.example/boards"
	"kogge.example/image/debian"
)

// TestPlaces wants the package of every firmware in the lock, and firmware for every
// board that is a virtual machine.
func TestPlaces(t *testing.T) {
	lock, err := debian.LoadLock(debian.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	for loader, archs := range places {
		for arch, file := range archs {
			if _, err := lock.Only(file.pkg); err != nil {
				t.Errorf("%s on %s: %v", loader, arch, err)
			}
		}
	}
	for _, b := range boards.All {
		if _, ok := places[b.Bootloader][b.Arch]; !ok && strings.HasPrefix(b.Name, "qemu-") {
			t.Errorf("board %s has no firmware", b.Name)
		}
	}
	_, err = Fetch(t.Context(), debian.Cache{Dir: t.TempDir()}, boards.Board{Name: "toaster", Bootloader: boards.UBoot, Arch: "avr"})
	if err == nil || !strings.Contains(err.Error(), "board toaster: there is no firmware") {
		t.Errorf("a toaster: %v", err)
	}
}
