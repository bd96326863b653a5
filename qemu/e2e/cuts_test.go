package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"kogge.example/qemu/nbd"
	"kogge.example/update/bootloader"
	"kogge.example/update/cmdline"
	"kogge.example/update/fat"
	"kogge.example/update/gpt"
	"kogge.example/update/verity"
)

// TestUpdateCuts records every write of one whole update and looks at what the disk
// holds after each of them, after a part of it that ends between two sectors, and with
// what was not flushed lost: each time the boot loader has to have a slot whose release
// is whole. The model of firmware, loader and stage 0 judges all of them.
//
// With KOGGE_E2E=all it does so for systemd-boot and for U-Boot, the machine itself makes
// the last part of the update, from the counted boot to the blessing, and real firmware
// boots at least the first, the last and one more of the states that it can tell apart.
// With KOGGE_CUTS=every as well it boots every prefix, which takes an hour or two: as far
// as PID 1, and into the slot that the model has named.
func TestUpdateCuts(t *testing.T) {
	whole(t)
	t.Parallel()
	all := os.Getenv("KOGGE_E2E") == "all"
	get, names := releases, []string{"qemu-x86_64"}
	if all {
		get, names = pairs, append(names, "qemu-arm64-uboot")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, err := get(name)
			if err != nil {
				t.Fatal(err)
			}
			p.cuts(t, all)
		})
	}
}

// cuts is TestUpdateCuts for one board.
func (p *pair) cuts(t *testing.T, all bool) {
	entries := p.recordUpdate(t, all)
	disk, err := nbd.NewDisk(p.bare, p.bare.Size())
	if err != nil {
		t.Fatal(err)
	}
	m, err := newModel(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.judge(grid{disk}); err != nil {
		t.Fatalf("before the update: %v", err)
	}
	classes := map[string]*class{}
	var order []string
	starts := make([]bootloader.Slot, len(entries)) // after each change
	prefixes, torn, lost := 0, 0, 0
	began := time.Now()
	for i, e := range entries {
		if e.Op == nbd.OpWrite {
			for _, n := range m.tears(e) {
				torn++
				if _, err := m.judge(tornView{grid{disk}, e.Offset, e.Data[:n*nbd.SectorSize]}); err != nil {
					t.Errorf("cut in write %d, after %d of %d sectors at %d: %v", i, n, len(e.Data)/nbd.SectorSize, e.Offset, err)
				}
			}
		}
		if err := apply(disk, e); err != nil {
			t.Fatal(err)
		}
		prefixes++
		starts[i] = m.started
		if !m.touched(e) {
			if len(order) > 0 {
				classes[order[len(order)-1]].last = i
			}
			continue
		}
		key, err := m.judge(grid{disk})
		starts[i] = m.started
		if err != nil {
			t.Errorf("cut after change %d of %d: %v", i, len(entries), err)
			continue
		}
		if classes[key] == nil {
			classes[key] = &class{first: i}
			order = append(order, key)
		}
		classes[key].last = i
		if !m.relevant(e) {
			continue
		}
		for _, seed := range []uint64{0, 2, 3, 4} {
			lost++
			if _, err := m.judge(disk.AfterCut(seed)); err != nil {
				t.Errorf("cut after change %d of %d, seed %d: %v", i, len(entries), seed, err)
			}
		}
	}
	t.Logf("%d prefixes, %d torn writes, %d with writes lost: %d states that firmware and stage 0 can tell apart, in %.0f s",
		prefixes, torn, lost, len(classes), time.Since(began).Seconds())
	for _, key := range order {
		t.Logf("changes %d to %d: %s", classes[key].first, classes[key].last, strings.SplitN(key, "\n", 2)[0])
	}
	if all && !t.Failed() {
		p.bootClasses(t, entries, classes, order)
	}
	if all && !t.Failed() && os.Getenv("KOGGE_CUTS") == "every" {
		p.bootEvery(t, entries, starts)
	}
}

// cameUp is what PID 1 says first.
var cameUp = regexp.MustCompile(`kogge: slot ([AB]), release `)

// bootEvery boots the disk after each write with real firmware, two at a time, until PID 1
// runs: from the slot that the model expects.
func (p *pair) bootEvery(t *testing.T, entries []nbd.Entry, starts []bootloader.Slot) {
	disk, err := nbd.NewDisk(p.bare, p.bare.Size())
	if err != nil {
		t.Fatal(err)
	}
	var booting sync.WaitGroup
	two := make(chan struct{}, 2)
	booted, began := 0, time.Now()
	for i, e := range entries {
		if err := apply(disk, e); err != nil {
			t.Fatal(err)
		}
		if e.Op == nbd.OpFlush {
			continue // the bytes are those of the prefix before
		}
		booted++
		two <- struct{}{}
		st := disk.AfterCut(1)
		booting.Go(func() {
			defer func() { <-two }()
			slot, log, err := p.comesUp(t.Context(), st)
			if err != nil || slot != starts[i] {
				t.Errorf("cut after change %d of %d: slot %q comes up, want %s: %v: console log %s", i, len(entries), slot, starts[i], err, log)
			}
		})
	}
	booting.Wait()
	t.Logf("%d prefixes booted, %d of %d changes are flushes, in %.0f s", booted, len(entries)-booted, len(entries), time.Since(began).Seconds())
}

// comesUp boots a disk as far as PID 1. log is its console log, if there was an error.
func (p *pair) comesUp(ctx context.Context, st *nbd.State) (slot bootloader.Slot, log string, err error) {
	disk, err := nbd.NewDisk(st, st.Size())
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("nothing within ten minutes"))
	defer cancel()
	n, err := p.boot(ctx, disk, p.vars)
	if err != nil {
		return "", "", err
	}
	line, err := n.vm.Console().WaitLine(ctx, cameUp)
	n.end()
	if err != nil {
		return "", filepath.Join(n.dir, "console.log"), err
	}
	return bootloader.Slot(cameUp.FindStringSubmatch(line)[1]), "", os.RemoveAll(filepath.Dir(n.dir))
}

