// Package loader says what building an image has to know of a boot loader, as
// update/bootloader says what a node has to: the packages that bring it, the kind of the
// boot partition, its own files, how it wants a slot, and the firmware of virtual
// machines that start it. A file per boot loader, the same verbs.
//
// In come the facts of a board and the files of its packages; out come files and names.
// It fetches and writes nothing, and knows nothing of partitions' places on a disk.
package loader

import (
	"fmt"
	"slices"

	"kogge.example/boards"
	"kogge.example/update/gpt"
)

// File is a file's name, where it goes to, and its content.
type File struct {
	Name string
	Data []byte
}

// Release is what the boot files of a slot are made of.
type Release struct {
	OSRelease string // content of os-release
	Cmdline   string // of the kernel
	Uname     string // what uname -r prints
	Kernel    []byte
	Initrd    []byte
	// DTB is the board's device tree; nil has the kernel take the firmware's.
	DTB []byte
}

// Firmware is what a virtual machine starts with: a package of the lock debian.Firmware,
// and paths in it.
type Firmware struct {
	Package, Code string
	// Vars is the template of the variables of UEFI firmware; "" for firmware that
	// keeps none.
	Vars string
}

// PackageFile returns the content of a file of the board's packages.
type PackageFile func(path string) ([]byte, error)

// Loader is one boot loader. arch is Go's name of an architecture; one that the loader
// does not know is an error.
type Loader interface {
	// Packages are the Debian packages with the loader and what boot files are made with.
	Packages() []string
	// Partition is the kind of the boot partition.
	Partition() gpt.GUID
	// Files are the loader itself, as far as it lies on the boot partition, and what it is
	// told once and for all. They are named by their paths.
	Files(arch string, read PackageFile) ([]File, error)
	// Boot makes the boot files of a slot, named as update/bootloader knows them.
	Boot(arch string, read PackageFile, r Release) ([]File, error)
	// Firmware is for virtual machines that start the loader; ok is false where there is
	// none for the architecture.
	Firmware(arch string) (f Firmware, ok bool)
}

// For returns the boot loader of that name.
func For(b boards.Bootloader) (Loader, error) {
	switch b {
	case boards.SystemdBoot:
		return systemdBoot{}, nil
	case boards.UBoot:
		return uBoot{}, nil
	}
	return nil, fmt.Errorf("boot loader %q is unknown to the image builder", b)
}

// FirmwarePackages are the packages of the lock debian.Firmware: those of all boot
// loaders.
func FirmwarePackages() (packages []string, err error) {
	for _, b := range boards.Bootloaders {
		l, err := For(b)
		if err != nil {
			return nil, err
		}
		for _, arch := range []string{"amd64", "arm64"} {
			if f, ok := l.Firmware(arch); ok && !slices.Contains(packages, f.Package) {
				packages = append(packages, f.Package)
			}
		}
	}
	return packages, nil
}
