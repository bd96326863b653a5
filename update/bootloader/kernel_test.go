package bootloader

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"kogge.example/update/crashdisk"
)

// unified is the smallest unified kernel image there is: headers and three sections.
func unified(t testing.TB, sections map[string]string) []byte {
	t.Helper()
	names := []string{".cmdline", ".linux", ".initrd"}
	var b, data bytes.Buffer
	le := binary.LittleEndian
	head := make([]byte, 64)
	copy(head, "MZ")
	le.PutUint32(head[60:], 64)
	b.Write(head)
	b.WriteString("PE\x00\x00")
	put := func(v any) {
		if err := binary.Write(&b, le, v); err != nil {
			t.Fatal(err)
		}
	}
	put(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: 0})
	const front = 512
	for _, name := range names {
		text, there := sections[name]
		if !there {
			continue
		}
		h := pe.SectionHeader32{VirtualSize: uint32(len(text)), SizeOfRawData: uint32(len(text)+511) &^ 511, PointerToRawData: uint32(front + data.Len())}
		copy(h.Name[:], name)
		put(h)
		data.WriteString(text)
		data.Write(make([]byte, int(h.SizeOfRawData)-len(text)))
	}
	b.Write(make([]byte, front-b.Len()))
	b.Write(data.Bytes())
	return b.Bytes()
}

// TestKernelOf finds kernel, initrd and command line of a slot, whichever loader has
// them, and nothing where the files are not what they should be.
func TestKernelOf(t *testing.T) {
	sound := unified(t, map[string]string{".cmdline": "quiet x=1\x00", ".linux": "kernel", ".initrd": "initrd"})
	uki := func(b []byte) map[string]string { return map[string]string{"uki": string(b)} }
	folder := func(cmdline string) map[string]string {
		return map[string]string{"kernel": "kernel", "initrd": "initrd", "cmdline": cmdline}
	}
	for _, c := range []struct {
		loader Loader
		files  map[string]string
		want   string // of the error; "": none
	}{
		{systemdBoot{}, uki(sound), ""},
		{systemdBoot{}, uki(sound[:len(sound)-600]), "section .initrd ends after the file"},
		{systemdBoot{}, uki(unified(t, map[string]string{".cmdline": "x", ".linux": "kernel"})), "no section .initrd"},
		{systemdBoot{}, uki(unified(t, map[string]string{".linux": "kernel", ".initrd": "initrd"})), "no section .cmdline"},
		{systemdBoot{}, uki(unified(t, map[string]string{".cmdline": "a\nb", ".linux": "kernel", ".initrd": "initrd"})), "more than one line"},
		{systemdBoot{}, uki([]byte("MZ")), "EOF"},
		{systemdBoot{}, nil, "EFI/kogge/b.efi"},
		{uBoot{}, folder("bootargs=quiet x=1\n"), ""},
		{uBoot{}, folder("quiet x=1\n"), "sets no bootargs"},
		{uBoot{}, folder("bootargs=quiet\nbootdelay=-1\n"), "more than one line"},
		{uBoot{}, folder("bootargs=" + strings.Repeat("x", maxCmdline)), "at most 4096"},
		{uBoot{}, map[string]string{"cmdline": "bootargs=x\n", "initrd": "initrd"}, "B/kernel"},
	} {
		v := open1(t, crashdisk.New(fresh(t, c.loader), 1<<20))
		for name, text := range c.files {
			if err := c.loader.Install(v, B, name, int64(len(text)), strings.NewReader(text), when); err != nil {
				t.Fatal(err)
			}
		}
		k, err := KernelOf(c.loader, v, B)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, want %q", c.files, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		image, imageErr := io.ReadAll(k.Image)
		initrd, initrdErr := io.ReadAll(k.Initrd)
		if arch := map[Loader]string{systemdBoot{}: "amd64"}[c.loader]; k.Arch != arch {
			t.Errorf("%q: the kernel is for %q, want %q", c.files, k.Arch, arch)
		}
		if string(image) != "kernel" || string(initrd) != "initrd" || k.Cmdline != "quiet x=1" || imageErr != nil || initrdErr != nil {
			t.Errorf("%q, %q, %q, %v, %v", image, initrd, k.Cmdline, imageErr, initrdErr)
		}
	}
}

// FuzzKernel takes any bytes for a unified kernel image: what it finds lies within them.
func FuzzKernel(f *testing.F) {
	f.Add(unified(f, map[string]string{".cmdline": "quiet", ".linux": "kernel", ".initrd": "initrd"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := unifiedKernel(io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
		if err != nil {
			return
		}
		for _, r := range []*io.SectionReader{k.Image, k.Initrd} {
			if data, err := io.ReadAll(r); err != nil || int64(len(data)) != r.Size() {
				t.Errorf("%d of %d bytes, %v", len(data), r.Size(), err)
			}
		}
		if strings.Contains(k.Cmdline, "\n") {
			t.Errorf("command line %q", k.Cmdline)
		}
	})
}
