package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kogge.example/boards"
)

// TestBuildRefuses asks for what cannot be built.
func TestBuildRefuses(t *testing.T) {
	_, _, o := build(t)
	archive := filepath.Join(t.TempDir(), "web.tar")
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		change func(*Options)
		out    string
		want   string
	}{
		"missing output folder": {func(*Options) {}, "missing/kogge.img", "output: "},
		"slot too small":        {func(o *Options) { o.SlotSize = 8 << 20 }, "kogge.img", "choose a larger --slot-size"},
		"missing preload":       {func(o *Options) { o.Preload = []string{"/no/such.tar"} }, "kogge.img", "preload: open /no/such.tar"},
		"equal preloads":        {func(o *Options) { o.Preload = []string{archive, archive} }, "kogge.img", "two files of this name"},
		"preload by its name":   {func(o *Options) { o.Preload = []string{o.Source + "/go.mod"} }, "kogge.img", "preload go.mod: a node takes no archive by this name"},
		"board without lock":    {func(o *Options) { o.Board.Name = "toaster" }, "kogge.img", "kogge image lock toaster"},
		"unknown boot loader":   {func(o *Options) { o.Board.Bootloader = "third" }, "kogge.img", `board qemu-x86_64: boot loader "third" is unknown`},
		"MBR":                   {func(o *Options) { o.Board.Table = boards.MBR }, "kogge.img", `board qemu-x86_64: partition table "mbr": images have a plain GPT so far`},
		"hybrid MBR":            {func(o *Options) { o.Board.Table = boards.Hybrid }, "kogge.img", `partition table "hybrid": images have a plain GPT so far`},
		"unknown table":         {func(o *Options) { o.Board.Table = "disklabel" }, "kogge.img", `partition table "disklabel" is unknown`},
		"no device tree":        {func(o *Options) { o.Board.DTB = "acme/toaster.dtb" }, "kogge.img", "board qemu-x86_64: device tree: none of the board's packages contains the file usr/lib/linux-image-"},
		"firmware not locked": {func(o *Options) {
			o.Board.Firmware = []boards.Blob{{Package: "u-boot-rockchip", File: "x", Offset: 64 * boards.Sector}}
		}, "kogge.img", "package u-boot-rockchip is not in the board's lock: kogge image lock qemu-x86_64"},
		"firmware not there": {func(o *Options) {
			o.Board.Firmware = []boards.Blob{{Package: "ca-certificates", File: "x", Offset: 64 * boards.Sector}}
		}, "kogge.img", "board qemu-x86_64: firmware: none of the board's packages contains the file x"},
		"first partition": {func(o *Options) { o.Board.FirstPartition = 1000 }, "kogge.img", "the first partition cannot begin at byte 1000"},
		"required module": {func(o *Options) { o.Board.Required = []string{"warp_regulator"} }, "kogge.img", "no module warp_regulator"},
		"missing module":  {func(o *Options) { o.Board.Drivers = []string{"warp_drive"} }, "kogge.img", "no module warp_drive"},
	} {
		t.Run(what, func(t *testing.T) {
			o := o
			c.change(&o)
			dir := t.TempDir()
			_, err := Build(t.Context(), o, filepath.Join(dir, c.out))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
