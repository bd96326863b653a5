package medium

import (
	"fmt"
	"os"
	"time"

	"kogge.example/image/disk"
	"kogge.example/update/fat"
)

// Seeded is what Seed did.
type Seeded struct {
	Replaced bool       // there was a node.yaml
	Repaired fat.Report // what an earlier power cut or a pulled card had left
}

// Seed puts config, a node.yaml that was checked already, on the boot partition of
// an image file or of a medium that was written from one. Nobody else may use it
// meanwhile. What is there after a cut is the old settings or the new ones, as
// fat.WriteFile says.
func Seed(name string, config []byte, when time.Time) (Seeded, error) {
	var s Seeded
	f, err := Look(name)
	if err != nil {
		return s, err
	}
	switch {
	case f.Kind == Other:
		return s, fmt.Errorf("%s: %w: it is %s", name, disk.ErrNoImage, f.Kind)
	case f.Whole != "":
		return s, fmt.Errorf("%s: %w: it is a partition of /dev/%s", name, ErrKind, f.Whole)
	}
	if err := Free(f); err != nil {
		return s, err
	}
	d, err := Open(f)
	if err != nil {
		return s, err
	}
	s, err = seedDevice(d, f.Size, config, when)
	if e := d.f.Close(); err == nil { // the partitions are the old ones
		err = e
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func seedDevice(d disk.Device, size int64, config []byte, when time.Time) (s Seeded, err error) {
	t, err := disk.Table(d, size)
	if err != nil {
		return s, err
	}
	v, err := disk.Boot(d, t)
	if err != nil {
		return s, err
	}
	if s.Repaired, err = v.Repair(); err != nil {
		return s, err
	}
	if len(s.Repaired.Damage) > 0 {
		return s, fmt.Errorf("%w: boot partition: %s", disk.ErrDamaged, s.Repaired)
	}
	_, err = v.Reader(nodeYAML)
	s.Replaced = err == nil
	return s, putConfig(v, config, when)
}

// OpenImage opens an image file and checks all that is in it.
func OpenImage(name string) (*os.File, disk.Contents, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, disk.Contents{}, fmt.Errorf("open image: %w", err)
	}
	st, err := f.Stat()
	var c disk.Contents
	if err == nil && !st.Mode().IsRegular() {
		err = disk.ErrNoImage
	}
	if err == nil {
		c, err = disk.Inspect(f, st.Size())
	}
	if err == nil {
		err = c.Verify(f)
	}
	if err != nil {
		f.Close()
		return nil, disk.Contents{}, fmt.Errorf("%s: %w", name, err)
	}
	return f, c, nil
}
