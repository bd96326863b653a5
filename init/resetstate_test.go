package main

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/init/control"
	"kogge.example/init/mount"
	"kogge.example/update/blank"
	"kogge.example/update/bootloader"
	"kogge.example/update/bootpart"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
)

// TestBlankFor: STATE is made anew with quotas only where the other slot is empty, or has the
// release that was known, when the wish was made, to mount such a STATE.
func TestBlankFor(t *testing.T) {
	const verity = "abababababababababababababababababababababababababababababababab:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd:7"
	for board, kind := range map[string]boards.Bootloader{"qemu-x86_64": boards.SystemdBoot, "qemu-arm64-uboot": boards.UBoot} {
		loader, err := bootloader.For(kind)
		if err != nil {
			t.Fatal(err)
		}
		fresh := func() (*node, bootpart.Partition) {
			disk, part := freshDisk(t, loader)
			return &node{boot: control.Boot{Slot: "A", Board: board}, disk: disk}, part
		}
		// remember notes the release that an update has put into slot B, and what it reads.
		remember := func(n *node, version string, highest int) {
			n.trial.Memory = t.TempDir()
			err := memory.WriteStaged(memory.In(n.trial.Memory), map[bootloader.Slot]*memory.Staged{
				"B": {Release: version, Digest: "sha256:11", Verity: verity, Schema: memory.Schema{Reads: [2]int{1, highest}, Writes: 1}, Whole: true},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		is := func(what string, n *node, beside, want string) {
			t.Helper()
			if got := n.blankFor(beside); got != want {
				t.Errorf("%s: %s: %s, want %s", kind, what, got, want)
			}
		}
		n, part := fresh()
		is("an image", n, "", blank.File)
		installB(t, loader, part)
		is("nobody knows the release in slot B", n, "", blank.PlainFile)
		if w := n.beside(); w.Beside != "" || w.Slots != nil {
			t.Errorf("%s: a node that remembers nothing knows %+v", kind, w)
		}
		for _, c := range []struct {
			version string
			highest int
			want    string
			ledger  bool
		}{{"1.1", 1, "", false}, {"1.1", 2, "1.1", false}, {"1.1", 3, "1.1", true}, {"1.2", 3, "", false}} {
			remember(n, c.version, c.highest)
			if w := n.beside(); w.Beside != c.want || (w.Slots["B"] != nil) != c.ledger || len(w.Slots) > 1 {
				t.Errorf("%s: %s reads up to format %d: %+v", kind, c.version, c.highest, w)
			}
		}
		remember(n, "1.1", 3)
		known := n.beside().Slots
		remembers := func(what string, want bool) {
			t.Helper()
			m := memory.In(t.TempDir())
			err := (&resetting{node: n}).remember(m, known)
			if all, readErr := memory.ReadStaged(m); err != nil || readErr != nil || want != reflect.DeepEqual(all["B"], known["B"]) || want != (len(all) == 1) {
				t.Errorf("%s: %s: remembered as %+v, %v, %v", kind, what, all, err, readErr)
			}
		}
		remembers("still there", true)
		is("it mounts it", n, "1.1", blank.File)
		is("it was another one", n, "1.0", blank.PlainFile)
		n.boot.Slot = "B"
		is("it runs, beside what the image brought", n, "", blank.PlainFile)
		remembers("it runs", false)
		n.boot.Slot = "A"
		if err := part.Edit(func(v *fat.Volume) error {
			return errors.Join(loader.Retire(v, bootloader.B), loader.Bless(v, bootloader.A, time.Now()))
		}); err != nil {
			t.Fatal(err)
		}
		is("retired", n, "", blank.File)
		remembers("retired", false)
		n.disk = mount.Disk{}
		is("no boot partition", n, "1.1", blank.PlainFile)
	}
}
