package part

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/fleet/deed"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/memory"
)

// TestDeeds: a node of a founded fleet notes what it arms, and one of none does not.
func TestDeeds(t *testing.T) {
	f := ledgertest.Founded(t, 3, 1)
	p := adopted(t, f)
	root := document.HashOf([]byte("root"))
	release := memory.Staged{Release: "1.1", Verity: root.String() + ":9"}
	running := control.Boot{Slot: "A", RootHash: document.HashOf(nil).String()}
	p.Arming(bootloader.B, release, "the only voter", false)
	if head, err := p.settle(running, "good"); head.Size != 0 || err != nil {
		t.Errorf("before the founding: %d deeds, %v", head.Size, err)
	}
	if _, err := os.Stat(filepath.Join(p.state, "kogge", "deeds")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	taken, err := p.Ledger()
	must(t, err)
	must(t, taken.Take(1, f.Entries[0]))
	p.Arming(bootloader.B, release, "the permit of owner hanse", false)
	p.Arming(bootloader.B, release, "the permit of owner hanse", true)
	head, err := p.settle(running, "good")
	if head.Size != 2 || head.Root.IsZero() || err != nil {
		t.Errorf("%d deeds, %v", head.Size, err)
	}
	raw, err := p.deeds().Read(1)
	must(t, err)
	d, err := deed.Parse(raw)
	if err != nil || d.Kind != deed.Armed || d.Root != root || d.Release != "1.1" || d.Slot != "B" || d.Height != 1 || d.Boot == "" {
		t.Errorf("%+v, %v", d, err)
	}
	must(t, os.WriteFile(filepath.Join(p.state, "kogge", "deeds", "1"), []byte("x"), 0o600))
	again := New(p.node, p.state, p.run, nil)
	again.Arming(bootloader.B, release, "the permit of owner hanse", false)
	if _, err := again.settle(running, "good"); err == nil {
		t.Error("a damaged log is no news")
	}
}
