package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
	"kogge.example/update/gpt"
)

// growthDisk is the size in MiB of the disk that the image lands on: a little
// larger than the image, so that STATE grows and every e2fsck is quick.
const growthDisk = 2560

// growthLimit is for the whole of a boot.
const growthLimit = 5 * time.Minute

// TestGrowth cuts the power at each write of a first boot, from the power-on to a
// STATE that fills the disk. Whatever is left has to have a partition table and a
// STATE that preening repairs; the first one with a torn superblock and, in the
// long form, a few more have to boot and serve. With
// KOGGE_E2E=all it takes every prefix of the writes, else a few dozen.
func TestGrowth(t *testing.T) {
	whole(t)
	t.Parallel()
	boots, err := images()
	if err != nil {
		t.Fatal(err)
	}
	entries := recordGrowth(t, boots.base)
	checks, lives, seeds := 30, 0, uint64(3)
	if os.Getenv("KOGGE_E2E") == "all" {
		checks, lives, seeds = len(entries), 8, 12
	}
	t.Logf("%d changes from power-on to the grown STATE", len(entries))
	disk, base, err := nbd.OpenDisk(boots.base, growthDisk<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	checkEvery, bootEvery := max(1, len(entries)/checks), max(1, len(entries)/(lives+1))
	mended := false
	for i, e := range entries {
		if err := apply(disk, e); err != nil {
			t.Fatal(err)
		}
		for seed := range seeds {
			st := disk.AfterCut(seed)
			if _, err := gpt.Read(st, st.Size()); err != nil {
				t.Errorf("cut after change %d, seed %d: %v", i, seed, err)
			}
			if i%checkEvery != 0 {
				continue
			}
			torn, err := checkState(t.Context(), st, st.Size(), t.TempDir())
			if err != nil {
				t.Errorf("cut after change %d, seed %d: %v", i, seed, err)
			}
			if torn && !mended { // the node itself has to mend one
				mended = true
				t.Logf("cut after change %d, seed %d, tore the superblock", i, seed)
				if err := serves(t, st); err != nil {
					t.Errorf("cut after change %d, seed %d, a torn superblock: %v", i, seed, err)
				}
			}
		}
		if lives > 0 && i%bootEvery == bootEvery-1 && i/bootEvery < lives {
			seed := uint64(i/bootEvery+2) % 3
			if err := serves(t, disk.AfterCut(seed)); err != nil {
				t.Errorf("cut after change %d, seed %d: %v", i, seed, err)
			}
		}
	}
}

// apply repeats one recorded change.
func apply(d *nbd.Disk, e nbd.Entry) error {
	switch e.Op {
	case nbd.OpWrite:
		return d.Write(e.Data, e.Offset, e.FUA)
	case nbd.OpTrim:
		return d.Trim(e.Offset, e.Length, e.FUA)
	}
	return d.Flush()
}

// recordGrowth boots an image for the first time and returns what it wrote until
// STATE had grown and all was synced.
func recordGrowth(t *testing.T, image string) []nbd.Entry {
	disk, base, err := nbd.OpenDisk(image, growthDisk<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	var log bytes.Buffer
	l, err := nbd.NewLog(&log, disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	disk.Record(l)
	err = withVM(t, disk, func(ctx context.Context, n *node) error {
		// STATE fills the disk: 512 MiB or so instead of 256.
		if _, err := n.askUntil(ctx, `^total [45]\d\d MiB`, command{Op: "statfs", Args: []string{"/state"}}); err != nil {
			return err
		}
		_, err := n.ask(ctx, command{Op: "sync"})
		return err
	})
	if err = errors.Join(err, l.Flush()); err != nil {
		t.Fatal(err)
	}
	r, err := nbd.ReadLog(&log)
	if err != nil {
		t.Fatal(err)
	}
	var entries []nbd.Entry
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
}

// serves boots what a cut left and waits for the container.
func serves(t *testing.T, st *nbd.State) error {
	disk, err := nbd.NewDisk(st, st.Size())
	if err != nil {
		return err
	}
	return withVM(t, disk, func(ctx context.Context, n *node) error {
		return n.http(ctx, "8080", "/", "Hello from")
	})
}

// withVM runs do with a VM on disk, and kills the VM.
func withVM(t *testing.T, disk *nbd.Disk, do func(context.Context, *node) error) error {
	dir, err := os.MkdirTemp("", "kogge-e2e-") // short: it holds sockets
	if err != nil {
		return err
	}
	board, err := boards.Find("qemu-x86_64")
	if err != nil {
		return err
	}
	n := &node{dir: filepath.Join(dir, "n1"), sock: filepath.Join(dir, "n1.nbd"), disk: disk, test: true}
	defer n.end()
	n.machine = qemu.Machine{
		Name: "n1", Offline: true, Forwards: []qemu.Forward{{Guest: 8080}},
		Disks: []qemu.Disk{{NBD: n.sock}}, Extra: testPort(board.Arch),
	}
	if err := addFirmware(&n.machine, board); err != nil {
		return err
	}
	if err := n.serve(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), growthLimit, fmt.Errorf("nothing within %s", growthLimit))
	defer cancel()
	if n.vm, err = qemu.Start(ctx, n.machine, n.dir); err != nil {
		return err
	}
	if err := do(ctx, n); err != nil {
		return fmt.Errorf("%w; console log %s", err, filepath.Join(n.dir, "console.log"))
	}
	defer os.RemoveAll(dir)
	return n.vm.Kill()
}
