package medium

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kogge.example/image/disk"
	"kogge.example/update/gpt"
	"kogge.example/update/mountinfo"
)

// Look collects the facts about what is at name.
func Look(name string) (Facts, error) {
	st, err := os.Stat(name)
	if err != nil {
		return Facts{}, fmt.Errorf("look at target: %w", err)
	}
	f := Facts{Path: name, Kind: Other}
	switch {
	case st.Mode().IsRegular():
		f.Kind, f.Size, f.ReadOnly = Regular, st.Size(), unix.Access(name, unix.W_OK) != nil
	case st.Mode()&fs.ModeDevice != 0 && st.Mode()&fs.ModeCharDevice == 0:
		f.Kind = Block
		if err := (host{"/"}).look(name, &f); err != nil {
			return Facts{}, fmt.Errorf("look at %s: %w", name, err)
		}
	default:
		return f, nil
	}
	f.Holds = holds(name, f.Size)
	return f, nil
}

// host is the root of the /sys and /proc that facts are read from; tests have
// their own.
type host struct{ root string }

func (h host) path(elem ...string) string { return filepath.Join(append([]string{h.root}, elem...)...) }

// text reads one attribute, "" if there is none.
func (h host) text(elem ...string) string {
	data, err := os.ReadFile(h.path(elem...))
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(data)), " ")
}

func (h host) number(elem ...string) int64 {
	n, _ := strconv.ParseInt(h.text(elem...), 10, 64)
	return n
}

// look fills in what /sys and /proc say about the block device at name.
func (h host) look(name string, f *Facts) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	return h.device(number, f)
}

// device is look for the device of that major:minor number.
func (h host) device(number string, f *Facts) error {
	dir, err := filepath.EvalSymlinks(h.path("sys/dev/block", number))
	if err != nil {
		return err
	}
	if dir, err = filepath.Rel(h.root, dir); err != nil {
		return err
	}
	f.Name = path.Base(dir)
	disk := dir
	if h.text(dir, "partition") != "" {
		disk = path.Dir(dir)
		f.Whole = path.Base(disk)
	}
	f.Size = h.number(dir, "size") * gpt.SectorSize
	f.Sector = h.number(disk, "queue/logical_block_size")
	f.ReadOnly = h.text(dir, "ro") == "1"
	f.Removable = h.text(disk, "removable") == "1"
	f.Model = strings.TrimSpace(h.text(disk, "device/vendor") + " " + h.text(disk, "device/model"))
	if strings.HasPrefix(f.Model, "0x") || f.Model == "" { // a number is no vendor
		f.Model = firstOf(h.text(disk, "device/model"), h.text(disk, "device/name"))
	}
	f.Bus = bus(dir)
	f.Uses, err = h.uses(dir)
	return err
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// bus names what a device is plugged into, by its place in the tree of devices.
func bus(dir string) string {
	for _, b := range []struct{ part, name string }{
		{"/usb", "USB"}, {"/mmc", "SD card or eMMC"}, {"/nvme", "NVMe"}, {"/ata", "SATA"}, {"/virtio", "virtio"},
		{"/virtual/", "virtual"}, {"/host", "SCSI"},
	} {
		if strings.Contains("/"+dir, b.part) {
			return b.name
		}
	}
	return ""
}

// uses lists who uses the device at dir in /sys, its partitions, and whatever is
// built on them.
func (h host) uses(dir string) ([]Use, error) {
	mounts, err := h.mounts()
	if err != nil {
		return nil, err
	}
	swaps, err := h.swaps()
	if err != nil {
		return nil, err
	}
	dirs := []string{dir}
	entries, err := os.ReadDir(h.path(dir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if h.text(dir, e.Name(), "partition") != "" {
			dirs = append(dirs, path.Join(dir, e.Name()))
		}
	}
	var uses []Use
	for seen := map[string]bool{}; len(dirs) > 0; dirs = dirs[1:] {
		at := dirs[0]
		name := path.Base(at)
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, m := range mounts {
			if m.Device == h.text(at, "dev") || strings.HasPrefix(m.Source, "/dev/") && h.nodeName(m.Source) == name {
				uses = append(uses, Use{name, mounted, m.Target})
			}
		}
		if slices.Contains(swaps, name) {
			uses = append(uses, Use{name, swap, ""})
		}
		holders, err := os.ReadDir(h.path(at, "holders"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range holders {
			uses = append(uses, Use{name, partOf, e.Name()})
			dirs = append(dirs, path.Join("sys/class/block", e.Name()))
		}
	}
	return uses, nil
}

// mounts reads /proc/self/mountinfo. Lines of another form are passed over.
func (h host) mounts() ([]mountinfo.Mount, error) {
	data, err := os.ReadFile(h.path("proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	mounts, _ := mountinfo.Parse(string(data))
	return mounts, nil
}

// nodeName is the kernel's name of the device at a path below /dev, which may be a
// link such as /dev/mapper/root.
func (h host) nodeName(dev string) string {
	if real, err := filepath.EvalSymlinks(h.path(dev)); err == nil {
		return path.Base(real)
	}
	return path.Base(dev)
}

// swaps lists the kernel's names of devices that are used as swap.
func (h host) swaps() ([]string, error) {
	data, err := os.ReadFile(h.path("proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "partition" {
			names = append(names, h.nodeName(mountinfo.Unescape(f[0])))
		}
	}
	return names, nil
}

// holds describes for people what is on a medium; what cannot be read is unknown.
func holds(name string, size int64) string {
	f, err := os.Open(name)
	if err != nil {
		return "unknown: " + err.Error()
	}
	defer f.Close()
	if c, err := disk.Inspect(f, size); err == nil {
		return c.String()
	}
	if t, err := gpt.Read(f, size); err == nil {
		names := make([]string, len(t.Partitions))
		for i, p := range t.Partitions {
			names[i] = fmt.Sprintf("%q (%.1f GB)", p.Name, float64(p.Size())/1e9)
		}
		return fmt.Sprintf("%d partitions: %s", len(names), strings.Join(names, ", "))
	}
	front := make([]byte, 64<<10)
	n, err := f.ReadAt(front, 0)
	if err != nil && err != io.EOF {
		return "unknown: " + err.Error()
	}
	for _, b := range front[:n] {
		if b != 0 {
			return "something without a partition table of this kind"
		}
	}
	return "nothing at its start"
}
