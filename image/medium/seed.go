package medium

import (
	"fmt"
	"os"
	"time"

	"kogge.example/image/disk"
	"kogge.example/update/fat"
)

// Files are what a node finds on its boot partition, checked already. A nil one
// stays as it is.
type Files struct {
	Node []byte // node.yaml: settings
	Join []byte // join.yaml: the fleet, and a token that takes the node in
}

// Seeded is what Seed did.
type Seeded struct {
	Replaced bool       // there was a node.yaml, and it was given
	Repaired fat.Report // what an earlier power cut or a pulled card had left
}

// Seed puts files on the boot partition of an image file or of a medium that was
// written from one. Nobody else may use it meanwhile. What is there of each after a
// cut is the old text or the new one, as fat.WriteFile says.
func Seed(name string, files Files, when time.Time) (Seeded, error) {
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
	s, err = seedDevice(d, f.Size, files, when)
	if e := d.f.Close(); err == nil { // the partitions are the old ones
		err = e
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func seedDevice(d disk.Device, size int64, files Files, when time.Time) (s Seeded, err error) {
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
	if files.Node != nil {
		_, err := v.Reader(nodeYAML)
		s.Replaced = err == nil
		if err := putFile(v, nodeYAML, files.Node, when); err != nil {
			return s, err
		}
	}
	if files.Join != nil {
		return s, putFile(v, joinYAML, files.Join, when)
	}
	return s, nil
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
