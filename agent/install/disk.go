package install

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"kogge.example/boards"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/fat"
	"kogge.example/update/release"
	"kogge.example/update/slot"
	"kogge.example/update/verdict"
	"kogge.example/update/verity"
)

// boot is what stage 0 and PID 1 found out about this boot (boot.json).
type boot struct {
	Slot      string            `json:"slot"`
	Version   string            `json:"version"`
	Board     string            `json:"board"`
	Disk      string            `json:"disk"` // that has the partitions
	Trial     bool              `json:"trial"`
	Alone     string            `json:"alone"`
	Loader    string            `json:"loader"`
	TriesLeft int               `json:"tries_left"`
	Parts     map[string]string `json:"parts"` // device by the name of the partition
	RootHash  string            `json:"root_hash"`
}

// Names of the partitions that an update writes.
const bootPartition = "ESP"

var rootPartition = map[bootloader.Slot]string{bootloader.A: "ROOT-A", bootloader.B: "ROOT-B"}

// errNoDisk means that the slots are out of reach.
var errNoDisk = refuse("this node has no slots that it may write")

func (i *Installer) boot() (boot, error) {
	var b boot
	if err := readJSON(filepath.Join(i.Run, "boot.json"), &b); err != nil {
		return b, err
	}
	switch {
	case b.Alone != "":
		return b, fmt.Errorf("%w: %s", errNoDisk, b.Alone)
	case b.Loader == "":
		return b, fmt.Errorf("%w: it was not started by a boot loader that counts tries", errNoDisk)
	}
	for _, name := range []string{bootPartition, rootPartition[bootloader.A], rootPartition[bootloader.B]} {
		if b.Parts[name] == "" {
			return b, fmt.Errorf("%w: its disk has no partition %s", errNoDisk, name)
		}
	}
	return b, nil
}

func (b boot) loader() (bootloader.Loader, error) { return bootloader.For(boards.Bootloader(b.Loader)) }

// bootPart is the boot partition, whole.
func (b boot) bootPart() (bootpart.Partition, error) {
	p := bootpart.Partition{Device: b.Parts[bootPartition]}
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
	d.Schema = slot.Schema{Reads: release.StateSchema.Reads, Writes: release.StateSchema.Writes}
	var facts struct {
		Counter uint64 `json:"counter"`
	}
	if err := readJSON(i.Facts, &facts); err != nil {
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
	if d.Verity, err = i.runningVerity(); err != nil {
		return nil, err
	}
	if d.Boot, err = b.bootPart(); err != nil {
		return nil, err
	}
	failures, err := verdict.LoadFailures(filepath.Join(i.dir(), verdict.FailuresFile))
	if err != nil {
		return nil, err
	}
	d.Refused = func(version, digest string) (string, bool) {
		f, found := failures.Find(version, digest)
		return f.String(), found && f.Refused()
	}
	target, err := slot.OpenPartition(b.Parts[rootPartition[d.Running.Other()]])
	if err != nil {
		return nil, slotError(err)
	}
	d.closers = append(d.closers, target)
	running, err := openRoot(b.Parts[rootPartition[d.Running]])
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
	t, armed, err := slot.ReadTrial(i.memory())
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

// runningVerity is what the kernel was told about the root that runs.
func (i *Installer) runningVerity() (verity.Params, error) {
	line, err := os.ReadFile(i.Cmdline)
	if err != nil {
		return verity.Params{}, fmt.Errorf("kernel command line: %w", err)
	}
	for word := range strings.FieldsSeq(string(line)) {
		if text, ok := strings.CutPrefix(word, "kogge.verity="); ok {
			return verity.ParseParams(text)
		}
	}
	return verity.Params{}, errors.New("kernel command line: kogge.verity is missing")
}