// class is a run of prefixes that firmware, loader and stage 0 cannot tell apart.
type class struct{ first, last int }

// bootClasses boots members of each class with real firmware: the first, the last and
// one between them.
func (p *pair) bootClasses(t *testing.T, entries []nbd.Entry, classes map[string]*class, order []string) {
	at := map[int]bool{}
	for _, key := range order {
		c := classes[key]
		at[c.first], at[c.last], at[c.first+(c.last-c.first)*7/16] = true, true, true
	}
	disk, err := nbd.NewDisk(p.bare, p.bare.Size())
	if err != nil {
		t.Fatal(err)
	}
	two := make(chan struct{}, 2)
	t.Logf("%d of %d prefixes boot", len(at), len(entries))
	for i, e := range entries {
		if err := apply(disk, e); err != nil {
			t.Fatal(err)
		}
		if !at[i] {
			continue
		}
		st := disk.AfterCut(1)
		t.Run(fmt.Sprintf("cut after %d", i), func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			again, err := nbd.NewDisk(st, st.Size())
			if err != nil {
				t.Fatal(err)
			}
			slot, boots, crashes, err := p.outcome(t, again, cell{})
			if err != nil || boots > 4+crashes {
				t.Errorf("slot %s after %d boots: %v", slot, boots, err)
			}
		})
	}
}

