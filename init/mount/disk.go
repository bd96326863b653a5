package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"kogge.example/update/gpt"
	"kogge.example/update/partition"
)

// ErrTwoDisks says that nothing tells which of several disks the loader came from.
// Why, and their names, are in the error.
var ErrTwoDisks = errors.New("boot disk is uncertain")

// ErrNoDisk says that no disk of a Kogge image was found (yet).
var ErrNoDisk = errors.New("no disk with a Kogge image")

// Disk is a whole disk with a Kogge partition table.
type Disk struct {
	Name  string    // kernel's name, without /dev/: "vda", "mmcblk0"
	Size  int64     // bytes
	Table gpt.Table // as it was read
	Parts map[string]string
	// Parts maps the partition names to device files: "ROOT-A" → "/dev/vda2".
}

// Path is the device file of the whole disk.
func (d Disk) Path() string { return "/dev/" + d.Name }

// Disks returns every disk with the partitions ESP, ROOT-A and ROOT-B, by name. unusable says
// of the others that look as if they were meant to be one why they are not: a partition
// table that is damaged or of a larger disk, or one that the kernel does not take. Disks
// that cannot be read at all are passed over: an empty card reader is one.
func Disks() (disks []Disk, unusable, err error) { return disksIn("/sys/class/block", "/dev") }

func disksIn(class, dev string) (disks []Disk, unusable, err error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, nil, fmt.Errorf("list disks: %w", err)
	}
	var why []error
	for _, e := range entries {
		sys := filepath.Join(class, e.Name())
		if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
			continue
		}
		sectors := sysNumber(sys, "size")
		if sectors < 2*gpt.FirstUsable || strings.HasPrefix(e.Name(), "dm-") || strings.HasPrefix(e.Name(), "loop") || strings.HasPrefix(e.Name(), "ram") {
			continue
		}
		switch d, ours, err := openDisk(e.Name(), sys, dev, sectors*gpt.SectorSize); {
		case err == nil:
			disks = append(disks, d)
		case ours:
			why = append(why, fmt.Errorf("disk /dev/%s (%d MiB) cannot be used: %w", e.Name(), sectors*gpt.SectorSize>>20, err))
		}
	}
	sort.Slice(disks, func(i, j int) bool { return disks[i].Name < disks[j].Name })
	return disks, errors.Join(why...), nil
}

// openDisk reads the partition table of a disk. ours says of a disk that is none of Kogge's
// whether it may have been meant to be one.
func openDisk(name, sys, dev string, size int64) (d Disk, ours bool, err error) {
	f, err := os.Open(filepath.Join(dev, name))
	if err != nil {
		return Disk{}, false, err
	}
	defer f.Close()
	t, err := gpt.Read(f, size)
	if err != nil {
		return Disk{}, !errors.Is(err, gpt.ErrNone), err
	}
	for _, p := range t.Partitions {
		ours = ours || p.Name == partition.RootA || p.Name == partition.RootB
	}
	d = Disk{Name: name, Size: size, Table: t, Parts: map[string]string{}}
	for _, want := range partition.All() {
		p, err := t.Find(want)
		if err != nil {
			if want == partition.State {
				continue // boots without
			}
			return Disk{}, ours, err
		}
		node, ok := partitionNode(sys, p)
		if !ok {
			return Disk{}, ours, fmt.Errorf("the kernel does not have partition %s where the table says (yet)", want)
		}
		d.Parts[want] = node
	}
	return d, true, nil
}

// partitionNode finds the kernel's device for p by its first sector.
func partitionNode(sys string, p gpt.Partition) (string, bool) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		dir := filepath.Join(sys, e.Name())
		if sysNumber(dir, "partition") == int64(p.Number) && sysNumber(dir, "start") == int64(p.First) {
			return "/dev/" + e.Name(), true
		}
	}
	return "", false
}

// sysNumber reads one number from a sysfs attribute, 0 if there is none.
func sysNumber(dir, attribute string) int64 {
	data, err := os.ReadFile(filepath.Join(dir, attribute))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// BootDisk picks the disk that the boot loader came from among all Kogge disks:
// the one whose ESP has the GUID that the loader names. A loader that names none
// (a kernel started directly) leaves the choice to the number of disks. When two
// match, it returns the first with ErrTwoDisks.
func BootDisk(disks []Disk, loader *gpt.GUID) (Disk, error) {
	var match []Disk
	for _, d := range disks {
		esp, err := d.Table.Find(partition.ESP)
		if err == nil && (loader == nil || esp.GUID == *loader) {
			match = append(match, d)
		}
	}
	switch {
	case len(match) == 0 && loader != nil && len(disks) > 0:
		return Disk{}, fmt.Errorf("%w: the loader started from partition %s, which no disk here has", ErrNoDisk, loader)
	case len(match) == 0:
		return Disk{}, ErrNoDisk
	case len(match) > 1:
		why := "two disks carry the same image"
		names := make([]string, len(match))
		for i, d := range match {
			names[i] = d.Path()
			if d.Table.DiskGUID != match[0].Table.DiskGUID {
				why = "the loader does not say which of these it came from"
			}
		}
		return match[0], fmt.Errorf("%w: %s: %s", ErrTwoDisks, why, strings.Join(names, " and "))
	}
	return match[0], nil
}
