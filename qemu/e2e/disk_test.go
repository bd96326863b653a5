package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kogge.example/boards"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/superblock"
	"kogge.example/update/verity"
)

// disk is the command of the scripts about disks at rest; doc.go describes it.
func disk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: disk VERB FILE [ARG...], without a negation")
	}
	verb, name, args := args[0], ts.MkAbs(args[1]), args[2:]
	f, err := os.Open(name)
	ts.Check(err)
	defer f.Close()
	st, err := f.Stat()
	ts.Check(err)
	t, err := gpt.Read(f, st.Size())
	ts.Check(err)
	switch {
	case verb == "guids" && len(args) == 0:
		fmt.Fprintf(ts.Stdout(), "disk %s\n", t.DiskGUID)
		for _, p := range t.Partitions {
			fmt.Fprintf(ts.Stdout(), "%s %s\n", p.Name, p.GUID)
		}
	case verb == "boot" && len(args) == 0:
		ts.Check(extractBoot(f, t, ts.MkAbs(".")))
	case verb == "damage" && len(args) == 2:
		ts.Check(damage(f, t, ts.MkAbs(args[0]), args[1]))
	case verb == "reset" && len(args) == 1:
		ts.Check(reset(name, t, ts.MkAbs(args[0])))
	case verb == "trial" && len(args) == 1:
		ts.Check(trial(name, ts.MkAbs(args[0])))
	default:
		ts.Fatalf("disk %s: no such verb, or not its operands", verb)
	}
}

// extractBoot writes kernel, initrd and cmdline of slot A into dir.
func extractBoot(f *os.File, t gpt.Table, dir string) error {
	esp, err := t.Find("ESP")
	if err != nil {
		return err
	}
	v, err := fat.Open(f, esp.Offset(), esp.Size())
	if err != nil {
		return err
	}
	loader, err := bootloader.For(boards.SystemdBoot)
	if err != nil {
		return err
	}
	k, err := bootloader.KernelOf(loader, v, bootloader.A)
	if err != nil {
		return err
	}
	for name, content := range map[string]io.Reader{"kernel": k.Image, "initrd": k.Initrd, "cmdline": strings.NewReader(k.Cmdline)} {
		data, err := io.ReadAll(content)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// damage makes out, an overlay of the image in f. Overwritten are one sector of
// ROOT-A, the first of the verity tree for what "tree" or the one of the data that
// has the text what, or all that STATE is made of for "state".
func damage(f *os.File, t gpt.Table, out, what string) error {
	at, size, err := target(f, t, what)
	if err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	for _, args := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", "-b", f.Name(), "-F", "raw", out},
		{"qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -P 0x5a %d %d", at, size), out},
	} {
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s; it is in the package qemu-utils", strings.Join(args, " "), err, text)
		}
	}
	return nil
}

// target is where on the disk damage goes, and how far.
func target(f *os.File, t gpt.Table, what string) (at, size int64, err error) {
	if what == "state" {
		p, err := t.Find("STATE")
		return p.Offset(), p.Size(), err
	}
	root, err := t.Find("ROOT-A")
	if err != nil {
		return 0, 0, err
	}
	slot := io.NewSectionReader(f, root.Offset(), root.Size())
	p, err := parameters(slot)
	if err != nil {
		return 0, 0, err
	}
	data := make([]byte, int64(p.Blocks)*verity.BlockSize)
	at = int64(len(data)) // the tree's top comes first
	if what != "tree" {
		if _, err := slot.ReadAt(data, 0); err != nil {
			return 0, 0, err
		}
		if at = int64(bytes.Index(data, []byte(what))); at < 0 {
			return 0, 0, fmt.Errorf("the root file system has no %q", what)
		}
	}
	return (root.Offset() + at) / gpt.SectorSize * gpt.SectorSize, gpt.SectorSize, nil
}

