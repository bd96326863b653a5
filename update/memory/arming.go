package memory

import (
	"fmt"

	"kogge.example/update/bootloader"
)

// ArmingsFile is the count of armings. The loader's numbers do not do: that of a slot which
// is retired is gone, and comes again.
const ArmingsFile = "armings.json"

// armingsFile is armings.json.
type armingsFile struct {
	Version int   `json:"version"`
	Highest int64 `json:"highest"`
}

// NextArming is the number of the next arming: above those of all that were, as far as this
// node remembers or its loader knows. It is a count of its own: an entry of the loader may
// get a lower number. A count that cannot be read is an error, because what was signed for
// one arming must not serve for another.
func NextArming(m Folder, s bootloader.State) (int64, error) {
	var file armingsFile
	if _, err := read(m, ArmingsFile, &file); err != nil {
		return 0, err
	}
	if file.Highest < 0 || file.Highest == 1<<63-1 {
		return 0, fmt.Errorf("what this node remembers: %s: %w: %d armings", ArmingsFile, errDamaged, file.Highest)
	}
	return 1 + max(file.Highest, int64(s.A.Number), int64(s.B.Number)), nil
}

// KeepArmings remembers how many armings there were, before the loader forgets one. At a cut
// it is remembered or not; it never gets lower.
func KeepArmings(m Folder, s bootloader.State) error {
	next, err := NextArming(m, s)
	if err != nil {
		return err
	}
	return keepArming(m, next-1)
}

// UseArming is the number of the arming that begins now, and no other one gets it: it is
// remembered once UseArming returns. At a cut before that it is, or is not.
func UseArming(m Folder, s bootloader.State) (int64, error) {
	next, err := NextArming(m, s)
	if err != nil {
		return 0, err
	}
	return next, keepArming(m, next)
}

func keepArming(m Folder, highest int64) error {
	var file armingsFile
	if _, err := read(m, ArmingsFile, &file); err != nil || file.Highest >= highest {
		return err
	}
	return write(m, ArmingsFile, armingsFile{format, highest})
}
