// Package image builds the disk image of a release: a board and a version in, one
// disk image out, the same bytes on every build. It puts the parts together that
// its sub-packages make: packages, programs, root file system, initramfs, unified
// kernel image and disk. It needs no root, no loop device and no mount.
package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/disk"
	"kogge.example/image/kernel"
	"kogge.example/image/loader"
	"kogge.example/image/program"
	"kogge.example/image/rootfs"
	"kogge.example/update/blank"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/osrelease"
	"kogge.example/update/partition"
)

// Options say which image to build.
type Options struct {
	Board   boards.Board
	Version string    // of the release, as people name it
	When    time.Time // of every file; the time of the commit
	Source  string    // top of the checkout that the programs are built from
	// Cache is the folder of packages and intermediate results.
	Cache    string
	Packages debian.Cache
	// Config is a node.yaml for the boot partition; nil means none.
	Config []byte
	// Preload are OCI archives that the node imports at its first boot: NAME.tar, NAME.tar.gz,
	// NAME.tgz, NAME.tar.zst or NAME.oci.
	Preload []string
	// SlotSize in bytes; 0 means disk.SlotSize.
	SlotSize int64
	// Tags are further Go build tags of init and agent, for tests.
	Tags string
	// Fault names what the release breaks at each boot, for tests: see init/fault.go
	// and agent/fault.go. It adds the build tag faults. "" is a sound release.
	Fault string
	// Counter orders releases; no node goes below its floor. 0 means When, in seconds
	// since 1970.
	Counter uint64
	// Trust is a root.json of TUF: whose releases the node installs. nil means nobody's.
	Trust []byte
	// Say receives a line for each step.
	Say func(format string, args ...any)
}

// tags are the build tags of init and agent.
func (o Options) tags() string {
	if o.Fault != "" {
		return strings.TrimSpace(o.Tags + " faults")
	}
	return o.Tags
}

// Built is what a build made beside the image itself; virtual machines that start
// a kernel directly use it.
type Built struct {
	Kernel  string // path of the kernel file
	Initrd  string // path of the initramfs
	Cmdline string // kernel command line
	// Trust is the size of the root.json in the image; 0 without one.
	Trust int
	// Marks are in which ways the image is not what its commit and its lock say, as
	// osrelease.Facts have them; "" for none.
	Marks string
	// Sizes of the parts in bytes.
	RootBytes, InitrdBytes, BootBytes int64
}

// Build writes the image to out. The file appears whole, by rename, or not at all.
func Build(ctx context.Context, o Options, out string) (Built, error) {
	unlock, err := lockCache(ctx, o)
	if err != nil {
		return Built{}, err
	}
	defer unlock()
	r, err := buildRelease(ctx, o)
	if err != nil {
		return Built{}, err
	}
	boot, closeBoot, err := r.bootFiles(o)
	if err != nil {
		return Built{}, err
	}
	defer closeBoot()
	state, err := r.state(ctx, o)
	if err != nil {
		return Built{}, err
	}
	err = appear(out, func(f *os.File) error {
		return disk.Write(f, disk.Spec{
			Seed: r.seed(), Arch: o.Board.Arch, BootKind: r.loader.Partition(), FirstPartition: o.Board.FirstPartition, Blobs: r.blobs,
			When: o.When, Boot: boot, Root: r.root.File, State: state, SlotSize: o.SlotSize,
		})
	})
	if err != nil {
		return Built{}, err
	}
	return r.built, nil
}

// release is what an update exchanges: everything that depends on commit, board
// and version, and on nothing that a user configures.
type release struct {
	loader loader.Loader
	tools  debian.Toolbox
	files  []debian.File
	blobs  []disk.Blob
	// sysroot is the C library that runc is linked with, common the licences that
	// packages refer to.
	sysroot, common []debian.File
	// unlocked are the packages of all those that are not the locked ones, as
	// osrelease.Facts name them, sorted.
	unlocked []string
	root     slotRoot
	boot     []loader.File // of a slot
	built    Built
	when     time.Time
}

