package bootloader

import (
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Kernel is what a boot loader hands to a kernel, and the kernel itself.
type Kernel struct {
	Image, Initrd *io.SectionReader // of the boot partition
	Cmdline       string
	// Arch is Go's name of the architecture that the kernel is for; "" where it says none
	// that we know.
	Arch string
}

// maxCmdline bounds a kernel's command line, in bytes: x86 takes half of it.
const maxCmdline = 4096

// KernelOf finds the kernel of a slot among its boot files, for whoever looks into an
// image. The slot may be one that a stranger's disk has: nothing is believed.
func KernelOf(l Loader, f Files, slot Slot) (Kernel, error) {
	k, err := kernelOf(l, f, slot)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel of slot %s: %w", slot, err)
	}
	return k, nil
}

func kernelOf(l Loader, f Files, slot Slot) (k Kernel, err error) {
	if slices.Contains(l.BootFiles(), "uki") {
		r, err := l.Open(f, slot, "uki")
		if err != nil {
			return k, err
		}
		return unifiedKernel(r)
	}
	cmdline, err := l.Open(f, slot, "cmdline")
	if err != nil {
		return k, err
	}
	text, err := line(cmdline)
	if err != nil {
		return k, err
	}
	args, ours := strings.CutPrefix(text, "bootargs=")
	if !ours {
		return k, errors.New("boot file cmdline sets no bootargs")
	}
	k.Cmdline = args
	if k.Image, err = l.Open(f, slot, "kernel"); err != nil {
		return k, err
	}
	if k.Arch, err = archOf(k.Image); err == nil {
		k.Initrd, err = l.Open(f, slot, "initrd")
	}
	return k, err
}

// archOf reads the architecture from the head of a kernel that is started as it is.
//
// Source: Documentation/arch/arm64/booting.rst in the kernel tree.
func archOf(kernel io.ReaderAt) (string, error) {
	magic := make([]byte, 4)
	if _, err := kernel.ReadAt(magic, 0x38); err != nil && err != io.EOF {
		return "", err
	}
	if string(magic) == "ARM\x64" {
		return "arm64", nil
	}
	return "", nil
}

// efiArchs are the architectures by their number in EFI programs.
var efiArchs = map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}

// line is a file of one line.
func line(r *io.SectionReader) (string, error) {
	if r.Size() > maxCmdline {
		return "", fmt.Errorf("kernel command line has %d bytes: at most %d", r.Size(), maxCmdline)
	}
	b := make([]byte, r.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	text := strings.TrimRight(string(b), "\x00\n")
	if strings.ContainsAny(text, "\x00\n") {
		return "", errors.New("kernel command line has more than one line")
	}
	return text, nil
}

// unifiedKernel takes a unified kernel image apart.
//
// Source: uapi-group.org/specifications/specs/unified_kernel_image
func unifiedKernel(r *io.SectionReader) (k Kernel, err error) {
	f, err := pe.NewFile(r)
	if err != nil {
		return k, err
	}
	k.Arch = efiArchs[f.Machine]
	part := func(name string) (*io.SectionReader, error) {
		s := f.Section(name)
		if s == nil {
			return nil, fmt.Errorf("unified kernel image: no section %s", name)
		}
		size := int64(min(s.Size, s.VirtualSize)) // on the disk it is padded
		if int64(s.Offset)+size > r.Size() {
			return nil, fmt.Errorf("unified kernel image: section %s ends after the file", name)
		}
		return io.NewSectionReader(r, int64(s.Offset), size), nil
	}
	cmdline, err := part(".cmdline")
	if err != nil {
		return k, err
	}
	if k.Cmdline, err = line(cmdline); err != nil {
		return k, err
	}
	if k.Image, err = part(".linux"); err == nil {
		k.Initrd, err = part(".initrd")
	}
	return k, err
}
