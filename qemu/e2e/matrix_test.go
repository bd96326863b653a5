package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/image/example"
	"kogge.example/qemu"
	"kogge.example/qemu/nbd"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// cellLimit is for all boots of one cell: three that are given up when the time of their
// assessment is over, and one more.
const cellLimit = 30 * time.Minute

// TestMatrix breaks the release of slot B in every way and sees in which slot the node
// ends, and after how many boots. The tables in testdata/matrix say what is expected and
// why. KOGGE_E2E=all runs all cells; every other go test has one of each fault, see [once].
func TestMatrix(t *testing.T) {
	whole(t)
	t.Parallel()
	all, err := allCells()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("KOGGE_E2E") != "all" {
		all = once(all, loaderOf)
	}
	for _, board := range matrixBoards {
		its := slices.DeleteFunc(slices.Clone(all), func(c cell) bool { return c.board != board })
		if len(its) > 0 {
			t.Run(board, func(t *testing.T) {
				t.Parallel()
				matrix(t, board, its)
			})
		}
	}
}

// twoCells has two cells run at a time, whatever boards they are of.
var twoCells = make(chan struct{}, 2)

// matrix runs cells of a board and prints the table as it is.
func matrix(t *testing.T, board string, all []cell) {
	p, err := pairs(board)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards table
	table := map[string]string{}
	t.Cleanup(func() {
		var b strings.Builder
		for _, c := range all {
			fmt.Fprintf(&b, "%-18s %-7s %s\n", c.fault, c.how, table[c.String()])
		}
		t.Logf("%s: slot A release 1.0 is sound, slot B release 1.1 is not\n%s", board, b.String())
	})
	for _, c := range all {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			twoCells <- struct{}{}
			defer func() { <-twoCells }()
			disk := p.disk(t)
			if err := p.prepare(disk, c); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			slot, boots, crashes, err := p.outcome(t, disk, c)
			mu.Lock()
			table[c.String()] = fmt.Sprintf("%-2s %d boots %4.0f s  %s", slot, boots, time.Since(began).Seconds(), c.why)
			mu.Unlock()
			if err != nil {
				t.Fatalf("after %d boots, want slot %s after %d: %v", boots, c.slot, c.boots, err)
			}
			// A boot that the emulator lost has used up a try, or come on top. If it was the
			// only try of slot A, three more bad boots of slot B lead to the next.
			most := c.boots + crashes
			if c.how == "proven" {
				most += 3 * crashes
			}
			if slot != c.slot || boots < c.boots || boots > most {
				t.Errorf("slot %s after %d boots (%d of them lost by the emulator), want slot %s after %d: %s", slot, boots, crashes, c.slot, c.boots, c.why)
			}
		})
	}
}

// decided is the last line of a cell: a good boot, or a bad one of slot A, which was proven
// before and has nothing to go back to.
var decided = regexp.MustCompile(`kogge: boot assessment: (?:good, slot ([AB])|bad, slot (A)),`)

// upInA is what PID 1 of slot A says first.
var upInA = regexp.MustCompile(`kogge: slot (A), release 1\.0`)

// soonBad ends the boot assessment of a release that never gets good. The slot that the
// node ends in is not waited for until it is.
const soonBad = "assess: {for: 3s, timeout: 30s}\n"

// outcome starts the machine and waits until it is decided what becomes of it. crashes are the boots
// that the emulator lost. A disk that never gets there leaves its console log.
func (p *pair) outcome(t *testing.T, disk *nbd.Disk, c cell) (slot string, boots, crashes int, err error) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), cellLimit, fmt.Errorf("nothing within %s", cellLimit))
	defer cancel()
	end, seed := decided, ""
	if c.once && c.slot == "A" {
		end, seed = upInA, filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(seed, []byte(example.NodeYAML+soonBad), 0o644); err != nil {
			return "-", 0, 0, err
		}
	}
	n, err := p.bootWith(ctx, disk, p.vars, seed)
	if err != nil {
		return "-", 0, 0, err
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console log %s", filepath.Join(n.dir, "console.log"))
			return
		}
		os.RemoveAll(filepath.Dir(n.dir))
	})
	defer n.end()
	line, err := n.vm.Console().WaitLine(ctx, end)
	boots, crashes = 1+resets(n.vm), n.emulatorCrashes()
	if err != nil {
		return "-", boots, crashes, err
	}
	m := end.FindStringSubmatch(line)
	if slot = m[1]; end == upInA {
		return slot, boots, crashes, nil
	}
	if slot == "" {
		return m[2] + "-bad", boots, crashes, nil
	}
	return slot, boots, crashes, n.http(ctx, "8080", "/", "Hello from")
}

// emulatorCrash is what a kernel says that QEMU has emulated badly: a patched instruction
// or a stack that it took for another one, or a timer that did not tick in time because
// the host was busy. None of our faults reads like this.
var emulatorCrash = regexp.MustCompile(`Oops: int3|(?i:double fault)|IO-APIC \+ timer doesn't work`)