// seed names the content of the release.
func (r release) seed() string { return r.root.Verity.String() }

func buildRelease(ctx context.Context, o Options) (release, error) {
	r := release{when: o.When, built: Built{Trust: len(o.Trust)}}
	var err error
	if r.loader, err = loader.For(o.Board.Bootloader); err == nil {
		err = checkTable(o.Board)
	}
	if err != nil {
		return r, fmt.Errorf("board %s: %w", o.Board.Name, err)
	}
	if r.files, err = r.fetch(ctx, o, o.Board.Name); err != nil {
		return r, err
	}
	if r.blobs, err = firmwareOf(o.Board, r.files); err != nil {
		return r, err
	}
	toolFiles, err := r.fetch(ctx, o, debian.Tools)
	if err != nil {
		return r, err
	}
	if r.tools, err = debian.OpenTools(toolFiles); err != nil {
		return r, err
	}
	if r.sysroot, err = r.fetch(ctx, o, debian.RuncSet(o.Board.Arch)); err != nil {
		return r, err
	}
	if r.common, err = r.fetch(ctx, o, debian.Licenses); err != nil {
		return r, err
	}
	r.built.Marks = r.facts(o).Marks()
	o.Say("programs for %s", o.Board.Arch)
	programs, err := program.Build(ctx, program.Options{Source: o.Source, Cache: filepath.Join(o.Cache, "programs"), Arch: o.Board.Arch, Sysroot: r.sysroot, Tags: o.tags()})
	if err != nil {
		return r, err
	}
	k, err := kernel.Open(r.files, filepath.Join(o.Cache, "modules"))
	if err != nil {
		return r, err
	}
	if r.root, err = r.buildRoot(ctx, o, k, programs); err != nil {
		return r, err
	}
	return r, r.buildBoot(o, k, programs)
}

// fetch returns the packages of a set, and notes which of them are not the locked ones.
func (r *release) fetch(ctx context.Context, o Options, set string) ([]debian.File, error) {
	lock, err := debian.LoadLock(set)
	if err != nil {
		return nil, err
	}
	files, err := o.Packages.Fetch(ctx, lock)
	for _, f := range files {
		if f.Instead != (debian.Package{}) {
			r.unlocked = append(r.unlocked, fmt.Sprintf("%s instead of %s", f.Package, f.Instead))
		}
	}
	slices.Sort(r.unlocked)
	r.unlocked = slices.Compact(r.unlocked) // sets share packages
	return files, err
}

// facts are what the root file system says of the release; its kernel is not known yet.
func (r *release) facts(o Options) osrelease.Facts {
	return osrelease.Facts{
		Version: o.Version, Board: o.Board.Name, Arch: o.Board.Arch, Counter: o.counter(), Time: o.When,
		Unlocked: r.unlocked, WithoutSuites: o.Packages.Without,
	}
}

// state makes the STATE file system with the preloads. It is at least as large as
// a fresh one and has room for unpacking what it carries.
func (r release) state(ctx context.Context, o Options) (string, error) {
	var files []rootfs.Entry
	seen := map[string]bool{}
	size := int64(disk.StateSize)
	h := sha256.New()
	for _, p := range o.Preload {
		sum, n, err := hashFile(p)
		if err != nil {
			return "", fmt.Errorf("preload: %w", err)
		}
		name := "/" + partition.Preload + "/" + filepath.Base(p)
		if seen[name] {
			return "", fmt.Errorf("preload %s: there are two files of this name", filepath.Base(p))
		}
		seen[name] = true
		if !partition.IsPreload(filepath.Base(p)) {
			return "", fmt.Errorf("preload %s: a node takes no archive by this name: call it NAME.tar, NAME.tar.gz, NAME.tgz, NAME.tar.zst or NAME.oci", filepath.Base(p))
		}
		files = append(files, rootfs.Entry{Path: name, File: p})
		size += (n + disk.MiB - 1) / disk.MiB * disk.MiB
		fmt.Fprintf(h, "%s %x\n", name, sum)
	}
	fmt.Fprintf(h, "%s %s %d %s %d", r.tools.Key(), disk.QuotaState, size, r.seed(), r.when.Unix())
	return cached(o, fmt.Sprintf("state-%x.ext4", h.Sum(nil)[:16]), func(out string) error {
		o.Say("STATE file system")
		return disk.MakeState(ctx, r.tools, out, disk.QuotaState, size, r.seed(), r.when, files)
	})
}

