// Package disk lays out the disk image of a release: partition table, boot
// partition, the root file system in slot A and the STATE file system, as bytes at
// offsets of one sparse file. It is told every byte and makes none up, so that the
// same input gives the same image; it needs neither root nor a loop device.
package disk

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"kogge.example/update/blank"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// MiB is the unit that partitions are aligned to.
const MiB = 1 << 20

// Default sizes in bytes. Every system of this kind has outgrown its slots one
// day, and they cannot grow later, so there is room.
const (
	BootSize  = 512 * MiB
	SlotSize  = 768 * MiB
	StateSize = blank.Size // grows to the end of the disk at the first boot
)

// Spec is a whole disk image.
type Spec struct {
	// Seed names the content: the GUIDs and the volume serial derive from it.
	// Writing the image to a medium and its first boot replace them by random ones.
	Seed string
	// Arch is Go's name of the architecture; the kind of the root partitions says it.
	Arch string
	// BootKind is the kind of the boot partition; zero means gpt.EFISystem.
	BootKind gpt.GUID
	// FirstPartition is where the boot partition begins, in bytes: whole MiB. 0 means
	// 1 MiB.
	FirstPartition int64
	// Blobs lie outside of the partitions.
	Blobs []Blob
	// When is the time of every file on the boot partition.
	When time.Time
	// Boot are the files of the boot partition.
	Boot []fat.File
	// Root is the path of slot A's content: file system, then verity tree.
	Root string
	// State is the path of the STATE file system, as large as its partition.
	State string
	// SlotSize is the size of ROOT-A and of ROOT-B; 0 means SlotSize.
	SlotSize int64
}

// Blob is a program that the board's ROM reads from a fixed place of the disk.
type Blob struct {
	Name   string
	Offset int64 // in bytes: whole sectors
	Max    int64 // the most bytes that it may have; 0 means no such bound
	Data   []byte
}

// Write makes the image in out, which must be empty. What is zero is not written.
// Slot B stays empty: its first and last MiB are zero and it has no boot entry.
func Write(out *os.File, s Spec) error {
	if s.SlotSize == 0 {
		s.SlotSize = SlotSize
	}
	if s.BootKind == (gpt.GUID{}) {
		s.BootKind = gpt.EFISystem
	}
	state, err := os.Stat(s.State)
	if err != nil {
		return fmt.Errorf("image: STATE: %w", err)
	}
	root, err := os.Stat(s.Root)
	if err != nil {
		return fmt.Errorf("image: root file system: %w", err)
	}
	if root.Size() > s.SlotSize {
		return fmt.Errorf("image: the root file system is %d MiB, the slot %d MiB: make the root file system smaller, or choose a larger --slot-size", root.Size()/MiB, s.SlotSize/MiB)
	}
	t, err := layout(s, state.Size())
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := out.Truncate(int64(t.Sectors) * gpt.SectorSize); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := gpt.Write(sparse{out}, t); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	for _, b := range s.Blobs {
		if _, err := out.WriteAt(b.Data, b.Offset); err != nil {
			return fmt.Errorf("image: %s: %w", b.Name, err)
		}
	}
	guid := gpt.DeriveGUID(s.Seed, "serial")
	spec := fat.Spec{Size: BootSize, Label: "KOGGE", Serial: binary.LittleEndian.Uint32(guid[:]), When: s.When}
	if err := fat.Format(offset(out, t, partition.ESP), spec, s.Boot); err != nil {
		return fmt.Errorf("image: boot partition: %w", err)
	}
	for name, file := range map[string]string{partition.RootA: s.Root, partition.State: s.State} {
		if err := copySparse(offset(out, t, name), file); err != nil {
			return fmt.Errorf("image: %s: %w", name, err)
		}
	}
	return nil
}

// layout places the partitions one behind the other, and wants everything else to be in
// front of them.
func layout(s Spec, stateSize int64) (gpt.Table, error) {
	t := gpt.Table{DiskGUID: gpt.DeriveGUID(s.Seed, "disk")}
	first := cmp.Or(s.FirstPartition, MiB)
	if first < MiB || first%MiB != 0 {
		return t, fmt.Errorf("the first partition cannot begin at byte %d: want whole MiB", first)
	}
	if err := inFront(s.Blobs, first); err != nil {
		return t, err
	}
	next := uint64(first / gpt.SectorSize)
	for _, p := range []struct {
		name string
		kind gpt.GUID
		size int64
	}{
		{partition.ESP, s.BootKind, BootSize},
		{partition.RootA, gpt.Root(s.Arch), s.SlotSize},
		{partition.RootB, gpt.Root(s.Arch), s.SlotSize},
		{partition.State, gpt.LinuxData, stateSize},
	} {
		sectors := uint64(p.size / gpt.SectorSize)
		t.Partitions = append(t.Partitions, gpt.Partition{
			Name: p.name, Type: p.kind, GUID: gpt.DeriveGUID(s.Seed, p.name), First: next, Last: next + sectors - 1,
		})
		next += sectors
	}
	t.Sectors = next + MiB/gpt.SectorSize // the backup table lies in the last MiB
	return t, nil
}

// inFront wants the blobs behind the partition table, in front of the first partition and
// beside each other.
func inFront(blobs []Blob, first int64) error {
	blobs = slices.Clone(blobs)
	slices.SortStableFunc(blobs, func(a, b Blob) int { return cmp.Compare(a.Offset, b.Offset) })
	end, before := int64(gpt.FirstUsable*gpt.SectorSize), "the partition table"
	for _, b := range blobs {
		size := int64(len(b.Data))
		switch {
		case size == 0:
			return fmt.Errorf("%s is empty", b.Name)
		case b.Max > 0 && size > b.Max:
			return fmt.Errorf("%s has %d bytes, at most %d have room", b.Name, size, b.Max)
		case b.Offset%gpt.SectorSize != 0:
			return fmt.Errorf("%s cannot begin at byte %d: want whole sectors", b.Name, b.Offset)
		case b.Offset < end:
			return fmt.Errorf("%s begins at byte %d, within %s, which ends at byte %d", b.Name, b.Offset, before, end)
		}
		end, before = b.Offset+size, b.Name
	}
	if end > first {
		return fmt.Errorf("%s ends at byte %d, behind the beginning of the first partition at byte %d", before, end, first)
	}
	return nil
}

// offset is a writer into one partition.
func offset(out *os.File, t gpt.Table, name string) *io.OffsetWriter {
	p, err := t.Find(name)
	if err != nil {
		panic(err) // layout made it
	}
	return io.NewOffsetWriter(out, p.Offset())
}

// sparse is an image file that need not reach the disk before it is renamed.
type sparse struct{ *os.File }

func (sparse) Sync() error { return nil }

// copySparse copies a file and leaves out blocks of zeros.
func copySparse(w io.WriterAt, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(f, buf)
		if n > 0 && !zero(buf[:n]) {
			if _, err := w.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
