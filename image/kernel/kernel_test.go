package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kogge.example/image/debian"
)

// koFile is a kernel module as far as this package looks: an ELF file whose only
// section of interest is .modinfo.
func koFile(info ...string) []byte {
	data := []byte(strings.Join(info, "\x00") + "\x00")
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header, section = 64, 64
	at := header
	body := append(append([]byte{}, data...), names...)
	table := at + len(body)
	var b bytes.Buffer
	le := binary.LittleEndian
	b.Write([]byte(elf.ELFMAG))
	b.Write([]byte{2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, v := range []any{uint16(elf.ET_REL), uint16(elf.EM_X86_64), uint32(1), uint64(0), uint64(0), uint64(table), uint32(0),
		uint16(header), uint16(0), uint16(0), uint16(section), uint16(3), uint16(2)} {
		_ = binary.Write(&b, le, v)
	}
	b.Write(body)
	write := func(name, kind uint32, offset, size int) {
		for _, v := range []any{name, kind, uint64(0), uint64(0), uint64(offset), uint64(size), uint32(0), uint32(0), uint64(1), uint64(0)} {
			_ = binary.Write(&b, le, v)
		}
	}
	write(0, 0, 0, 0)
	write(1, uint32(elf.SHT_PROGBITS), at, len(data))
	write(10, uint32(elf.SHT_STRTAB), at+len(data), len(names))
	return b.Bytes()
}

func TestParseModule(t *testing.T) {
	var m Module
	err := m.parse(koFile("license=GPL", "depends=a-b,,c", "softdep=pre: x y post: z", "softdep=pre: w", "alias=pci:v*", "alias=b", "firmware=f.bin", "noequals", "=", ""))
	if err != nil {
		t.Fatal(err)
	}
	want := Module{Depends: []string{"a_b", "c"}, Softdeps: []string{"x", "y", "w"}, Aliases: []string{"pci:v*", "b"}, Firmware: []string{"f.bin"}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string][]string{
		"": nil, "pre:": nil, "pre: a": {"a"}, "post: a": nil, "a b": nil, "post: a pre: b c post: d": {"b", "c"},
	} {
		if diff := cmp.Diff(want, preDependencies(text)); diff != "" {
			t.Errorf("%q:\n%s", text, diff)
		}
	}
}

func FuzzParseModule(f *testing.F) {
	f.Add(koFile("depends=a,b", "alias=x"))
	f.Add(koFile()[:80])
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m Module
		if err := m.parse(data); err == nil && slices.Contains(m.Depends, "") {
			t.Error("an empty dependency")
		}
	})
}

