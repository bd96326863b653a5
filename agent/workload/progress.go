package workload

import (
	"fmt"
)

// Progress is how far a pull is, in bytes of the image as it travels. Total is 0 as
// long as it is not known. Once Done is Total, layers are still being unpacked.
type Progress struct {
	Done, Total int64
	Layers      []LayerProgress // in the image's order, once Total is known
}

// LayerProgress is how far one layer is.
type LayerProgress struct {
	Digest     string
	Done, Size int64
	// Before is how much of it was there when the pull began: all of it if another
	// image has it, or what an earlier pull left, where this one goes on.
	Before int64
	// From is the server that sends it, the registry's or a mirror's; "" before that.
	From string
}

// String is a line for people.
func (p Progress) String() string {
	const mega = 1e6
	switch {
	case p.Total == 0:
		return "pulling"
	case p.Done >= p.Total:
		return fmt.Sprintf("unpacking %.1f MB", float64(p.Total)/mega)
	}
	return fmt.Sprintf("pulling %.1f of %.1f MB", float64(p.Done)/mega, float64(p.Total)/mega)
}
