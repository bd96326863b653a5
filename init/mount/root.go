package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"kogge.example/update/partition"
	"kogge.example/update/verity"
)

// ErrNoSlot says that neither slot leads to the root hash.
var ErrNoSlot = errors.New("no slot leads to the root hash of the kernel command line")

// rootDir is where stage 0 mounts the root file system.
const rootDir = "/root"

// OpenRoot mounts the root file system that p names, checked block by block, and
// returns its slot, "A" or "B". The command line names content and not a place:
// whichever slot leads to the root hash is opened. On a trial a damaged block
// restarts the machine, which uses up a try; a proven slot answers EIO instead, so
// that one bad block is no boot loop.
func OpenRoot(d Disk, p verity.Params, trial bool) (slot string, err error) {
	slot, err = findSlot(d, p)
	if err != nil {
		return "", err
	}
	policy := verity.EIO
	if trial {
		policy = verity.Restart
	}
	dev, err := verity.Open("root", d.Parts[partition.Root(slot)], p, policy)
	if err != nil {
		return "", fmt.Errorf("slot %s: %w", slot, err)
	}
	if err := os.MkdirAll(rootDir, 0o755); err != nil {
		return "", fmt.Errorf("slot %s: %w", slot, err)
	}
	if err := unix.Mount(dev, rootDir, "erofs", unix.MS_RDONLY, ""); err != nil {
		return "", fmt.Errorf("slot %s: mount the root file system of %s: %w", slot, d.Parts[partition.Root(slot)], err)
	}
	return slot, nil
}

func findSlot(d Disk, p verity.Params) (string, error) {
	var errs []error
	for _, slot := range []string{"A", "B"} {
		dev := d.Parts[partition.Root(slot)]
		ok, err := leads(dev, p)
		if err != nil {
			errs = append(errs, fmt.Errorf("slot %s (%s): %w", slot, dev, err))
		}
		if ok {
			return slot, nil
		}
	}
	return "", errors.Join(append([]error{fmt.Errorf("disk %s: %w", d.Path(), ErrNoSlot)}, errs...)...)
}

func leads(dev string, p verity.Params) (bool, error) {
	f, err := os.Open(dev)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return verity.Leads(f, p)
}

// SwitchRoot makes the mounted root file system the root of everything, with the
// early file systems moved into it, and frees the initramfs but for the program
// that runs.
func SwitchRoot() error {
	for _, fs := range stage0 {
		if err := unix.Mount(fs.target, rootDir+fs.target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("switch root: move %s: %w", fs.target, err)
		}
	}
	freeInitramfs()
	if err := unix.Chdir(rootDir); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: move the root: %w", err)
	}
	// The threads of a Go program share their root and working directory.
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return nil
}

// freeInitramfs removes the files of the initramfs: they are memory. It looks at
// nothing but files known to come from the archive, never through a mount.
func freeInitramfs() {
	files, _ := filepath.Glob("/modules/*")
	for _, f := range append(files, "/modules", "/init", "/dev/console") {
		_ = os.Remove(f) // what stays costs memory and nothing else
	}
}