// recordUpdate puts release 1.1 into slot B of a node that has never had one, and
// returns all that was written. With real, the machine boots it and blesses it.
func (p *pair) recordUpdate(t *testing.T, real bool) (entries []nbd.Entry) {
	disk, err := nbd.NewDisk(p.bare, p.bare.Size())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	l, err := nbd.NewLog(&log, disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	disk.Record(l)
	if err := p.stage(disk, p.second, true); err != nil {
		t.Fatal(err)
	}
	if real {
		slot, boots, crashes, err := p.outcome(t, disk, cell{})
		if err != nil || slot != "B" || boots > 1+crashes {
			t.Fatalf("the update itself: slot %s after %d boots: %v", slot, boots, err)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	r, err := nbd.ReadLog(&log)
	if err != nil {
		t.Fatal(err)
	}
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

// model says what firmware, boot loader and stage 0 make of the bytes of a disk.
type model struct {
	size   int64
	loader bootloader.Loader
	esp    gpt.Partition
	roots  map[bootloader.Slot]gpt.Partition
	seed   maphash.Seed
	// whole remembers which root file systems were found whole, until something is
	// written to their partition.
	whole   map[string]error
	started bootloader.Slot // by the last judgement
}

func newModel(p *pair) (*model, error) {
	m := &model{size: p.bare.Size(), roots: map[bootloader.Slot]gpt.Partition{}, seed: maphash.MakeSeed(), whole: map[string]error{}, started: bootloader.A}
	var err error
	if m.loader, err = bootloader.For(p.board.Bootloader); err != nil {
		return nil, err
	}
	if m.esp, err = p.table.Find("ESP"); err != nil {
		return nil, err
	}
	for _, s := range []bootloader.Slot{bootloader.A, bootloader.B} {
		if m.roots[s], err = p.table.Find("ROOT-" + string(s)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func within(e nbd.Entry, p gpt.Partition) bool {
	return e.Offset < p.Offset()+p.Size() && e.Offset+e.Length > p.Offset()
}

// touched says whether an entry changes what firmware, loader or stage 0 look at, and
// forgets what is not known any more.
func (m *model) touched(e nbd.Entry) bool {
	if e.Op == nbd.OpFlush {
		return false
	}
	for s, root := range m.roots {
		if within(e, root) {
			clear(m.whole)
			if s == m.started {
				return true
			}
		}
	}
	return within(e, m.esp) || e.Offset < m.esp.Offset() || e.Offset+e.Length > m.size-64<<10
}

// relevant says whether it matters that an entry is lost or comes without those before.
func (m *model) relevant(e nbd.Entry) bool { return within(e, m.esp) && e.Length <= 16<<10 }

// tears are the numbers of sectors after which a write is cut: all of them for what may
// be a directory or a part of the FAT, a few for the content of files.
func (m *model) tears(e nbd.Entry) []int64 {
	sectors := e.Length / nbd.SectorSize
	if !within(e, m.esp) && !within(e, m.roots[m.started]) || sectors < 2 {
		return nil
	}
	if sectors > 16 {
		return []int64{1, sectors / 2, sectors - 1}
	}
	var all []int64
	for n := int64(1); n < sectors; n++ {
		all = append(all, n)
	}
	return all
}

// judge returns what tells a state of the disk from another one, its first line for
// people. An error says why such a node does not come up.
func (m *model) judge(disk io.ReaderAt) (key string, err error) {
	if _, err := gpt.Read(disk, m.size); err != nil {
		return "", err
	}
	v, err := fat.Open(readOnly{disk}, m.esp.Offset(), m.esp.Size())
	if err != nil {
		return "", err
	}
	state, err := m.loader.State(v)
	if err != nil {
		return "", err
	}
	slot, any := state.Next()
	if !any {
		return "", fmt.Errorf("the loader has nothing to start: slot A: %s; slot B: %s", state.A, state.B)
	}
	m.started = slot
	params, err := m.rootHash(v, slot)
	if err != nil {
		return "", fmt.Errorf("slot %s: %w", slot, err)
	}
	if err := m.root(disk, slot, params); err != nil {
		return "", fmt.Errorf("slot %s is started: %w", slot, err)
	}
	var files strings.Builder
	if err := m.list(&files, v, ""); err != nil {
		return "", err
	}
	return fmt.Sprintf("slot %s starts; A: %s; B: %s\n%s", slot, state.A, state.B, files.String()), nil
}

// rootHash is what the kernel command line of a slot names. All parts of its kernel must
// be there.
func (m *model) rootHash(v *fat.Volume, slot bootloader.Slot) (verity.Params, error) {
	k, err := bootloader.KernelOf(m.loader, v, slot)
	if err != nil {
		return verity.Params{}, err
	}
	words, err := cmdline.Parse(k.Cmdline)
	return words.Verity, err
}

// root wants the root file system of a slot whole, as stage 0 finds it by its root hash.
func (m *model) root(disk io.ReaderAt, slot bootloader.Slot, params verity.Params) error {
	key := string(slot) + params.String()
	if err, known := m.whole[key]; known {
		return err
	}
	root := m.roots[slot]
	err := verity.Verify(io.NewSectionReader(disk, root.Offset(), root.Size()), params)
	m.whole[key] = err
	return err
}

// list writes a line for each file that firmware and loader may look at: all but the
// node's own folder.
func (m *model) list(b *strings.Builder, v *fat.Volume, dir string) error {
	entries, err := v.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := strings.TrimPrefix(dir+"/"+e.Name, "/")
		switch {
		case path == "kogge":
		case e.Dir:
			if err := m.list(b, v, path); err != nil {
				return err
			}
		default:
			r, err := v.Reader(path)
			if err != nil {
				return err
			}
			var h maphash.Hash
			h.SetSeed(m.seed)
			if _, err := io.Copy(&h, r); err != nil {
				return err
			}
			fmt.Fprintf(b, "%s %d %x\n", path, e.Size, h.Sum64())
		}
	}
	return nil
}

// tornView is a disk on which a write got as far as data.
type tornView struct {
	disk   io.ReaderAt
	offset int64
	data   []byte
}

func (v tornView) ReadAt(p []byte, off int64) (int, error) {
	n, err := v.disk.ReadAt(p, off)
	if from, to := max(off, v.offset), min(off+int64(n), v.offset+int64(len(v.data))); from < to {
		copy(p[from-off:to-off], v.data[from-v.offset:])
	}
	return n, err
}

// readOnly is the device of a volume that nobody changes.
type readOnly struct{ io.ReaderAt }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, errors.New("a judge writes nothing") }
func (readOnly) Sync() error                        { return errors.New("a judge writes nothing") }

// TestModelSeesDamage has the model call a disk dead whose only entry is gone, whose
// root file system has one wrong byte, and whose kernel is cut off.
func TestModelSeesDamage(t *testing.T) {
	whole(t)
	p, err := releases("qemu-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		damage     func(*nbd.Disk) error
	}{
		{"nothing", "", func(*nbd.Disk) error { return nil }},
		{"entry", "nothing to start", func(d *nbd.Disk) error {
			return p.edit(d, func(v *fat.Volume) error { return v.Remove("loader/entries/kogge-a.conf") })
		}},
		{"kernel", "ends after the file", func(d *nbd.Disk) error {
			return p.edit(d, func(v *fat.Volume) error {
				data, err := v.ReadFile("EFI/kogge/a.efi")
				return errors.Join(err, v.WriteFile("EFI/kogge/a.efi", data[:len(data)/2], written))
			})
		}},
		{"root", "slot A is started", func(d *nbd.Disk) error {
			root, err := p.table.Find("ROOT-A")
			return errors.Join(err, d.Write(make([]byte, nbd.SectorSize), root.Offset()+1<<20, true))
		}},
	} {
		disk, err := nbd.NewDisk(p.bare, p.bare.Size())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.damage(disk); err != nil {
			t.Fatal(err)
		}
		m, err := newModel(p)
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.judge(grid{disk})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s damaged: %v, want %q", c.name, err, c.want)
		}
	}
}
