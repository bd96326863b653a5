package gpt

import (
	"bytes"
	"fmt"
	"io"
)

// device is a whole disk. [os.File] fits, and so does crashdisk.Disk.
type device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// align is the end, in sectors, to which Grow rounds a partition down.
const align = 1 << 20 / SectorSize

// Write puts t on d, which has (at least) t.Sectors sectors. A cut leaves whatever
// table was there before, t, or, where there was none, none:
//
//  1. backup, sync
//  2. protective MBR and primary, sync
//
// What is already right is not written. The old table's backup may survive in the
// middle of a disk that grew; nobody looks for it there.
func Write(d device, t Table) error { return write(d, t, nil) }

// write is Write with the entries of a hybrid MBR, which nil leaves out.
func write(d device, t Table, mbr []byte) error {
	front, back, err := t.Encode()
	if err != nil {
		return err
	}
	copy(front[bootCode:], mbr)
	if err := replace(d, back, int64(t.Sectors)*SectorSize-int64(len(back))); err != nil {
		return fmt.Errorf("write backup partition table: %w", err)
	}
	return writeFront(d, front)
}

func writeFront(d device, front []byte) error {
	if _, err := d.ReadAt(front[:bootCode], 0); err != nil && err != io.EOF {
		return fmt.Errorf("read boot code: %w", err)
	}
	if err := replace(d, front, 0); err != nil {
		return fmt.Errorf("write primary partition table: %w", err)
	}
	return nil
}

// replace makes the bytes at offset equal to want, and returns when they are safe.
func replace(d device, want []byte, offset int64) error {
	got := make([]byte, len(want))
	if n, err := d.ReadAt(got, offset); err != nil && err != io.EOF {
		return fmt.Errorf("read %d bytes at %d: %w", len(want), offset, err)
	} else if n < len(want) || !bytes.Equal(got, want) {
		if _, err := d.WriteAt(want, offset); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", len(want), offset, err)
		}
	}
	if err := d.Sync(); err != nil { // also of what somebody else wrote and did not sync
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Grow moves the backup to the end of a disk of newSize bytes and extends the
// partition of that name up to the last whole MiB in front of it, or of the next
// partition. It returns the table that is then on the disk. Grown already, it writes
// nothing, so it may run at every boot.
//
// A cut at any point leaves a disk on which Read finds the old table or the new
// one, and on which another Grow finishes the work:
//
//  1. where the primary is damaged: primary from the backup, sync
//  2. backup at the new end, sync: the primary is still the old one
//  3. primary, sync: should it be torn, the backup is the new one
//
// It never makes a partition smaller, and leaves the entries of a hybrid MBR as they are,
// by which firmware finds its files on some boards. The kernel has to be told by the caller.
func Grow(d device, newSize int64, name string) (Table, error) {
	t, err := change(d, newSize, func(t *Table) error {
		i, err := t.index(name)
		if err != nil {
			return err
		}
		own := &t.Partitions[i]
		end := LastUsable(t.Sectors) + 1
		for _, p := range t.Partitions {
			if p.First > own.First {
				end = min(end, p.First)
			}
		}
		if end = end / align * align; end > own.Last {
			own.Last = end - 1
		}
		return nil
	})
	if err != nil {
		return Table{}, fmt.Errorf("grow partition table to %d bytes: %w", newSize, err)
	}
	return t, nil
}

// Randomize gives the disk of size bytes and each partition on it a new GUID, as
// two disks written from one image need it, and moves the backup to the end of the
// disk. It returns the new table. The steps, and what a cut leaves, are those of
// Grow, except that every call makes other GUIDs.
func Randomize(d device, size int64) (Table, error) {
	t, err := change(d, size, func(t *Table) error {
		t.DiskGUID = RandomGUID()
		for i := range t.Partitions {
			t.Partitions[i].GUID = RandomGUID()
		}
		return nil
	})
	if err != nil {
		return Table{}, fmt.Errorf("new GUIDs for the partition table: %w", err)
	}
	return t, nil
}

// change reads the table, lets edit have its way with it on a disk of size bytes,
// and writes it.
func change(d device, size int64, edit func(*Table) error) (Table, error) {
	c := readCopies(d, size)
	t := c.primary
	if c.primaryErr != nil {
		if c.backupErr != nil {
			return Table{}, fmt.Errorf("primary: %w; backup: %w", c.primaryErr, c.backupErr)
		}
		t = c.backup
	}
	next := t
	next.Partitions = append([]Partition(nil), t.Partitions...)
	next.Sectors = uint64(size) / SectorSize
	if err := edit(&next); err != nil {
		return Table{}, err
	}
	if _, _, err := next.Encode(); err != nil {
		return Table{}, err // before anything is written
	}
	mbr, err := hybrid(d)
	if err != nil {
		return Table{}, err
	}
	if c.primaryErr != nil { // never write over the only sound copy
		front, _, err := t.Encode()
		if err != nil {
			return Table{}, err
		}
		copy(front[bootCode:], mbr)
		if err := writeFront(d, front); err != nil {
			return Table{}, err
		}
	}
	return next, write(d, next, mbr)
}

// hybrid returns the entries of the MBR of d if, beside the one that protects the table, they
// have others, which somebody made for firmware or systems that know no such table.
func hybrid(d device) ([]byte, error) {
	mbr := make([]byte, SectorSize)
	if _, err := d.ReadAt(mbr, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read sector 0: %w", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil, nil
	}
	protects, others := false, false
	for entry := mbr[bootCode:510]; len(entry) > 0; entry = entry[16:] {
		switch kind := entry[4]; kind {
		case 0:
		case protective:
			protects = true
		default:
			others = true
		}
	}
	if !protects || !others {
		return nil, nil
	}
	return mbr[bootCode:], nil
}
