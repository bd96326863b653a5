package slot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
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
