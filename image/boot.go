package image

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"

	"kogge.example/boards"
	"kogge.example/image/initramfs"
	"kogge.example/image/kernel"
	"kogge.example/image/program"
	"kogge.example/image/uki"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
)

// Part is a boot file of a slot: its name, as update/bootloader knows it, and its
// content.
type Part struct {
	Name string
	Data []byte
}

// efiNames is how UEFI and systemd write the architectures in file names.
var efiNames = map[string]string{"amd64": "x64", "arm64": "aa64"}

// buildBoot makes the initramfs and the boot files of a slot.
func (r *release) buildBoot(o Options, k *kernel.Kernel, programs program.Set) error {
	modules, err := k.Select(slices.Concat(o.Board.Watchdog.Modules, o.Board.Root, o.Board.Drivers), nil)
	if err != nil {
		return fmt.Errorf("board %s: %w", o.Board.Name, err)
	}
	key, err := initramfsKey(programs.Path(program.Init), k.Release, modules)
	if err != nil {
		return err
	}
	r.built.Initrd, err = cached(o, key, func(out string) error {
		o.Say("initramfs")
		data, err := initramfs.Build(programs.Path(program.Init), modules)
		if err != nil {
			return err
		}
		return os.WriteFile(out, data, 0o644)
	})
	if err != nil {
		return err
	}
	initrd, err := os.ReadFile(r.built.Initrd)
	if err != nil {
		return fmt.Errorf("initramfs: %w", err)
	}
	image, err := os.ReadFile(k.Image)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	r.built.Kernel = k.Image
	r.built.Cmdline = kernelLine(o.Board, cmdline.Words{Board: o.Board.Name, Version: o.Version, Verity: r.root.Verity, Fault: o.Fault})
	switch o.Board.Bootloader {
	case boards.UBoot:
		r.boot = []Part{{"kernel", image}, {"initrd", initrd}, {"cmdline", bootloader.UBootCmdline(r.built.Cmdline)}}
	default:
		stub, err := readPackageFile(r.files, "usr/lib/systemd/boot/efi/linux"+efiNames[o.Board.Arch]+".efi.stub")
		if err != nil {
			return err
		}
		data, err := uki.Build(stub, uki.Image{OSRelease: string(osRelease(o)), Cmdline: r.built.Cmdline, Uname: k.Release, Kernel: image, Initrd: initrd})
		if err != nil {
			return err
		}
		r.boot = []Part{{"uki", data}}
	}
	for _, p := range r.boot {
		r.built.BootBytes += int64(len(p.Data))
	}
	st, err := os.Stat(r.root.File)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	r.built.RootBytes, r.built.InitrdBytes = st.Size(), int64(len(initrd))
	return nil
}

// initramfsKey names everything that the initramfs depends on.
func initramfsKey(init, release string, modules []kernel.Module) (string, error) {
	sum, _, err := hashFile(init)
	if err != nil {
		return "", fmt.Errorf("initramfs: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "v2 %x %s\n", sum, release)
	for _, m := range modules {
		sum, _, err := hashFile(m.File)
		if err != nil {
			return "", fmt.Errorf("initramfs: %w", err)
		}
		fmt.Fprintf(h, "%s %x\n", m.Path, sum)
	}
	return fmt.Sprintf("initramfs-%x.zst", h.Sum(nil)[:16]), nil
}

// kernelLine is the kernel command line of a release. It names content, never a slot.
//
//   - panic=10 and the two that turn oopses and lockups into panics: a sick kernel
//     starts over, which uses up a try.
//   - huge pages off: with them the Go heaps and the kernel's reserve take about
//     130 MiB more of an idle node.
//   - gpt: a damaged protective MBR must not hide the partitions.
func kernelLine(b boards.Board, ours cmdline.Words) string {
	var words []string
	for _, c := range b.Consoles {
		words = append(words, "console="+c)
	}
	words = append(words, "quiet", "loglevel=4", "panic=10", "oops=panic", "softlockup_panic=1", "transparent_hugepage=never", "gpt")
	words = append(words, b.Cmdline...)
	return strings.Join(append(words, ours.String()), " ")
}