// blankState makes a file from which a node makes its STATE anew.
func (r release) blankState(ctx context.Context, o Options, features disk.Features) (string, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %d", r.tools.Key(), features, blank.Seed, r.when.Unix()))
	return cached(o, fmt.Sprintf("blank-%x.blocks", key[:16]), func(out string) error {
		if err := disk.MakeState(ctx, r.tools, out+".ext4", features, blank.Size, blank.Seed, r.when, nil); err != nil {
			return err
		}
		defer os.Remove(out + ".ext4")
		f, err := os.Open(out + ".ext4")
		if err != nil {
			return fmt.Errorf("blank STATE: %w", err)
		}
		defer f.Close()
		data, err := blank.Encode(f)
		if err != nil {
			return fmt.Errorf("blank STATE: %w", err)
		}
		return os.WriteFile(out, data, 0o644)
	})
}

// bootFiles lists the boot partition's files. Whoever calls it closes what they
// read from.
func (r release) bootFiles(o Options) (files []fat.File, closeAll func(), err error) {
	own, err := r.loader.Files(o.Board.Arch, r.packageFile)
	if err != nil {
		return nil, nil, fmt.Errorf("board %s: %w", o.Board.Name, err)
	}
	for _, f := range own {
		files = append(files, file(f.Name, f.Data))
	}
	slots, err := bootloader.For(o.Board.Bootloader)
	if err != nil {
		return nil, nil, err
	}
	if err := bootloader.CheckVersion(o.Version); err != nil {
		return nil, nil, err
	}
	for _, p := range r.boot {
		path, err := slots.Path(bootloader.A, p.Name)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, file(path, p.Data))
	}
	files = append(files, file("kogge/README.TXT", []byte(seedReadme)))
	files = append(files, slots.Fresh(o.Version)...)
	if o.Config != nil {
		files = append(files, file("kogge/node.yaml", o.Config))
	}
	return files, func() {}, nil
}

// checkTable refuses what no image can have yet.
func checkTable(b boards.Board) error {
	switch b.Table {
	case "", boards.GPT:
		return nil
	case boards.Hybrid, boards.MBR:
		return fmt.Errorf("partition table %q: images have a plain GPT so far", b.Table)
	}
	return fmt.Errorf("partition table %q is unknown", b.Table)
}

// firmwareOf is what the board's ROM reads beside the partitions, from the board's
// packages.
func firmwareOf(b boards.Board, packages []debian.File) (blobs []disk.Blob, err error) {
	for _, f := range b.Firmware {
		i := slices.IndexFunc(packages, func(p debian.File) bool { return p.Name == f.Package })
		if i < 0 {
			return nil, fmt.Errorf("board %s: firmware %s: package %s is not in the board's lock: kogge image lock %[1]s", b.Name, f.File, f.Package)
		}
		data, err := readPackageFile(packages[i:i+1], f.File)
		if err != nil {
			return nil, fmt.Errorf("board %s: firmware: %w", b.Name, err)
		}
		blobs = append(blobs, disk.Blob{Name: filepath.Base(f.File), Offset: f.Offset, Max: f.Max, Data: data})
	}
	return blobs, nil
}

// packageFile reads a file of the board's packages.
func (r release) packageFile(path string) ([]byte, error) { return readPackageFile(r.files, path) }

const seedReadme = "Put node.yaml into this folder to configure the node. It is read at the next boot.\r\n"

// appear writes a file under a temporary name beside out, then renames it.
func appear(out string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+"-*")
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close(), os.Rename(f.Name(), out)); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

// uuid derives a file system's UUID from the content's name.
func uuid(seed, name string) string { return gpt.DeriveGUID(seed, name).String() }
