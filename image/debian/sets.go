package debian

import (
	"fmt"
	"slices"

	"kogge.example/boards"
	"kogge.example/image/loader"
)

// Set says what a lock is made from.
type Set struct {
	Name     string
	Arch     string
	Packages []string
	// Closure adds all dependencies, for programs that are run from the cache
	// with their own loader and libraries.
	Closure bool
}

// Names of the sets that belong to no board.
const (
	Tools    = "tools"    // what the builder runs
	Firmware = "firmware" // UEFI and U-Boot for virtual machines
	Licenses = "licenses" // texts that copyright files refer to
)

// RuncSet is the name of the C library and headers that runc is linked with.
func RuncSet(arch string) string { return "runc-" + arch }

// Sets lists every lock of this release.
func Sets(all []boards.Board) ([]Set, error) {
	firmware, err := loader.FirmwarePackages()
	if err != nil {
		return nil, err
	}
	sets := []Set{
		{Name: Licenses, Arch: "amd64", Packages: []string{"base-files"}},
		{Name: Tools, Arch: "amd64", Packages: []string{"erofs-utils", "e2fsprogs", "libarchive13t64"}, Closure: true},
		{Name: Firmware, Arch: "amd64", Packages: firmware},
	}
	archs := map[string]bool{}
	for _, b := range all {
		l, err := loader.For(b.Bootloader)
		if err != nil {
			return nil, fmt.Errorf("board %s: %w", b.Name, err)
		}
		packages := append([]string{b.Kernel, "e2fsck-static", "ca-certificates"}, l.Packages()...)
		for _, f := range b.Firmware {
			if !slices.Contains(packages, f.Package) {
				packages = append(packages, f.Package)
			}
		}
		sets = append(sets, Set{Name: b.Name, Arch: b.Arch, Packages: packages})
		if !archs[b.Arch] {
			archs[b.Arch] = true
			sets = append(sets, Set{Name: RuncSet(b.Arch), Arch: b.Arch, Packages: []string{"libseccomp-dev", "libc6-dev", "libc6", "linux-libc-dev"}})
		}
	}
	return sets, nil
}
