package firmware

import (
	"strings"
	"testing"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/loader"
)

// TestPlaces wants the package of every firmware in the lock, and firmware for every
// board that is a virtual machine.
func TestPlaces(t *testing.T) {
	lock, err := debian.LoadLock(debian.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range boards.Bootloaders {
		l, err := loader.For(name)
		if err != nil {
			t.Fatal(err)
		}
		archs := 0
		for _, arch := range []string{"amd64", "arm64"} {
			f, ok := l.Firmware(arch)
			if !ok {
				continue
			}
			archs++
			if _, err := lock.Only(f.Package); err != nil {
				t.Errorf("%s on %s: %v", name, arch, err)
			}
		}
		if archs == 0 {
			t.Errorf("no virtual machine starts with %s", name)
		}
	}
	for _, b := range boards.All {
		l, err := loader.For(b.Bootloader)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := l.Firmware(b.Arch); !ok && strings.HasPrefix(b.Name, "qemu-") {
			t.Errorf("board %s has no firmware", b.Name)
		}
	}
	_, err = Fetch(t.Context(), debian.Cache{Dir: t.TempDir()}, boards.Board{Name: "toaster", Bootloader: boards.UBoot, Arch: "avr"})
	if err == nil || !strings.Contains(err.Error(), "board toaster: there is no firmware") {
		t.Errorf("a toaster: %v", err)
	}
}
