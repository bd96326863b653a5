// Package uki joins kernel, initramfs and command line into one bootable file, a
// unified kernel image: the sections are appended to the EFI stub of systemd-boot,
// which hands them to the kernel. Nothing is signed here.
//
// Source: uapi-group.org/specifications/specs/unified_kernel_image and the PE/COFF
// format specification.
package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Image is what goes into a unified kernel image.
type Image struct {
	OSRelease string // text in the form of /etc/os-release
	Cmdline   string // kernel command line
	Uname     string // kernel release
	Kernel    []byte
	Initrd    []byte
}

// Offsets in the PE headers, from the start of the header they belong to.
const (
	dosPEOffset = 0x3c // of the DOS header: where the PE header is

	coffSections     = 6  // number of sections, uint16
	coffOptionalSize = 20 // size of the optional header, uint16
	coffSize         = 24 // signature and COFF header together

	optInitializedData = 8  // SizeOfInitializedData
	optSectionAlign    = 32 // SectionAlignment
	optFileAlign       = 36 // FileAlignment
	optImageSize       = 56 // SizeOfImage
	optHeadersSize     = 60 // SizeOfHeaders
	optChecksum        = 64 // CheckSum

	sectionSize = 40
	// maxImage is the size in bytes up to which no sum here can overflow.
	maxImage = 1 << 30
	// characteristics of a section with initialised, readable data
	sectionData = 0x40000040
)

// Build appends the image's sections to a stub. It fails if the stub is no PE file
// or has no room for the section headers.
func Build(stub []byte, im Image) ([]byte, error) {
	p, err := parse(stub)
	if err != nil {
		return nil, fmt.Errorf("EFI stub: %w", err)
	}
	sections := []struct {
		name string
		data []byte
	}{
		{".osrel", []byte(im.OSRelease)},
		{".cmdline", []byte(im.Cmdline)},
		{".uname", []byte(im.Uname)},
		{".initrd", im.Initrd},
		// The kernel comes last: it may use the memory behind its section.
		{".linux", im.Kernel},
	}
	for _, s := range sections {
		if len(s.data) == 0 {
			return nil, fmt.Errorf("unified kernel image: section %s is empty", s.name)
		}
		if err := p.add(s.name, s.data); err != nil {
			return nil, fmt.Errorf("unified kernel image: section %s: %w", s.name, err)
		}
	}
	return p.finish(), nil
}

// peFile is a PE file that sections are being appended to.
type peFile struct {
	b          []byte
	header     int // offset of the PE signature
	optional   int // offset of the optional header
	table      int // offset of the section table
	count      int // sections so far
	room       int // offset where section headers must end
	nextVA     uint32
	fileAlign  uint32
	virtAlign  uint32
	addedBytes uint32
}

func parse(stub []byte) (*peFile, error) {
	le := binary.LittleEndian
	if len(stub) < dosPEOffset+4 || stub[0] != 'M' || stub[1] != 'Z' {
		return nil, errors.New("not a PE file")
	}
	p := &peFile{b: append([]byte(nil), stub...), header: int(le.Uint32(stub[dosPEOffset:]))}
	p.optional = p.header + coffSize
	if p.header < 0 || p.optional+optChecksum+4 > len(stub) || string(stub[p.header:p.header+4]) != "PE\x00\x00" {
		return nil, errors.New("not a PE file")
	}
	p.count = int(le.Uint16(stub[p.header+coffSections:]))
	p.table = p.optional + int(le.Uint16(stub[p.header+coffOptionalSize:]))
	p.virtAlign = le.Uint32(stub[p.optional+optSectionAlign:])
	p.fileAlign = le.Uint32(stub[p.optional+optFileAlign:])
	if p.virtAlign == 0 || p.fileAlign == 0 || p.virtAlign > 1<<20 || p.fileAlign > 1<<16 || p.count == 0 || p.table+p.count*sectionSize > len(stub) {
		return nil, errors.New("damaged headers")
	}
	p.room = len(stub)
	for i := range p.count {
		s := stub[p.table+i*sectionSize:]
		end := uint64(le.Uint32(s[12:])) + uint64(le.Uint32(s[8:]))
		if end > maxImage {
			return nil, errors.New("damaged headers")
		}
		p.nextVA = max(p.nextVA, align(uint32(end), p.virtAlign))
		if raw := int(le.Uint32(s[20:])); raw != 0 && raw < p.room {
			p.room = raw
		}
	}
	return p, nil
}

// add appends one section. Its header goes into the gap before the first section's
// data, its data to the end of the file.
func (p *peFile) add(name string, data []byte) error {
	le := binary.LittleEndian
	at := p.table + p.count*sectionSize
	if at+sectionSize > p.room {
		return fmt.Errorf("the stub has no room for another section header")
	}
	if uint64(p.nextVA)+uint64(len(data)) > maxImage || len(p.b)+len(data) > maxImage {
		return fmt.Errorf("%d bytes do not fit into an image of 1 GiB", len(data))
	}
	for uint32(len(p.b))%p.fileAlign != 0 {
		p.b = append(p.b, 0)
	}
	raw := align(uint32(len(data)), p.fileAlign)
	h := p.b[at : at+sectionSize]
	clear(h)
	copy(h[:8], name)
	le.PutUint32(h[8:], uint32(len(data)))
	le.PutUint32(h[12:], p.nextVA)
	le.PutUint32(h[16:], raw)
	le.PutUint32(h[20:], uint32(len(p.b)))
	le.PutUint32(h[36:], sectionData)
	p.b = append(p.b, data...)
	p.b = append(p.b, make([]byte, int(raw)-len(data))...)
	p.count++
	p.addedBytes += raw
	p.nextVA = align(p.nextVA+uint32(len(data)), p.virtAlign)
	return nil
}

// finish corrects the totals in the headers.
func (p *peFile) finish() []byte {
	le := binary.LittleEndian
	le.PutUint16(p.b[p.header+coffSections:], uint16(p.count))
	o := p.b[p.optional:]
	le.PutUint32(o[optInitializedData:], le.Uint32(o[optInitializedData:])+p.addedBytes)
	le.PutUint32(o[optImageSize:], p.nextVA)
	headers := align(uint32(p.table+p.count*sectionSize), p.fileAlign)
	le.PutUint32(o[optHeadersSize:], max(headers, le.Uint32(o[optHeadersSize:])))
	le.PutUint32(o[optChecksum:], 0)
	return p.b
}

func align(n, to uint32) uint32 { return (n + to - 1) / to * to }