// fakeKernel is a kernel package with these modules: path below the modules' folder → .modinfo.
func fakeKernel(t *testing.T, modules map[string][]string, builtin, builtinInfo string) *Kernel {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("boot/vmlinuz-6.1-test", []byte("kernel"))
	put("usr/lib/modules/6.1-test/modules.builtin", []byte(builtin))
	put("usr/lib/modules/6.1-test/modules.builtin.modinfo", []byte(builtinInfo))
	for path, info := range modules {
		put("usr/lib/modules/6.1-test/"+path, koFile(info...))
	}
	k, err := Open([]debian.File{{Dir: t.TempDir()}, {Dir: dir}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func names(modules []Module) []string {
	var all []string
	for _, m := range modules {
		all = append(all, m.Name)
	}
	return all
}

func TestSelect(t *testing.T) {
	k := fakeKernel(t, map[string][]string{
		"kernel/fs/top.ko":            {"depends=mid-dle,base", "softdep=pre: crc-fast gone"},
		"kernel/fs/mid-dle.ko":        {"depends=base"},
		"kernel/lib/base.ko":          {"depends="},
		"kernel/lib/crc-fast.ko":      {},
		"kernel/drivers/net/a/one.ko": {"depends=base"},
		"kernel/drivers/net/b/two.ko": {},
		"kernel/bad.ko":               {"depends=nowhere"},
		"kernel/needs-built-in.ko":    {"depends=ext4"},
		"kernel/loop1.ko":             {"depends=loop2"},
		"kernel/loop2.ko":             {"depends=loop1"},
	}, "kernel/fs/ext4/ext4.ko\n", "ext4.alias=fs-ext4\x00ext4.license=GPL\x00torn")
	for _, c := range []struct {
		words, without []string
		want           string
		err            string
	}{
		{[]string{"top"}, nil, "[crc_fast base mid_dle top]", ""},
		{[]string{"mid_dle", "top"}, nil, "[base mid_dle crc_fast top]", ""},
		{[]string{"ext4", "fs-ext4", "needs-built-in"}, nil, "[needs_built_in]", ""},
		{[]string{"kernel/drivers/net/"}, nil, "[base one two]", ""},
		{[]string{"kernel/drivers/net/"}, []string{"kernel/drivers/net/a/"}, "[two]", ""},
		{[]string{"kernel/drivers/net/"}, []string{"two"}, "[base one]", ""},
		{[]string{"kernel/lib/", "top"}, []string{"base"}, "[crc_fast base mid_dle top]", ""}, // needed all the same
		{[]string{"loop1"}, nil, "[loop2 loop1]", ""},
		{[]string{"nothere"}, nil, "", "has no module nothere"},
		{[]string{"bad"}, nil, "", "has no module nowhere"},
		{[]string{"kernel/nofolder/"}, nil, "", "has no modules"},
	} {
		got, err := k.Select(c.words, c.without)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v: error %v, want %q", c.words, err, c.err)
			}
			continue
		}
		if text := fmt.Sprint(names(got)); err != nil || text != c.want {
			t.Errorf("%v without %v: %s, %v; want %s", c.words, c.without, text, err, c.want)
		}
	}
}

func TestOpenWithoutKernel(t *testing.T) {
	if _, err := Open([]debian.File{{Dir: t.TempDir()}}, t.TempDir()); err == nil {
		t.Error("a kernel out of nothing")
	}
}

// TestDepmodOrder makes modules at random and loads each as stage 0 and PID 1 do,
// from the end of its line: every module must find what it needs.
func TestDepmodOrder(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		count := 2 + random.IntN(12)
		modules := make([]Module, count)
		for i := range modules {
			modules[i] = Module{Name: fmt.Sprintf("m%d", i), Path: fmt.Sprintf("kernel/m%d.ko", i)}
			for j := range i {
				if random.IntN(3) == 0 {
					modules[i].Depends = append(modules[i].Depends, fmt.Sprintf("m%d", j))
				}
			}
			random.Shuffle(len(modules[i].Depends), func(a, b int) {
				modules[i].Depends[a], modules[i].Depends[b] = modules[i].Depends[b], modules[i].Depends[a]
			})
		}
		needs := map[string][]string{}
		for _, m := range modules {
			for _, d := range m.Depends {
				needs[m.Path] = append(needs[m.Path], "kernel/"+d+".ko")
			}
		}
		for line := range strings.Lines(string(Depmod(modules).Dep)) {
			path, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			load := append([]string{path}, strings.Fields(rest)...)
			loaded := map[string]bool{}
			for i := len(load) - 1; i >= 0; i-- {
				for _, n := range needs[load[i]] {
					if !loaded[n] {
						t.Fatalf("seed %d: %s loads %s before %s, which it needs", seed, line, load[i], n)
					}
				}
				if loaded[load[i]] {
					t.Fatalf("seed %d: %s loads %s twice", seed, line, load[i])
				}
				loaded[load[i]] = true
			}
		}
	}
}

// signature is what a kernel's build appends to a module, with these bytes of names and
// key in front of the lengths.
func signature(signer, key, sig int) []byte {
	b := bytes.Repeat([]byte{0xaa}, signer+key+sig)
	b = append(b, 0, 0, 2, byte(signer), byte(key), 0, 0, 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(sig)), signed...)
}

func TestWithoutSignature(t *testing.T) {
	module := koFile("license=GPL")
	for name, data := range map[string][]byte{
		"unsigned": module, "PKCS#7": append(slices.Clone(module), signature(0, 0, 300)...), "with names": append(slices.Clone(module), signature(7, 20, 300)...),
	} {
		if got, err := withoutSignature(data); err != nil || !bytes.Equal(got, module) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(module), err)
		}
	}
	for name, data := range map[string][]byte{
		"nothing else": []byte(signed), "cut short": append([]byte("abc"), signed...), "longer than the file": signature(0, 0, 300)[1:],
	} {
		if _, err := withoutSignature(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestUnpackWithoutSignature is the whole way from the package to the file that an image
// takes.
func TestUnpackWithoutSignature(t *testing.T) {
	k := fakeKernel(t, map[string][]string{"kernel/a.ko": {"depends="}}, "", "")
	path := filepath.Join(k.modules, k.paths["a"])
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(signature(0, 0, 256)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	all, err := k.Select([]string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := koFile("depends=")
	if got, err := os.ReadFile(all[0].File); err != nil || !bytes.Equal(got, want) || all[0].Size != int64(len(want)) {
		t.Errorf("%d bytes, size %d, want %d (%v)", len(got), all[0].Size, len(want), err)
	}
}

func TestDepmod(t *testing.T) {
	got := Depmod([]Module{
		{Name: "b", Path: "kernel/b.ko", Depends: []string{"a", "builtin"}, Aliases: []string{"pci:v1*", "fs-b"}, Softdeps: []string{"x", "y"}},
		{Name: "a", Path: "kernel/a.ko"},
	})
	want := Index{
		Dep:     []byte("kernel/a.ko:\nkernel/b.ko: kernel/a.ko\n"),
		Alias:   []byte("alias pci:v1* b\nalias fs-b b\n"),
		Softdep: []byte("softdep b pre: x y\n"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
