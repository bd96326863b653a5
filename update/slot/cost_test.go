package slot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"runtime"
	"strings"
	"testing"

	"kogge.example/update/bootloader"
	"kogge.example/update/crashdisk"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

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
