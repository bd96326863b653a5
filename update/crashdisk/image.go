package crashdisk

import (
	"maps"
	"slices"
)

// pageSize is what one write to an image copies at least, in bytes.
const pageSize = 8 * SectorSize

// image is the content of a disk: what it held first, and the pages that were written
// since. A page never changes once it is in the map, so that images share them.
type image struct {
	base  []byte
	pages map[int64][]byte
}

func newImage(content []byte) image { return image{content, map[int64][]byte{}} }

func (m image) size() int64 { return int64(len(m.base)) }

// clone is an image of its own, for the price of the pages' list.
func (m image) clone() image { return image{m.base, maps.Clone(m.pages)} }

// page is one of them, the last one shorter; it must not be changed.
func (m image) page(n int64) []byte {
	if p, written := m.pages[n]; written {
		return p
	}
	return m.base[n*pageSize : min((n+1)*pageSize, m.size())]
}

// read returns how many bytes there were.
func (m image) read(p []byte, offset int64) int {
	done := 0
	for done < len(p) && offset < m.size() {
		n := copy(p[done:], m.page(offset / pageSize)[offset%pageSize:])
		done, offset = done+n, offset+int64(n)
	}
	return done
}

// write wants all of data within the image.
func (m image) write(data []byte, offset int64) {
	for len(data) > 0 {
		number := offset / pageSize
		page := slices.Clone(m.page(number))
		n := copy(page[offset%pageSize:], data)
		m.pages[number] = page
		data, offset = data[n:], offset+int64(n)
	}
}

// sector is a copy of sector s, which may end in the middle.
func (m image) sector(s int64) []byte {
	p := make([]byte, SectorSize)
	return p[:m.read(p, s*SectorSize)]
}

// bytes is all of it, which the caller owns.
func (m image) bytes() []byte {
	all := slices.Clone(m.base)
	for n, page := range m.pages {
		copy(all[n*pageSize:], page)
	}
	return all
}
