package fat

import (
	"errors"
	"fmt"
)

// ErrNotSector tells of a file that cannot be overwritten in place: it has not the size
// of one sector.
var ErrNotSector = errors.New("not one sector")

// Overwrite replaces the content of a file of one sector in place, and syncs. After a
// cut the sector is the old one or the new one, or, on a disk that tears sectors, the
// front of the one over the rest of the other: so the content has to tell by itself
// whether it is whole. Nothing else on the volume is written, its times included: this
// is for what changes at every boot.
func (v *Volume) Overwrite(name string, content []byte) error {
	if err := v.overwrite(name, content); err != nil {
		return fmt.Errorf("overwrite %q: %w", name, err)
	}
	return nil
}

func (v *Volume) overwrite(name string, content []byte) error {
	_, e, err := v.lookup(name)
	switch {
	case err != nil:
		return err
	case e.isDir():
		return fmt.Errorf("%w: a directory", ErrExist)
	case len(content) != sectorSize || e.size != sectorSize:
		return fmt.Errorf("%d bytes over %d: %w of %d bytes", len(content), e.size, ErrNotSector, sectorSize)
	case !v.valid(e.first):
		return fmt.Errorf("begins at cluster %d of %d", e.first, v.clusters)
	}
	if err := v.write(content, v.offset(e.first)); err != nil {
		return err
	}
	return v.sync()
}
