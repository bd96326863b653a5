package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/osrelease"
	"kogge.example/update/partition"
	"kogge.example/update/release"
	"kogge.example/update/slot"
)

// boot is what is known of this boot, and of the disk that it came from.
type boot struct{ control.Boot }

// errNoDisk means that the slots are out of reach.
var errNoDisk = refuse("this node has no slots that it may write")

func (i *Installer) boot() (boot, error) {
	facts, err := control.ReadBoot(i.Run)
	b := boot{facts}
	if err != nil {
		return b, err
	}
	switch {
	case b.Alone != "":
		return b, fmt.Errorf("%w: %s", errNoDisk, b.Alone)
	case b.Loader == "":
		return b, fmt.Errorf("%w: its boot loader does not count tries", errNoDisk)
	}
	for _, name := range []string{partition.ESP, partition.RootA, partition.RootB} {
		if b.Parts[name] == "" {
			return b, fmt.Errorf("%w: its disk has no partition %s", errNoDisk, name)
		}
	}
	return b, nil
}

func (b boot) loader() (bootloader.Loader, error) { return bootloader.For(boards.Bootloader(b.Loader)) }

// bootPart is the boot partition, whole.
func (b boot) bootPart() (bootpart.Partition, error) {
	p := bootpart.Partition{Device: b.Parts[partition.ESP]}
	f, err := os.Open(p.Device)
	if err != nil {
		return p, fmt.Errorf("boot partition: %w", err)
	}
	p.Size, err = f.Seek(0, io.SeekEnd)
	return p, errors.Join(err, f.Close())
}

func (b boot) readLoader(l bootloader.Loader) (state bootloader.State, err error) {
	p, err := b.bootPart()
	if err != nil {
		return state, err
	}
	err = p.Read(func(v *fat.Volume) (err error) {
		state, err = l.State(v)
		return err
	})
	return state, err
}

// Readable says whether whatever the other slot may have reads a format of STATE. Where
// there are no slots there is no other one to start; what cannot be read may be anything.
func (i *Installer) Readable(format int) bool {
	b, err := i.boot()
	if err != nil && !errors.Is(err, errNoDisk) {
		return false
	}
	starts := false
	if err == nil {
		if starts, err = b.starts(bootloader.Slot(b.Slot).Other()); err != nil {
			log.Printf("agent: what is in the other slot is not known: %v", err)
			return false
		}
	}
	staged, err := memory.ReadStaged(i.memory())
	return err == nil && staged[bootloader.Slot(b.Slot).Other()].Reads(format, starts)
}

// Ready wants that whatever the other slot may have reads a format of STATE that is about to be
// written, and holds the slots as they are until done is called: no update can make it otherwise
// meanwhile. The error wraps [ErrBusy] where one is under way, or [ErrFallback].
func (i *Installer) Ready(format int) (done func(), err error) {
	return i.hold(func() error {
		if !i.Readable(format) {
			return refuse("%w: install the running one there too, by one more update", ErrFallback)
		}
		return nil
	})
}

// MakeReady is Ready, and a slot that is in the way is retired: a node that nobody can reach yet
// cannot be told to update it. It has nothing to fall back to then until the next update, as one
// that comes from an image; so while the running slot is on trial the error wraps
// [slot.ErrOnTrial], and the time comes later. Outside of a node, where nobody says what has
// booted, there are no slots. A cut leaves the slot as it was, or retired.
func (i *Installer) MakeReady(format int) (done func(), err error) {
	return i.hold(func() error {
		if _, err := control.ReadBoot(i.Run); i.Readable(format) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		d, err := i.openDisk()
		if err != nil {
			return err
		}
		defer d.Close()
		right, err := i.right(nil)
		if err == nil {
			err = slotError(slot.Retire(d.Disk, i.memory(), right))
		}
		if err == nil {
			log.Printf("agent: slot %s is retired: %v; the next update fills it", d.Running.Other(), ErrFallback)
		}
		return err
	})
}

