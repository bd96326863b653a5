package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// running boots a world and wants it to run.
func running(t *testing.T, w *world, whole map[string]made) booted {
	t.Helper()
	b, err := w.boot(whole)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openAs returns the release with one part that opens as something else.
func (m made) openAs(name string, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) Release {
	r := m.Release
	r.Parts = bytesOf(r.Parts)
	for i := range r.Parts {
		if r.Parts[i].Name == name {
			r.Parts[i].Open = open
		}
	}
	return r
}

func bytesOf(parts []Part) []Part { return append([]Part(nil), parts...) }

func reads(r func(content []byte) io.Reader, content []byte) func(context.Context, int64) (io.ReadCloser, error) {
	return func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(r(content[min(offset, int64(len(content))):])), nil
	}
}

var errPulled = errors.New("no such device")

// TestStageBadContent feeds Stage with parts that are not what was signed: each time a
// clear error, the running slot untouched to the last byte, the other one not to be
// started; and then the true release still goes in.
func TestStageBadContent(t *testing.T) {
	flip := func(b []byte) io.Reader {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return bytes.NewReader(b)
	}
	for name, l := range loaders(t) {
		old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
		whole := map[string]made{"1.0": old, "1.1": newer}
		image := flash(t, l, old)
		boot := l.BootFiles()[0]
		for _, c := range []struct {
			name string
			part string
			read func([]byte) io.Reader
			want error
		}{
			{"root short", RootPart, func(b []byte) io.Reader { return bytes.NewReader(b[:len(b)-1]) }, io.ErrUnexpectedEOF},
			{"root empty", RootPart, func([]byte) io.Reader { return strings.NewReader("") }, io.ErrUnexpectedEOF},
			{"root long", RootPart, func(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b), strings.NewReader("x")) }, ErrContent},
			{"root endless", RootPart, func([]byte) io.Reader { return endless{} }, ErrContent},
			{"root flipped", RootPart, flip, ErrContent},
			{"root other", RootPart, func([]byte) io.Reader { return bytes.NewReader(old.content[RootPart]) }, io.ErrUnexpectedEOF},
			{"root pulled", RootPart, func(b []byte) io.Reader {
				return io.MultiReader(bytes.NewReader(b[:10000]), iotest.ErrReader(errPulled))
			}, errPulled},
			{"boot file short", boot, func(b []byte) io.Reader { return bytes.NewReader(b[:len(b)-1]) }, io.ErrUnexpectedEOF},
			{"boot file long", boot, func(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b), strings.NewReader("x")) }, ErrContent},
			{"boot file endless", boot, func([]byte) io.Reader { return endless{} }, ErrContent},
			{"boot file flipped", boot, flip, ErrContent},
			{"boot file pulled", boot, func(b []byte) io.Reader {
				return io.MultiReader(bytes.NewReader(b[:100]), iotest.ErrReader(errPulled))
			}, errPulled},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				w := on(l, image, forEver)
				from := running(t, w, whole)
				bad := newer.openAs(c.part, reads(c.read, newer.content[c.part]))
				err := stage(context.Background(), w.as(from), w.memory(), bad, nil, quick)
				if !errors.Is(err, c.want) {
					t.Fatalf("got %v, want %v", err, c.want)
				}
				untouched(t, w, image)
				if _, err := Arm(w.as(from), w.memory(), newer.Digest, lone(t), when); !errors.Is(err, ErrNotStaged) {
					t.Errorf("armed what is not whole: %v", err)
				}
				if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
					t.Fatalf("the true release: %+v, %v", b, err)
				}
				clean(t, c.name, w)
			})
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// untouched wants slot A as an image made it: its root, its boot files, and the loader's
// word that it starts.
func untouched(t *testing.T, w *world, image content) {
	t.Helper()
	now := w.off(1)
	if !bytes.Equal(now.disk[rootAt("A"):rootAt("B")], image.disk[rootAt("A"):rootAt("B")]) {
		t.Error("the running root was written")
	}
	before := on(w.loader, image, 0)
	for _, name := range w.loader.BootFiles() {
		read := func(w *world) (b []byte) {
			err := w.Read(func(v *fat.Volume) error {
				r, err := w.loader.Open(v, bootloader.A, name)
				if err == nil {
					b, err = io.ReadAll(r)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		if !bytes.Equal(read(before), read(w)) {
			t.Errorf("the running slot's %s changed", name)
		}
	}
	err := w.Read(func(v *fat.Volume) error {
		s, err := w.loader.State(v)
		if s.Starts != bootloader.A || !s.A.Proven() || s.B.Present {
			t.Errorf("the loader's state: %+v", s)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStageRefuses asks for what must not be staged: nothing at all is written.
func TestStageRefuses(t *testing.T) {
	l := loaders(t)["systemd-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	image := flash(t, l, old)
	image.files = map[string][]byte{memory.FloorFile: []byte(`{"version": 1, "floor": 2, "blessed": 2, "digest": "sha256:1.1"}`)}
	for _, c := range []struct {
		name    string
		release func(*Release)
		disk    func(*Disk)
		want    error
		text    string
	}{
		{"another board", func(r *Release) { r.Board = "toaster" }, nil, ErrWrongBoard, `it is for "toaster", this is "test-board"`},
		{"on trial", nil, func(d *Disk) { d.Trial = true }, ErrOnTrial, ""},
		{"too large", nil, func(d *Disk) {
			root := d.Roots[bootloader.B]
			root.Size = 40000
			d.Roots[bootloader.B] = root
		}, ErrTooSmall, "image is 40960 bytes, slot is 40000 bytes"},
		{"below the floor", func(r *Release) { r.Counter = 1 }, nil, ErrBelowFloor, "its counter is 1, the floor is 2"},
		{"the root that runs", func(r *Release) { *r = old.Release; r.Counter = 3 }, nil, ErrSameRoot, ""},
		{"the root that lies in the running slot", func(r *Release) { *r = old.Release; r.Counter = 3 }, func(d *Disk) { d.Verity.Root[0]++ }, ErrSameRoot, ""},
		{"failed before", nil, func(d *Disk) {
			d.Refused = func(version, _ string) (string, bool) {
				return "agent not ready within 60s (3 boots)", version == "1.1"
			}
		}, ErrFailedBefore, "agent not ready within 60s (3 boots)"},
		{"writes what the running one cannot read", func(r *Release) { r.Schema = memory.Schema{Reads: [2]int{1, 2}, Writes: 2} }, nil, ErrSchema, "the new one writes format 2, the running one reads 1 to 1"},
		{"cannot read what there is", func(r *Release) { r.Schema = memory.Schema{Reads: [2]int{2, 2}, Writes: 2} }, nil, ErrSchema, "the running one writes format 1, the new one reads 2 to 2"},
		{"no boot file", func(r *Release) { r.Parts = r.Parts[1:] }, nil, ErrParts, `part "uki" is missing`},
		{"no root", func(r *Release) { r.Parts = r.Parts[:1] }, nil, ErrParts, `part "root" is missing`},
		{"a part twice", func(r *Release) { r.Parts = append(bytesOf(r.Parts), r.Parts[0]) }, nil, ErrParts, `part "uki" is there twice`},
		{"a part of another loader", func(r *Release) { r.Parts = append(bytesOf(r.Parts), Part{Name: "../boot.scr", Size: 1}) }, nil, ErrParts, "boot.scr"},
		{"an empty part", func(r *Release) { r.Parts = bytesOf(r.Parts); r.Parts[0].Size = 0 }, nil, ErrParts, `part "uki" has 0 bytes`},
		{"a huge part", func(r *Release) { r.Parts = bytesOf(r.Parts); r.Parts[0].Size = 1 << 62 }, nil, ErrParts, "uki"},
		{"a root of other blocks", func(r *Release) { r.Verity.Blocks++ }, nil, ErrParts, "a root of 10 blocks and their tree does not have 40960 bytes"},
		{"a root of endless blocks", func(r *Release) { r.Verity.Blocks = 1<<64 - 1 }, nil, ErrParts, "root"},
		{"no slot runs", nil, func(d *Disk) { d.Running = "" }, nil, "no update is possible"},
		{"a name that breaks lines", func(r *Release) { r.Version = "1.1\nefi /x" }, nil, nil, "only printable ASCII"},
	} {
		w := on(l, image, forEver)
		from := running(t, w, whole)
		r, d := newer.Release, w.as(from)
		if c.release != nil {
			c.release(&r)
		}
		if c.disk != nil {
			c.disk(&d)
		}
		used := w.power.Used()
		err := stage(context.Background(), d, w.memory(), r, nil, quick)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v\nwant %v: %s", c.name, err, c.want, c.text)
		}
		if w.power.Used() != used {
			t.Errorf("%s: %d writes", c.name, w.power.Used()-used)
		}
	}
}

// faulty is a device that fails in one way.
type faulty struct {
	Device
	write, sync error
	syncs       int // that work first
}

func (f *faulty) WriteAt(b []byte, at int64) (int, error) {
	if f.write != nil {
		return 0, f.write
	}
	return f.Device.WriteAt(b, at)
}

func (f *faulty) Sync() error {
	if f.syncs--; f.sync != nil && f.syncs < 0 {
		return f.sync
	}
	return f.Device.Sync()
}

// TestStageBadDisk stages on disks that fail. A sync that failed once is never believed
// again: the next attempt writes everything anew.
func TestStageBadDisk(t *testing.T) {
	l := loaders(t)["u-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	image := flash(t, l, old)
	readOnly, lost := errors.New("read-only file system"), errors.New("input/output error")
	for syncs := range 4 {
		w := on(l, image, forEver)
		from := running(t, w, whole)
		d := w.as(from)
		root := d.Roots[bootloader.B]
		root.Device = &faulty{Device: root.Device, sync: lost, syncs: syncs}
		d.Roots[bootloader.B] = root
		if err := stage(context.Background(), d, w.memory(), newer.Release, nil, quick); !errors.Is(err, ErrSync) || !errors.Is(err, lost) {
			t.Fatalf("sync %d fails: %v", syncs, err)
		}
		untouched(t, w, image)
		if r, err := memory.ReadStaged(w.memory()); err != nil || r[bootloader.B] == nil || r[bootloader.B].Written != 0 || r[bootloader.B].Whole {
			t.Errorf("sync %d fails: %+v, %v", syncs, r[bootloader.B], err)
		}
		if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
			t.Errorf("sync %d fails: once more: %+v, %v", syncs, b, err)
		}
	}
	w := on(l, image, forEver)
	from := running(t, w, whole)
	d := w.as(from)
	root := d.Roots[bootloader.B]
	root.Device = &faulty{Device: root.Device, write: readOnly}
	d.Roots[bootloader.B] = root
	if err := stage(context.Background(), d, w.memory(), newer.Release, nil, quick); !errors.Is(err, readOnly) {
		t.Errorf("read-only: %v", err)
	}
	untouched(t, w, image)

	// A boot partition that takes nothing: the slot is as it was.
	d = w.as(from)
	d.Boot = closed{w, readOnly}
	if err := stage(context.Background(), d, w.memory(), newer.Release, nil, quick); !errors.Is(err, readOnly) {
		t.Errorf("read-only boot partition: %v", err)
	}
	untouched(t, w, image)

	// A full one.
	err := w.Edit(func(v *fat.Volume) error {
		for i := 0; ; i++ {
			if err := v.WriteFile(fmt.Sprintf("ballast %d", i), make([]byte, 2000), when); errors.Is(err, fat.ErrFull) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := stage(context.Background(), w.as(from), w.memory(), newer.Release, nil, quick); !errors.Is(err, fat.ErrFull) {
		t.Errorf("full boot partition: %v", err)
	}
	untouched(t, w, image)
	if _, err := Arm(w.as(from), w.memory(), newer.Digest, lone(t), when); !errors.Is(err, ErrNotStaged) {
		t.Errorf("armed: %v", err)
	}
}

type closed struct {
	*world
	err error
}

func (c closed) Edit(func(*fat.Volume) error) error { return c.err }

// TestStageResumes breaks off at many places, and counts what the next attempt asks for.
func TestStageResumes(t *testing.T) {
	l := loaders(t)["systemd-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	image := flash(t, l, old)
	size := len(newer.content[RootPart])
	for stop := 0; stop < size; stop += 3000 {
		w := on(l, image, forEver)
		from := running(t, w, whole)
		broken := newer.openAs(RootPart, reads(func(b []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(b[:min(stop, len(b))]), iotest.ErrReader(errPulled))
		}, newer.content[RootPart]))
		if err := stage(context.Background(), w.as(from), w.memory(), broken, nil, quick); !errors.Is(err, errPulled) {
			t.Fatalf("stop=%d: %v", stop, err)
		}
		opened := map[string]int64{}
		again := newer.Release
		again.Parts = bytesOf(again.Parts)
		for i, p := range again.Parts {
			again.Parts[i].Open = func(ctx context.Context, offset int64) (io.ReadCloser, error) {
				if _, twice := opened[p.Name]; twice {
					t.Errorf("stop=%d: %s is opened twice", stop, p.Name)
				}
				opened[p.Name] = offset
				return p.Open(ctx, offset)
			}
		}
		var last int64
		tell := func(_ string, done, total int64) {
			if done < last || done > total {
				t.Errorf("stop=%d: progress goes from %d to %d of %d", stop, last, done, total)
			}
			last = done
		}
		if err := stage(context.Background(), w.as(from), w.memory(), again, tell, quick); err != nil {
			t.Fatalf("stop=%d: again: %v", stop, err)
		}
		if want := int64(stop / verity.BlockSize * verity.BlockSize); want > verity.BlockSize && opened[RootPart] != want {
			t.Errorf("stop=%d: goes on at %d, want %d", stop, opened[RootPart], want)
		}
		if _, ok := opened["uki"]; ok && stop > 2*verity.BlockSize {
			t.Errorf("stop=%d: the uki is fetched again", stop)
		}
		if got, want := last, totalSize(again); got != want {
			t.Errorf("stop=%d: progress ends at %d of %d", stop, got, want)
		}
		// The same release once more: nothing is opened, nothing is written.
		clear(opened)
		used := w.power.Used()
		if err := stage(context.Background(), w.as(from), w.memory(), again, nil, quick); err != nil || len(opened) > 0 || w.power.Used() != used {
			t.Errorf("stop=%d: a third time: %v, opened %v, %d writes", stop, err, opened, w.power.Used()-used)
		}
	}
	// What lies there was changed in between: found, and all of it fetched again.
	w := on(l, image, forEver)
	from := running(t, w, whole)
	broken := newer.openAs(RootPart, reads(func(b []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(b[:10000]), iotest.ErrReader(errPulled))
	}, newer.content[RootPart]))
	if err := stage(context.Background(), w.as(from), w.memory(), broken, nil, quick); !errors.Is(err, errPulled) {
		t.Fatal(err)
	}
	if _, err := w.disk.WriteAt([]byte("decay"), rootAt("B")+9000); err != nil {
		t.Fatal(err)
	}
	if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
		t.Errorf("after decay: %+v, %v", b, err)
	}
}

func totalSize(r Release) (sum int64) {
	for _, p := range r.Parts {
		sum += p.Size
	}
	return sum
}

// TestStageCancelled ends with its context, at once, and can go on.
func TestStageCancelled(t *testing.T) {
	l := loaders(t)["u-boot"]
	old, newer := release(t, l, "1.0", 1, 7), release(t, l, "1.1", 2, 9)
	whole := map[string]made{"1.0": old, "1.1": newer}
	w := on(l, flash(t, l, old), forEver)
	from := running(t, w, whole)
	for stop := int64(0); ; stop += 2000 {
		ctx, cancel := context.WithCancelCause(context.Background())
		err := stage(ctx, w.as(from), w.memory(), newer.Release, func(_ string, done, _ int64) {
			if done >= stop {
				cancel(nil)
			}
		}, quick)
		cancel(nil)
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stop=%d: %v", stop, err)
		}
	}
	if b, err := w.update(t, from, newer, whole); err != nil || b.version != "1.1" {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestCutsWhileStaging cuts the power 200 times while staging, at one place or another:
// nothing is lost on the boot partition, and then the update still fits and installs.
func TestCutsWhileStaging(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			old := release(t, l, "1.0", 1, 7)
			whole := map[string]made{"1.0": old}
			var next []made
			for i := range 4 {
				m := release(t, l, fmt.Sprintf("1.%d", i+1), uint64(i+2), 6+i)
				whole[m.Version] = m
				next = append(next, m)
			}
			random := rand.New(rand.NewPCG(1, 2))
			c := flash(t, l, old)
			for round, cuts := 0, 0; cuts < 200; round++ {
				w := on(l, c, random.IntN(60))
				b, err := w.boot(whole)
				if err == nil {
					err = stage(context.Background(), w.as(b), w.memory(), next[round/7%4].Release, nil, quick)
				}
				if err != nil && !errors.Is(err, crashdisk.ErrPowerCut) {
					t.Fatalf("after %d cuts: %v", cuts, err)
				}
				if err != nil {
					cuts++
				}
				c = w.off(uint64(random.IntN(1000)))
			}
			w := on(l, c, forEver)
			if err := w.Edit(func(*fat.Volume) error { return nil }); err != nil {
				t.Fatal(err)
			}
			clean(t, "after 200 cuts", w)
			from := running(t, w, whole)
			if from.version != "1.0" || from.trial {
				t.Fatalf("runs %+v", from)
			}
			if b, err := w.update(t, from, next[3], whole); err != nil || b.version != "1.4" {
				t.Fatalf("the next update: %+v, %v", b, err)
			}
			clean(t, "after the update", w)
		})
	}
}

// counted counts the bytes that are written.
type counted struct {
	Device
	written *int64
}

func (c counted) WriteAt(b []byte, at int64) (int, error) {
	*c.written += int64(len(b))
	return c.Device.WriteAt(b, at)
}

// sparse is a disk of zeros of any size, of which only what was written is held.
type sparse struct{ blocks map[int64][]byte }

func (s sparse) ReadAt(b []byte, at int64) (int, error) {
	for done := 0; done < len(b); {
		block, within := (at+int64(done))/4096, int((at+int64(done))%4096)
		n := min(len(b)-done, 4096-within)
		clear(b[done : done+n])
		if held := s.blocks[block]; held != nil {
			copy(b[done:done+n], held[within:])
		}
		done += n
	}
	return len(b), nil
}

func (s sparse) WriteAt(b []byte, at int64) (int, error) {
	for done := 0; done < len(b); {
		block, within := (at+int64(done))/4096, int((at+int64(done))%4096)
		n := min(len(b)-done, 4096-within)
		if s.blocks[block] == nil {
			s.blocks[block] = make([]byte, 4096)
		}
		copy(s.blocks[block][within:], b[done:done+n])
		done += n
	}
	return len(b), nil
}

func (s sparse) Sync() error { return nil }

// bigBoot is a boot partition of usual size that counts what is written.
type bigBoot struct{ device counted }

func (b bigBoot) Edit(edit func(*fat.Volume) error) error {
	v, err := fat.Open(b.device, 0, 512<<20)
	if err == nil {
		_, err = v.Repair()
	}
	if err != nil {
		return err
	}
	return edit(v)
}

func (b bigBoot) Read(read func(*fat.Volume) error) error {
	v, err := fat.Open(b.device, 0, 512<<20)
	if err != nil {
		return err
	}
	return read(v)
}

// TestStageCost stages a release of real size: how many bytes are written for it, and how
// much memory it takes.
func TestStageCost(t *testing.T) {
	for name, l := range loaders(t) {
		t.Run(name, func(t *testing.T) {
			var written int64
			boot := counted{sparse{map[int64][]byte{}}, &written}
			files := l.Fresh("1.0")
			for _, file := range l.BootFiles() {
				p, err := l.Path(bootloader.A, file)
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, fat.File{Path: p, Size: 1, Data: strings.NewReader("x")})
			}
			if err := fat.Format(boot, fat.Spec{Size: 512 << 20, When: when}, files); err != nil {
				t.Fatal(err)
			}
			// A root of 24 MiB whose bytes are made as they are read.
			const blocks = 24 << 20 / verity.BlockSize
			data := pattern{blocks * verity.BlockSize}
			p := verity.Params{Blocks: blocks}
			tree, root, err := verity.HashTree(data, blocks, p.Salt)
			if err != nil {
				t.Fatal(err)
			}
			p.Root = root
			r := Release{Version: "1.1", Digest: "sha256:1.1", Board: board, Counter: 2, Verity: p}
			for _, file := range l.BootFiles() {
				r.Parts = append(r.Parts, partOf(t, file, func() io.Reader { return io.NewSectionReader(pattern{8 << 20}, 0, 8<<20) }, 8<<20/int64(len(l.BootFiles()))))
			}
			size := data.size + int64(len(tree))
			r.Parts = append(r.Parts, partOf(t, RootPart, func() io.Reader {
				return io.MultiReader(io.NewSectionReader(data, 0, data.size), bytes.NewReader(tree))
			}, size))
			d := Disk{
				Board: board, Loader: l, Boot: bigBoot{boot}, Running: bootloader.A, Verity: verity.Params{Root: [32]byte{1}, Blocks: 1},
				Roots: map[bootloader.Slot]Root{
					bootloader.A: {counted{sparse{map[int64][]byte{}}, &written}, 64 << 20},
					bootloader.B: {counted{sparse{make(map[int64][]byte, 10000)}, &written}, 64 << 20},
				},
			}
			var memory int64
			m := countingMemory{remembered{crashdisk.NewFiles(nil, crashdisk.NewPower(forEver))}, &memory}
			written = 0
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := Stage(context.Background(), d, m, r, lone(t), nil); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			total := totalSize(r)
			held := int64(10000 * 4096) // about what the disk itself holds of it, in this test
			t.Logf("%d bytes of release: %d written to the disk (%.4f of it), %d to STATE; %d KiB of memory",
				total, written, float64(written)/float64(total), memory, (int64(after.TotalAlloc-before.TotalAlloc)-total)/1024)
			if written+memory > total*105/100 {
				t.Errorf("%d bytes are written for a release of %d", written+memory, total)
			}
			if used := int64(after.TotalAlloc - before.TotalAlloc); used > held+16<<20 {
				t.Errorf("%d bytes of memory were taken, %d of them by the disk of this test", used, held)
			}
		})
	}
}

// pattern is bytes that differ from block to block.
type pattern struct{ size int64 }

func (p pattern) ReadAt(b []byte, at int64) (int, error) {
	if at >= p.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.size-at))
	for i := range b[:n] {
		x := at + int64(i)
		b[i] = byte(x>>12) ^ byte(x>>20) ^ byte(x)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func partOf(t *testing.T, name string, open func() io.Reader, size int64) Part {
	t.Helper()
	h := sha256.New()
	if _, err := io.CopyN(h, open(), size); err != nil {
		t.Fatal(err)
	}
	return Part{Name: name, Size: size, SHA256: [32]byte(h.Sum(nil)), Open: func(context.Context, int64) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(open(), size)), nil
	}}
}

type countingMemory struct {
	memory.Folder
	written *int64
}

func (c countingMemory) Replace(name string, data []byte) error {
	*c.written += int64(len(data))
	return c.Folder.Replace(name, data)
}