// emulatorCrashes counts the boots that were lost by it.
func (n *node) emulatorCrashes() (count int) {
	lines, _ := n.vm.Console().Lines() // what cannot be read was no crash
	for _, line := range lines {
		if emulatorCrash.MatchString(line) {
			count++
		}
	}
	return count
}

// resets counts the resets of a machine so far.
func resets(vm *qemu.VM) int {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what has happened is known at once
	for n := 0; ; n++ {
		if _, err := vm.WaitEvent(ctx, "RESET", n+1); err != nil {
			return n
		}
	}
}

// prepare breaks slot B of a disk and arms it, as a trial or as a slot that was blessed.
func (p *pair) prepare(disk *nbd.Disk, c cell) error {
	loader, err := bootloader.For(p.board.Bootloader)
	if err != nil {
		return err
	}
	if err := errors.Join(p.breakRoot(disk, c.fault), p.breakState(disk, c.fault)); err != nil {
		return err
	}
	return p.edit(disk, func(v *fat.Volume) error {
		var err error
		switch c.fault {
		case "board":
			err = p.replaceInB(v, loader, cmdline.Words{Board: p.board.Name}.String(), cmdline.Words{Board: strings.Repeat("x", len(p.board.Name))}.String())
		default:
			err = p.breakB(v, loader, c.fault)
		}
		tries := bootloader.Tries
		if c.once && c.slot == "A" { // a sound release has a try left for a boot that the emulator loses
			tries = 1
		}
		if err == nil {
			err = loader.Arm(v, bootloader.B, "1.1", tries, written)
		}
		if err == nil && c.how == "proven" {
			err = loader.Bless(v, bootloader.B, written)
			if err == nil && c.once {
				err = v.WriteFile(memory.CountFile, memory.Count{Slot: "B", Bad: bootloader.Tries - 1}.Text(), written)
			}
		}
		if err != nil {
			return err
		}
		return breakFiles(v, loader, c.fault)
	})
}

// breakFiles damages what the firmware and the loader read.
func breakFiles(v *fat.Volume, loader bootloader.Loader, fault string) error {
	entries := func(prefix string) error {
		files, err := v.ReadDir("loader/entries")
		if err != nil {
			return err
		}
		found := false
		for _, f := range files {
			if strings.HasPrefix(f.Name, prefix) {
				found, err = true, errors.Join(err, v.Remove("loader/entries/"+f.Name))
			}
		}
		if !found {
			return fmt.Errorf("no entry %s", prefix)
		}
		return err
	}
	switch fault {
	case "entry-lost":
		return entries("kogge-b")
	case "both-entries-lost":
		return entries("kogge-")
	case "loader-lost":
		files, err := v.ReadDir("EFI/BOOT")
		for _, f := range files {
			err = errors.Join(err, v.Remove("EFI/BOOT/"+f.Name))
		}
		return err
	case "env-empty":
		return v.WriteFile("kogge.env", make([]byte, 512), written)
	case "env-lost":
		return v.Remove("kogge.env")
	case "kernel-lost":
		path, err := loader.Path(bootloader.B, loader.BootFiles()[0])
		return errors.Join(err, v.Remove(path))
	case "kernel-truncated":
		name := loader.BootFiles()[0]
		path, err := loader.Path(bootloader.B, name)
		if err != nil {
			return err
		}
		r, err := loader.Open(v, bootloader.B, name)
		if err != nil {
			return err
		}
		data := make([]byte, r.Size()*2/3)
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
		return v.WriteFile(path, data, written)
	}
	return nil
}

// breakState destroys every superblock of STATE.
func (p *pair) breakState(disk *nbd.Disk, fault string) error {
	if fault != "state-corrupt" {
		return nil
	}
	state, err := p.table.Find("STATE")
	if err != nil {
		return err
	}
	const group = 32768 * 4096 // bytes: each may begin with a copy
	for at := int64(0); at < state.Size(); at += group {
		if err := disk.Write(junk(), state.Offset()+at, true); err != nil {
			return err
		}
	}
	return nil
}

// junk is a block that nothing takes for its own.
func junk() []byte { return bytes.Repeat([]byte{0x5a}, verity.BlockSize) }

// breakRoot damages the root file system of slot B.
func (p *pair) breakRoot(disk *nbd.Disk, fault string) error {
	root, err := p.table.Find("ROOT-B")
	if err != nil {
		return err
	}
	at := root.Offset()
	switch fault {
	case "root-data": // the block with the superblock
	case "root-tree":
		f, err := os.Open(p.second)
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := p.release(f)
		if err != nil {
			return err
		}
		at += int64(r.Verity.Blocks) * verity.BlockSize // the tree's top comes first
	default:
		return nil
	}
	return disk.Write(junk(), at, true)
}