// hold keeps the turn if what is wanted of the slots is so.
func (i *Installer) hold(want func() error) (done func(), err error) {
	if done, err = i.begin("the node takes a fleet"); err != nil {
		return nil, err
	}
	if err := want(); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// starts says whether anybody could start the slot.
func (b boot) starts(slot bootloader.Slot) (starts bool, err error) {
	l, err := b.loader()
	if err != nil {
		return true, err
	}
	p, err := b.bootPart()
	if err != nil {
		return true, err
	}
	err = p.Read(func(v *fat.Volume) (err error) {
		starts, err = bootloader.Starts(l, v, slot)
		return err
	})
	return starts, err
}

// disk is the node's disk, open for an update. Nobody else can open it for one.
type disk struct {
	slot.Disk
	closers []io.Closer
}

func (d *disk) Close() error {
	var errs []error
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// openDisk opens the slots: the one that runs for reading alone.
func (i *Installer) openDisk() (*disk, error) {
	b, err := i.boot()
	if err != nil {
		return nil, err
	}
	d := &disk{Disk: slot.Disk{Board: b.Board, Trial: b.Trial, Roots: map[bootloader.Slot]slot.Root{}}}
	d.Schema = release.StateSchema
	if i.Format != nil {
		d.Schema.Writes = i.Format()
	}
	facts, err := osrelease.Read(i.Facts)
	if err != nil {
		log.Printf("agent: update: %v", err) // 0 is a release that does not say its counter
	}
	d.Counter = facts.Counter
	if d.Running, err = bootloader.ParseSlot(b.Slot); err != nil {
		return nil, err
	}
	if d.Loader, err = b.loader(); err != nil {
		return nil, err
	}
	if b.Trial {
		over, err := i.blessed(b, d.Loader, d.Running)
		if err != nil {
			return nil, err
		}
		d.Trial = !over
	}
	words, err := cmdline.Read(i.Cmdline)
	if err != nil {
		return nil, err
	}
	d.Verity = words.Verity
	if d.Boot, err = b.bootPart(); err != nil {
		return nil, err
	}
	failures, err := memory.ReadFailures(i.memory())
	if err != nil {
		return nil, err
	}
	d.Refused = func(version, digest string) (string, bool) {
		f, found := failures.Find(version, digest)
		return f.String(), found && f.Refused()
	}
	if err := i.recount(); err != nil {
		return nil, err
	}
	if !d.Trial {
		why, err := memory.Floor{Lowest: d.Counter, Blessed: d.Counter}.Anew(i.memory())
		if err != nil {
			return nil, err
		}
		if why != nil {
			log.Printf("agent: %v: the node takes no release from now on that is older than the one that runs", why)
		}
	}
	target, err := slot.OpenPartition(b.Parts[partition.Root(string(d.Running.Other()))])
	if err != nil {
		return nil, slotError(err)
	}
	d.closers = append(d.closers, target)
	running, err := openRoot(b.Parts[partition.Root(string(d.Running))])
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.closers = append(d.closers, running)
	d.Roots[d.Running.Other()] = target.Root()
	d.Roots[d.Running] = slot.Root{Device: running, Size: running.size}
	return d, nil
}

// blessed says whether PID 1 has blessed the slot that booted on trial, and forgotten the
// trial. That comes a moment after its assessment: until then the other slot is the only
// proven one.
func (i *Installer) blessed(b boot, l bootloader.Loader, running bootloader.Slot) (bool, error) {
	state, err := b.readLoader(l)
	if err != nil {
		return false, err
	}
	t, armed, err := memory.ReadTrial(i.memory())
	if err != nil {
		return false, err
	}
	return state.Of(running).Proven() && !(armed && t.Slot == running), nil
}

// readOnly is the root partition that runs. It is not opened for writing, so that
// nothing here can.
type readOnly struct {
	*os.File
	size int64
}

func openRoot(device string) (readOnly, error) {
	f, err := os.Open(device)
	if err != nil {
		return readOnly{}, fmt.Errorf("running root partition: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return readOnly{}, errors.Join(fmt.Errorf("running root partition: %w", err), f.Close())
	}
	return readOnly{f, size}, nil
}
