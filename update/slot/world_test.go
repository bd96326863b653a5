package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"kogge.example/boards"
	"kogge.example/update/armings"
	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/durable"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

var when = time.Date(2026, 11, 28, 21, 0, 0, 0, time.UTC)

// A disk of the tests: the boot partition, ROOT-A, ROOT-B.
const (
	bootSize = 72 << 10
	rootSize = 48 << 10
	diskSize = bootSize + 2*rootSize

	board = "test-board"
)

// quick cuts a small root into several writes.
var quick = pace{chunk: 12 << 10, sync: 24 << 10}

func rootAt(slot bootloader.Slot) int64 {
	if slot == bootloader.A {
		return bootSize
	}
	return bootSize + rootSize
}

// window is a part of a disk.
type window struct {
	disk   *crashdisk.Disk
	offset int64
	size   int64
}

func (w window) ReadAt(b []byte, offset int64) (int, error) {
	if offset >= w.size {
		return 0, io.EOF
	}
	short := b[:min(int64(len(b)), w.size-offset)]
	n, err := w.disk.ReadAt(short, w.offset+offset)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

func (w window) WriteAt(b []byte, offset int64) (int, error) {
	if offset < 0 || offset+int64(len(b)) > w.size {
		return 0, fmt.Errorf("write %d bytes at %d of %d", len(b), offset, w.size)
	}
	return w.disk.WriteAt(b, w.offset+offset)
}

func (w window) Sync() error { return w.disk.Sync() }

// world is a node: its disk, the files on its STATE, and the power of both.
type world struct {
	loader bootloader.Loader
	power  *crashdisk.Power
	disk   *crashdisk.Disk
	files  *crashdisk.Files
}

// content is what a world holds while it is off.
type content struct {
	disk  []byte
	files map[string][]byte
}

var hashSeed = maphash.MakeSeed()

// sum tells outcomes apart.
func (c content) sum() uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	h.Write(c.disk)
	for _, name := range []string{memory.StagedFile, memory.TrialFile, memory.FloorFile, armings.File} {
		data, ok := c.files[name]
		fmt.Fprintf(&h, "%s %v %d\n", name, ok, len(data))
		h.Write(data)
	}
	return h.Sum64()
}

// on switches a world on; it lasts for so many writes.
func on(l bootloader.Loader, c content, writes int) *world {
	p := crashdisk.NewPower(writes)
	return &world{l, p, crashdisk.NewOn(c.disk, p), crashdisk.NewFiles(c.files, p)}
}

const forEver = 1 << 30

func (w *world) off(seed uint64) content {
	return content{w.disk.AfterCut(seed), w.files.AfterCut(seed)}
}

// Edit and Read are those of the boot partition.
func (w *world) Edit(edit func(*fat.Volume) error) error {
	v, err := fat.Open(w.disk, 0, bootSize)
	if err != nil {
		return err
	}
	if _, err := v.Repair(); err != nil {
		return err
	}
	return edit(v)
}

func (w *world) Read(read func(*fat.Volume) error) error {
	v, err := fat.Open(w.disk, 0, bootSize)
	if err != nil {
		return err
	}
	return read(v)
}

// remembered is the Memory of a world.
type remembered struct{ files *crashdisk.Files }

func (r remembered) Read(name string) ([]byte, error) { return r.files.ReadFile(name) }
func (r remembered) Replace(name string, data []byte) error {
	return durable.ReplaceIn(r.files, name, data, 0o600)
}

func (r remembered) Remove(name string) error {
	if _, err := r.files.ReadFile(name); errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.files.Remove(name)
}

func (w *world) memory() memory.Folder { return remembered{w.files} }

// as is the disk of a world for the software of one boot.
func (w *world) as(b booted) Disk {
	return Disk{
		Board: board, Loader: w.loader, Boot: w,
		Roots: map[bootloader.Slot]Root{
			bootloader.A: {window{w.disk, rootAt(bootloader.A), rootSize}, rootSize},
			bootloader.B: {window{w.disk, rootAt(bootloader.B), rootSize}, rootSize},
		},
		Running: b.slot, Trial: b.trial, Verity: b.verity, Counter: b.counter, Schema: memory.Schema{Reads: [2]int{1, 1}, Writes: 1},
	}
}

// made is a release of the tests with its bytes.
type made struct {
	Release
	content map[string][]byte // by part
}

// release makes a release: boot files that name the version and the root hash, and a
// root of so many blocks.
func release(t testing.TB, l bootloader.Loader, version string, counter uint64, blocks int) made {
	t.Helper()
	random := rand.New(rand.NewPCG(counter, uint64(blocks)))
	data := make([]byte, blocks*verity.BlockSize)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	copy(data, version)
	p := verity.Params{Salt: [32]byte{1}, Blocks: uint64(blocks)}
	tree, root, err := verity.HashTree(bytes.NewReader(data), p.Blocks, p.Salt)
	if err != nil {
		t.Fatal(err)
	}
	p.Root = root
	m := made{
		Release: Release{
			Version: version, Digest: "sha256:" + version, Board: board, Counter: counter, Verity: p,
			Schema: memory.Schema{Reads: [2]int{1, 1}, Writes: 1},
		},
		content: map[string][]byte{},
	}
	for _, name := range l.BootFiles() {
		text := fmt.Sprintf("%s of release %s\nkogge.verity=%s\n", name, version, p)
		m.content[name] = append([]byte(text), bytes.Repeat([]byte(version), 1200/len(version))...)
	}
	m.content[RootPart] = append(data, tree...)
	for _, name := range append(l.BootFiles(), RootPart) {
		m.Parts = append(m.Parts, m.part(name))
	}
	return m
}

