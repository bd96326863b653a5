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
	"kogge.example/image/loader"
	"kogge.example/image/program"
	"kogge.example/update/cmdline"
)

// buildBoot makes the initramfs and the boot files of a slot.
func (r *release) buildBoot(o Options, k *kernel.Kernel, programs program.Set) error {
	modules, err := k.Select(slices.Concat(o.Board.Watchdog.Modules, o.Board.Root, o.Board.Required, o.Board.Drivers), nil)
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
	r.built.Cmdline = kernelLine(o.Board, cmdline.Words{Board: o.Board.Name, Version: o.Version, Verity: r.root.Verity, Fault: o.Fault, Marks: r.built.Marks})
	tree, err := r.deviceTree(o.Board, k.Release)
	if err != nil {
		return err
	}
	if r.boot, err = r.loader.Boot(o.Board.Arch, r.packageFile, loader.Release{
		OSRelease: string(osRelease(o)), Cmdline: r.built.Cmdline, Uname: k.Release, Kernel: image, Initrd: initrd, DTB: tree,
	}); err != nil {
		return fmt.Errorf("board %s: %w", o.Board.Name, err)
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

// deviceTree is the board's own, from the package of its kernel; nil for a board that
// leaves it to the firmware.
func (r *release) deviceTree(b boards.Board, kernel string) ([]byte, error) {
	if b.DTB == "" {
		return nil, nil
	}
	tree, err := r.packageFile("usr/lib/linux-image-" + kernel + "/" + b.DTB)
	if err != nil {
		return nil, fmt.Errorf("board %s: device tree: %w", b.Name, err)
	}
	return tree, nil
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

// noAccelerator refuses drivers of devices that compute ciphers and hashes: the kernel
// would prefer them, and by its command line does not test them.
func noAccelerator(modules []kernel.Module) error {
	for _, m := range modules {
		if strings.HasPrefix(m.Path, "kernel/drivers/crypto/") {
			return fmt.Errorf("module %s: it computes ciphers, and cryptomgr.notests on the kernel command line has nobody test it", m.Name)
		}
	}
	return nil
}

// kernelLine is the kernel command line of a release. It names content, never a slot.
//
//   - panic=10 and the two that turn oopses and lockups into panics: a sick kernel
//     starts over, which uses up a try.
//   - huge pages off: with them the Go heaps and the kernel's reserve take about
//     130 MiB more of an idle node.
//   - gpt: a damaged protective MBR must not hide the partitions.
//   - cryptomgr.notests: the kernel tries none of its ciphers and hashes on known answers
//     before their first use, which takes 0.5 of 9.3 CPU seconds of an emulated boot. What
//     it would find is hardware that computes wrongly. noAccelerator keeps drivers of
//     devices out; what the processor's own instructions compute is not tried, but a
//     SHA-256 that is wrong opens no root: the first block's hash differs.
func kernelLine(b boards.Board, ours cmdline.Words) string {
	var words []string
	for _, c := range b.Consoles {
		words = append(words, "console="+c)
	}
	words = append(words, "quiet", "loglevel=4", "panic=10", "oops=panic", "softlockup_panic=1", "transparent_hugepage=never", "gpt", "cryptomgr.notests")
	words = append(words, b.Cmdline...)
	return strings.Join(append(words, ours.String()), " ")
}
