package loader

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"kogge.example/boards"
	"kogge.example/update/bootloader"
)

// packages is a board's packages: each file has its own name as its content.
func packages(path string) ([]byte, error) { return []byte(path), nil }

// TestLoaders asks each boot loader for what a board with it needs, and wants no more
// and no less boot files than a node has to have of a slot.
func TestLoaders(t *testing.T) {
	for _, b := range boards.All {
		if b.Bootloader != boards.UBoot { // systemd-boot's own are made with real stubs, in package image
			continue
		}
		l, err := For(b.Bootloader)
		if err != nil {
			t.Fatal(err)
		}
		node, err := bootloader.For(b.Bootloader)
		if err != nil {
			t.Fatal(err)
		}
		for _, dtb := range [][]byte{nil, []byte("tree")} {
			files, err := l.Boot(b.Arch, packages, Release{Cmdline: "quiet", Kernel: []byte("kernel"), Initrd: []byte("initrd"), DTB: dtb})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, f := range files {
				names = append(names, f.Name)
				if _, err := node.Path(bootloader.A, f.Name); err != nil {
					t.Errorf("board %s: %v", b.Name, err)
				}
				if f.Name == "dtb" && !bytes.Equal(f.Data, dtb) {
					t.Errorf("board %s: device tree %q", b.Name, f.Data)
				}
			}
			want := node.BootFiles()
			if dtb != nil {
				want = append(slices.Clone(want), "dtb")
			}
			if !slices.Equal(names, want) {
				t.Errorf("board %s: boot files %q, want %q", b.Name, names, want)
			}
		}
	}
}

// TestRefusals asks for what a boot loader does not have.
func TestRefusals(t *testing.T) {
	missing := func(path string) ([]byte, error) { return nil, fmt.Errorf("no %s: %w", path, io.EOF) }
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"a loader that nobody knows", func() error { _, err := For("third"); return err }, `boot loader "third" is unknown to the image builder`},
		{"none", func() error { _, err := For(""); return err }, `boot loader "" is unknown`},
		{"systemd-boot for a toaster", func() error { _, err := systemdBoot{}.Files("avr", packages); return err }, `architecture "avr" has no name in UEFI`},
		{"a slot for it", func() error { _, err := systemdBoot{}.Boot("avr", packages, Release{}); return err }, `architecture "avr" has no name in UEFI`},
		{"systemd-boot with a device tree", func() error { _, err := systemdBoot{}.Boot("arm64", packages, Release{DTB: []byte("x")}); return err }, "the device tree of a machine with UEFI is its firmware's"},
		{"a package without the loader", func() error { _, err := systemdBoot{}.Files("arm64", missing); return err }, "no usr/lib/systemd/boot/efi/systemd-bootaa64.efi"},
		{"a package without the stub", func() error { _, err := systemdBoot{}.Boot("amd64", missing, Release{}); return err }, "no usr/lib/systemd/boot/efi/linuxx64.efi.stub"},
		{"U-Boot's script for a toaster", func() error { _, err := uBoot{}.Boot("avr", packages, Release{}); return err }, `not for "avr"`},
	} {
		if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