// reset makes out, a copy of the raw image with the file that asks for a new STATE
// on its boot partition.
func reset(image string, t gpt.Table, out string) error {
	if text, err := exec.Command("cp", "--sparse=always", image, out).CombinedOutput(); err != nil {
		return fmt.Errorf("copy image: %w: %s", err, text)
	}
	f, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	esp, err := t.Find("ESP")
	if err != nil {
		return err
	}
	v, err := fat.Open(f, esp.Offset(), esp.Size())
	if err != nil {
		return err
	}
	return v.WriteFile("kogge/reset-state", []byte("please\n"), time.Unix(1_700_000_000, 0))
}

// parameters reads the verity parameters, which lie in the last block of a slot's
// content that is not zero.
func parameters(slot *io.SectionReader) (verity.Params, error) {
	buf := make([]byte, 1<<20)
	for off := slot.Size() - int64(len(buf)); off >= 0; off -= int64(len(buf)) {
		if _, err := slot.ReadAt(buf, off); err != nil {
			return verity.Params{}, err
		}
		if text := bytes.TrimRight(buf, "\x00"); len(text) > 0 {
			return verity.ParseParams(string(text[(len(text)-1)/verity.BlockSize*verity.BlockSize:]))
		}
	}
	return verity.Params{}, errors.New("slot is empty")
}

// checkState lets e2fsck judge the STATE partition of a disk that lost its power:
// preening, as the node does it at boot, must be enough, and leave nothing to repair.
// torn says that the superblock was half old and half new.
func checkState(ctx context.Context, r io.ReaderAt, size int64, dir string) (torn bool, err error) {
	t, err := gpt.Read(r, size)
	if err != nil {
		return false, err
	}
	p, err := t.Find("STATE")
	if err != nil {
		return false, err
	}
	name := filepath.Join(dir, "state.ext4")
	defer os.Remove(name)
	if err := extract(io.NewSectionReader(r, p.Offset(), p.Size()), name); err != nil {
		return false, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	seen := superblock.Look(f, p.Size())
	out, status, err := e2fsck(ctx, "-fp", name)
	torn = err == nil && status == 8 && !seen.Whole
	for _, b := range seen.Backups { // the node mends it like this
		if err != nil || !torn || status != 8 {
			break
		}
		var first []byte
		if first, _, err = e2fsck(ctx, "-p", "-b", fmt.Sprint(b.Block), "-B", fmt.Sprint(b.BlockSize), name); err == nil {
			out, status, err = e2fsck(ctx, "-fp", name)
			out = append(first, out...)
		}
	}
	if err == nil && torn && status == 8 {
		if _, err = superblock.Restore(f); err != nil {
			return torn, err
		}
		if out, status, err = e2fsck(ctx, "-fp", name); err != nil {
			return torn, err
		}
	}
	if err != nil || status > 1 {
		return torn, fmt.Errorf("e2fsck -fp of STATE: status %d, %v:\n%s", status, err, out)
	}
	if out, status, err := e2fsck(ctx, "-fn", name); err != nil || status != 0 {
		return torn, fmt.Errorf("e2fsck -fn of STATE after preening: status %d, %v:\n%s", status, err, out)
	}
	return torn, nil
}

// e2fsck runs the program; its exit status is no error.
func e2fsck(ctx context.Context, args ...string) (out []byte, status int, err error) {
	cmd := exec.CommandContext(ctx, "e2fsck", args...)
	out, err = cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return out, exit.ExitCode(), nil
	case errors.Is(err, exec.ErrNotFound):
		return nil, 0, fmt.Errorf("%w: install it with: apt-get install e2fsprogs", err)
	}
	return out, 0, err
}

// extract writes r to a new file, sparse where it is zero.
func extract(r *io.SectionReader, name string) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(r.Size()); err != nil {
		return err
	}
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < r.Size(); off += int64(len(buf)) {
		n, err := r.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
	}
	return nil
}