func (m made) part(name string) Part {
	b := m.content[name]
	return Part{
		Name: name, Size: int64(len(b)), SHA256: sha256.Sum256(b),
		Open: func(_ context.Context, offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b[offset:])), nil
		},
	}
}

// flash returns a node's disk as an image of that release makes it.
func flash(t testing.TB, l bootloader.Loader, r made) content {
	t.Helper()
	files := l.Fresh(r.Version)
	for _, name := range l.BootFiles() {
		p, err := l.Path(bootloader.A, name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, fat.File{Path: p, Size: int64(len(r.content[name])), Data: bytes.NewReader(r.content[name])})
	}
	d := crashdisk.New(make([]byte, diskSize), forEver)
	if err := fat.Format(d, fat.Spec{Size: bootSize, Label: "KOGGE", Serial: 1, When: when, Tiny: true}, files); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(r.content[RootPart], rootAt(bootloader.A)); err != nil {
		t.Fatal(err)
	}
	return content{d.AfterCut(1), nil}
}

// booted is what a boot came to.
type booted struct {
	version string
	slot    bootloader.Slot
	trial   bool
	verity  verity.Params
	counter uint64
}

// boot is the boot of a world: the loader, as we know it, and then stage 0. An error that
// is no power cut is a boot that does not come up. whole are the releases that there may
// be, by version.
func (w *world) boot(whole map[string]made) (booted, error) {
	v, err := fat.Open(w.disk, 0, bootSize)
	if err != nil {
		return booted{}, err
	}
	slot, trial, err := w.startSlot(v)
	if err != nil {
		return booted{}, err
	}
	version := ""
	for _, name := range w.loader.BootFiles() {
		p, err := w.loader.Path(slot, name)
		if err != nil {
			return booted{}, err
		}
		got, err := v.ReadFile(p)
		if err != nil {
			return booted{}, err
		}
		_, rest, _ := strings.Cut(string(got), " of release ")
		of, _, _ := strings.Cut(rest, "\n")
		if !bytes.Equal(got, whole[of].content[name]) {
			return booted{}, fmt.Errorf("%s is broken", p)
		}
		if version != "" && of != version {
			return booted{}, fmt.Errorf("slot %s: mixed: %s and %s", slot, of, version)
		}
		version = of
	}
	p := whole[version].Verity
	for _, slot := range []bootloader.Slot{bootloader.A, bootloader.B} {
		dev := window{w.disk, rootAt(slot), rootSize}
		leads, err := verity.Leads(dev, p)
		if err != nil {
			return booted{}, err
		}
		if !leads {
			continue
		}
		if err := verity.Verify(dev, p); err != nil {
			return booted{}, fmt.Errorf("mixed: release %s in slot %s: %w", version, slot, err)
		}
		return booted{version, slot, trial, p, whole[version].Counter}, nil
	}
	return booted{}, fmt.Errorf("release %s: no slot leads to its root hash", version)
}

// startSlot is what the boot loaders do, written down once more from what is known of
// them and not from our verbs.
func (w *world) startSlot(v *fat.Volume) (bootloader.Slot, bool, error) {
	if len(w.loader.BootFiles()) == 1 {
		return w.startSystemdBoot(v)
	}
	return w.startUBoot(v)
}

func (w *world) startSystemdBoot(v *fat.Volume) (bootloader.Slot, bool, error) {
	type entry struct {
		file, efi, text     string
		version, left, done int
	}
	var best *entry
	files, err := v.ReadDir("loader/entries")
	if err != nil {
		return "", false, err
	}
	for _, f := range files {
		base, conf := strings.CutSuffix(f.Name, ".conf")
		text, err := v.ReadFile("loader/entries/" + f.Name)
		if !conf || err != nil {
			continue
		}
		e := entry{file: f.Name, text: string(text), left: -1}
		for line := range strings.Lines(e.text) {
			fmt.Sscanf(line, "efi %s", &e.efi)
			fmt.Sscanf(line, "version %d", &e.version)
		}
		if _, tries, counted := strings.Cut(base, "+"); counted {
			e.left = 0
			fmt.Sscanf(tries, "%d-%d", &e.left, &e.done)
		}
		if r, err := v.Reader(e.efi); err != nil || r.Size() == 0 {
			continue // the loader leaves out what has no image
		}
		worse := func(a, b *entry) bool {
			if (a.left == 0) != (b.left == 0) {
				return a.left == 0
			}
			return a.version < b.version
		}
		if best == nil || worse(best, &e) {
			best = &e
		}
	}
	if best == nil {
		return "", false, errors.New("systemd-boot: no entry")
	}
	slot := bootloader.A
	if strings.HasSuffix(best.efi, "b.efi") {
		slot = bootloader.B
	}
	if best.left > 0 {
		base, _, _ := strings.Cut(best.file, "+")
		name := fmt.Sprintf("loader/entries/%s+%d-%d.conf", base, best.left-1, best.done+1)
		if _, err := v.Reader(name); err == nil {
			// The firmware renames nothing onto a file that is there; the loader takes
			// that lightly, starts the entry, and tells nobody that it is counted.
			return slot, false, nil
		}
		// The firmware's FAT driver takes the old name away before it makes the new one.
		if err := v.Remove("loader/entries/" + best.file); err != nil {
			return "", false, err
		}
		if err := v.WriteFile(name, []byte(best.text), when); err != nil {
			return "", false, err
		}
	}
	return slot, best.left >= 0, nil
}

