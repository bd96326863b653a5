package install

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/memfile"
	"kogge.example/update/partition"
)

// loadKernel has the next reboot start the kernel of an armed slot directly, and counts
// that try, as the boot loader would have. A cut after that, or a kernel that does not
// come up, is a try of the slot that is over: the next boot goes through the firmware.
func (i *Installer) loadKernel(slot bootloader.Slot) error {
	if i.Kexec == nil {
		return errors.New("not here")
	}
	b, err := i.boot()
	if err != nil {
		return err
	}
	l, err := b.loader()
	if err != nil {
		return err
	}
	part, err := b.bootPart()
	if err != nil {
		return err
	}
	id, err := b.bootPartID()
	if err != nil {
		return err
	}
	// What stage 0 cannot ask a boot loader now.
	said := cmdline.Words{Trial: true, BootPart: id}
	err = part.Read(func(v *fat.Volume) error {
		k, err := bootloader.KernelOf(l, v, slot)
		if err != nil {
			return err
		}
		image, err := memfile.Copy("kernel", k.Image)
		if err != nil {
			return err
		}
		defer image.Close()
		initrd, err := memfile.Copy("initrd", k.Initrd)
		if err != nil {
			return err
		}
		defer initrd.Close()
		return i.Kexec(image, initrd, k.Cmdline+" "+said.String())
	})
	if err != nil {
		return err
	}
	err = part.Edit(func(v *fat.Volume) error { return l.Count(v, slot, i.now()) })
	if err != nil {
		return errors.Join(err, i.Kexec(nil, nil, ""))
	}
	return nil
}

// bootPartID is the name that the boot partition has by now: the first boot of an image
// gives it one of its own.
func (b boot) bootPartID() (gpt.GUID, error) {
	f, err := os.Open(filepath.Join(filepath.Dir(b.Parts[partition.ESP]), b.Disk))
	if err != nil {
		return gpt.GUID{}, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return gpt.GUID{}, err
	}
	table, err := gpt.Read(f, size)
	if err != nil {
		return gpt.GUID{}, err
	}
	esp, err := table.Find(partition.ESP)
	return esp.GUID, err
}

// KernelLoader is Installer.Kexec on a node.
func KernelLoader(kernel, initrd *os.File, cmdline string) error {
	const unload = 1 // KEXEC_FILE_UNLOAD in linux/kexec.h
	if kernel == nil {
		return unix.KexecFileLoad(-1, -1, "", unload)
	}
	err := unix.KexecFileLoad(int(kernel.Fd()), int(initrd.Fd()), cmdline, 0)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return errors.New("the running kernel was built without it")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.ENOKEY):
		return fmt.Errorf("the running kernel refuses: %w", err)
	case err != nil:
		return fmt.Errorf("load the kernel: %w", err)
	}
	return nil
}
