package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kogge.example/boards"
	"kogge.example/image/debian"
	"kogge.example/image/disk"
	"kogge.example/image/program"
	"kogge.example/update/bootloader"
	content "kogge.example/update/release"
)

// TestUBootImage builds for a board of another architecture whose slots are files. With
// KOGGE_E2E=all it does so twice, as [TestReproducible] does for the first board.
func TestUBootImage(t *testing.T) {
	_, _, o := build(t)
	var err error
	if o.Board, err = boards.Find("qemu-arm64-uboot"); err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(work, "uboot1.img"), filepath.Join(work, "uboot2.img")
	built, err := Build(t.Context(), o, first)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := disk.Inspect(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(f); err != nil {
		t.Error(err)
	}
	if c.Board != o.Board.Name || c.Version != o.Version || c.Arch != "arm64" || c.Slot != "a" {
		t.Errorf("the image says %+v", c)
	}
	judge(t, "dosfstools", "fsck.fat", "-n", part(t, f, c, "ESP"))
	boot, err := disk.Boot(f, c.Table)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"A/cmdline": []byte("bootargs=" + built.Cmdline + "\n"), bootloader.ScriptFile: bootloader.BootScript(),
		"kogge/node.yaml": o.Config,
	}
	for name, path := range map[string]string{"A/kernel": built.Kernel, "A/initrd": built.Initrd} {
		if want[name], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range want {
		if got, err := boot.ReadFile(name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s has %d bytes that are not those that went in (%v)", name, len(got), err)
		}
	}
	loader, err := bootloader.For(o.Board.Bootloader)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := loader.State(boot); err != nil || !s.A.Proven() || s.B.Present || s.Starts != bootloader.A {
		t.Errorf("the loader is told %+v, %v", s, err)
	}
	// Every program is for that architecture.
	for _, name := range []string{program.Init, program.Agent, program.Shim, program.Runc} {
		e, err := elf.Open(filepath.Join(o.Cache, "programs/arm64/with-", name))
		if err != nil {
			t.Fatal(err)
		}
		if libs, err := e.ImportedLibraries(); e.Machine != elf.EM_AARCH64 || err != nil || len(libs) > 0 {
			t.Errorf("program %s is for %v and wants %v (%v)", name, e.Machine, libs, err)
		}
		e.Close()
	}
	if os.Getenv("KOGGE_E2E") != "all" {
		return
	}
	o.Source = filepath.Join(work, "another place", "for the sources")
	if err := copyTree(filepath.Join(work, "first"), o.Source); err != nil {
		t.Fatal(err)
	}
	o.Cache = filepath.Join(work, "cache3")
	if _, err := Build(t.Context(), o, second); err != nil {
		t.Fatal(err)
	}
	if sum(t, first) != sum(t, second) {
		t.Error("the images differ")
	}
}

// TestBoardFacts builds for a board that has all that real ones need: programs of its own
// in front of a first partition that begins late, and a device tree.
func TestBoardFacts(t *testing.T) {
	_, _, o := build(t)
	var err error
	if o.Board, err = boards.Find("qemu-arm64-uboot"); err != nil {
		t.Fatal(err)
	}
	// Any file of the board's packages will do for a loader.
	const program, offset = "usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt", 64 * boards.Sector
	o.Board.Firmware = []boards.Blob{{Package: "ca-certificates", File: program, Offset: offset, Max: boards.MiB}}
	o.Board.FirstPartition = 16 * boards.MiB
	o.Board.DTB = "rockchip/rk3328-rock64.dtb"
	name := filepath.Join(work, "facts.img")
	if _, err := Build(t.Context(), o, name); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := disk.Inspect(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(f); err != nil {
		t.Error(err)
	}
	if at := c.Table.Partitions[0].Offset(); at != o.Board.FirstPartition {
		t.Errorf("the first partition begins at byte %d", at)
	}
	lock, err := debian.LoadLock(o.Board.Name)
	if err != nil {
		t.Fatal(err)
	}
	files, err := o.Packages.Fetch(t.Context(), lock)
	if err != nil {
		t.Fatal(err)
	}
	want, err := readPackageFile(files, program)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, offset); err != nil || !bytes.Equal(got, want) || len(want) == 0 {
		t.Errorf("the program is not at byte %d (%v)", offset, err)
	}
	boot, err := disk.Boot(f, c.Table)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := boot.ReadFile("A/dtb")
	if err != nil || len(tree) < 1000 || binary.BigEndian.Uint32(tree) != 0xd00dfeed || !bytes.Contains(tree, []byte("pine64,rock64")) {
		t.Errorf("the slot's device tree has %d bytes (%v)", len(tree), err)
	}
	// A release for the board has it as well.
	parts, err := Parts(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(parts.Parts, func(f content.File) bool { return f.Name == "dtb" }); i < 0 || parts.Parts[i].Size != int64(len(tree)) {
		t.Errorf("parts of the release: %+v", parts.Parts)
	}
}