func (w *world) startUBoot(v *fat.Volume) (bootloader.Slot, bool, error) {
	env := map[string]string{}
	text, _ := v.ReadFile("kogge.env")
	plain, _, _ := bytes.Cut(text[:min(len(text), 512)], []byte{0})
	for line := range strings.Lines(string(plain)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		env[key] = value
	}
	loads := func(slot string) bool {
		for _, name := range w.loader.BootFiles() {
			if _, err := v.ReadFile(slot + "/" + name); err != nil {
				return false
			}
		}
		return true
	}
	proven := func(slot string) bool {
		_, err := v.Reader(slot + "/proven")
		return err == nil
	}
	isSlot := func(s string) bool { return s == "A" || s == "B" }
	left := map[string]string{"3": "2", "2": "1", "1": "0"}[env["kogge_left"]]
	if isSlot(env["kogge_try"]) && left != "" {
		next := make([]byte, 512)
		counted := fmt.Sprintf("kogge_left=%s\n", left)
		if isSlot(env["kogge_slot"]) {
			counted += fmt.Sprintf("kogge_slot=%s\n", env["kogge_slot"])
		}
		copy(next, counted+fmt.Sprintf("kogge_try=%s\n", env["kogge_try"]))
		// One sector where it lies, as U-Boot writes it. A try that cannot be counted
		// is none.
		if err := v.Overwrite("kogge.env", next); errors.Is(err, crashdisk.ErrPowerCut) {
			return "", false, err
		} else if err == nil && loads(env["kogge_try"]) {
			return bootloader.Slot(env["kogge_try"]), true, nil
		}
	}
	for _, slot := range []string{env["kogge_slot"], "A", "B"} {
		if isSlot(slot) && proven(slot) && loads(slot) {
			return bootloader.Slot(slot), false, nil
		}
	}
	for _, slot := range []string{"A", "B"} {
		if loads(slot) {
			return bootloader.Slot(slot), true, nil
		}
	}
	return "", false, errors.New("U-Boot: nothing to start")
}

// loaders are those of the tests.
func loaders(t testing.TB) map[string]bootloader.Loader {
	t.Helper()
	all := map[string]bootloader.Loader{}
	for _, name := range []boards.Bootloader{boards.SystemdBoot, boards.UBoot} {
		l, err := bootloader.For(name)
		if err != nil {
			t.Fatal(err)
		}
		all[string(name)] = l
	}
	return all
}

// lone is an authorisation.
func lone(t testing.TB) Authorisation {
	t.Helper()
	a, err := LoneVoter(1, "shelf")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// update does one update from what runs to the blessing: what the agent and PID 1 do in
// their turn. The loader's part at the reboot is in it.
func (w *world) update(t testing.TB, from booted, r made, whole map[string]made) (booted, error) {
	t.Helper()
	if err := stage(context.Background(), w.as(from), w.memory(), r.Release, nil, quick); err != nil {
		return from, err
	}
	return w.try(t, from, whole, func(d Disk) error {
		_, err := Arm(d, w.memory(), r.Digest, lone(t), when)
		return err
	})
}

// rollback arms the other slot again, and goes on until it is blessed.
func (w *world) rollback(t testing.TB, from booted, whole map[string]made) (booted, error) {
	t.Helper()
	return w.try(t, from, whole, func(d Disk) error {
		_, err := Rollback(d, w.memory(), lone(t), when)
		return err
	})
}

func (w *world) try(t testing.TB, from booted, whole map[string]made, arm func(Disk) error) (booted, error) {
	t.Helper()
	if err := arm(w.as(from)); err != nil {
		return from, err
	}
	b, err := w.boot(whole)
	if err != nil {
		return b, err
	}
	err = w.good(b)
	b.trial = false
	return b, err
}

// good is what follows a good boot assessment.
func (w *world) good(b booted) error {
	if !b.trial {
		return nil
	}
	if err := w.Edit(func(v *fat.Volume) error { return w.loader.Bless(v, b.slot, when) }); err != nil {
		return err
	}
	return memory.Pass(w.memory(), b.slot)
}
