package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"testing"
)

// stub is the least PE file that sections can be appended to, with room for so many
// more section headers.
func stub(room int) []byte {
	le := binary.LittleEndian
	const table = 0x58 + 240
	first := (table + (1+room)*sectionSize + 511) / 512 * 512
	b := make([]byte, first+512)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x40)
	copy(b[0x40:], "PE\x00\x00")
	le.PutUint16(b[0x44:], pe.IMAGE_FILE_MACHINE_AMD64)
	le.PutUint16(b[0x46:], 1)
	le.PutUint16(b[0x54:], 240)
	opt := b[0x58:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[optSectionAlign:], 4096)
	le.PutUint32(opt[optFileAlign:], 512)
	le.PutUint32(opt[optHeadersSize:], uint32(first))
	le.PutUint32(opt[optChecksum:], 0xdead)
	le.PutUint32(opt[108:], 16)
	s := b[table:]
	copy(s, ".text")
	le.PutUint32(s[8:], 100)
	le.PutUint32(s[12:], 4096)
	le.PutUint32(s[16:], 512)
	le.PutUint32(s[20:], uint32(first))
	for i := range b[first:] {
		b[first+i] = byte(i)
	}
	return b
}

var parts = Image{OSRelease: "ID=kogge\n", Cmdline: "quiet", Uname: "6.12", Kernel: bytes.Repeat([]byte("K"), 5000), Initrd: bytes.Repeat([]byte("I"), 513)}

func TestBuild(t *testing.T) {
	in := stub(5)
	before := bytes.Clone(in)
	out, err := Build(in, parts)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(in, before) {
		t.Error("the stub was changed")
	}
	f, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		".osrel": []byte(parts.OSRelease), ".cmdline": []byte(parts.Cmdline), ".uname": []byte(parts.Uname),
		".linux": parts.Kernel, ".initrd": parts.Initrd, ".text": before[len(before)-512:][:100],
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	var end uint32
	for _, s := range f.Sections {
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data[:s.VirtualSize], want[s.Name]) {
			t.Errorf("section %s is not what was put in", s.Name)
		}
		delete(want, s.Name)
		if s.VirtualAddress%opt.SectionAlignment != 0 || s.Offset%opt.FileAlignment != 0 || s.VirtualAddress < end {
			t.Errorf("section %s at %#x, in the file at %#x, behind one that ends at %#x", s.Name, s.VirtualAddress, s.Offset, end)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	if len(want) > 0 {
		t.Errorf("missing sections: %v", want)
	}
	if opt.SizeOfImage < end || opt.CheckSum != 0 {
		t.Errorf("size of image %#x, last section ends at %#x; checksum %#x", opt.SizeOfImage, end, opt.CheckSum)
	}
	if last := f.Sections[len(f.Sections)-1]; last.Name != ".linux" {
		t.Errorf("the last section is %s, not the kernel", last.Name)
	}
}

func TestBuildRefuses(t *testing.T) {
	for what, in := range map[string][]byte{
		"empty": nil, "text": []byte("MZ hello"), "no room": stub(0), "cut": stub(5)[:100],
		"header outside": append([]byte("MZ"), bytes.Repeat([]byte{0xff}, 100)...),
	} {
		if _, err := Build(in, parts); err == nil {
			t.Errorf("%s: was taken", what)
		}
	}
	if _, err := Build(stub(5), Image{Kernel: []byte("k")}); err == nil {
		t.Error("an image without parts was made")
	}
}

// FuzzBuild damages the stub: Build makes a file that debug/pe can read, or says no.
func FuzzBuild(f *testing.F) {
	f.Add(stub(5))
	f.Add(stub(0))
	f.Add(stub(5)[:0x58+100])
	big := stub(5)
	binary.LittleEndian.PutUint32(big[0x3c:], 0x7fffffff)
	f.Add(big)
	wrap := stub(5)
	binary.LittleEndian.PutUint32(wrap[0x58+240+8:], 0xffffffff) // a section up to the end of the address space
	f.Add(wrap)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Build(in, parts)
		if err != nil {
			return
		}
		le := binary.LittleEndian
		header := int(le.Uint32(out[0x3c:]))
		if n := le.Uint16(out[header+coffSections:]); n < 6 {
			t.Errorf("%d sections", n)
		}
		if !bytes.Contains(out, parts.Kernel) || !bytes.Contains(out, parts.Initrd) {
			t.Error("kernel or initramfs is not in the file")
		}
	})
}
