// Package initramfs packs stage 0 and its modules into the archive that the kernel
// unpacks into memory: init, modules with their index, and nothing else.
package initramfs

import (
	"bytes"
	"fmt"
	"os"
	"path"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"kogge.example/image/kernel"
)

// Build returns the compressed archive with the program init and the modules, flat
// in one folder with their index. Same input, same bytes: every time and inode
// number is fixed.
func Build(init string, modules []kernel.Module) ([]byte, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.Directory("modules", 0o755),
		cpio.Directory("proc", 0o755),
		cpio.Directory("root", 0o755),
		cpio.Directory("sys", 0o755),
	}
	flat := make([]kernel.Module, len(modules))
	for i, m := range modules {
		data, err := os.ReadFile(m.File)
		if err != nil {
			return nil, fmt.Errorf("initramfs: %w", err)
		}
		m.Path = path.Base(m.Path)
		flat[i] = m
		records = append(records, cpio.StaticFile("modules/"+m.Path, string(data), 0o644))
	}
	index := kernel.Depmod(flat)
	records = append(records,
		cpio.StaticFile("modules/modules.dep", string(index.Dep), 0o644),
		cpio.StaticFile("modules/modules.alias", string(index.Alias), 0o644),
		cpio.StaticFile("modules/modules.softdep", string(index.Softdep), 0o644),
		cpio.StaticFile("init", string(program), 0o755),
	)
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	for i, r := range records {
		r = cpio.MakeReproducible(r)
		r.Ino = uint64(i + 1)
		if err := w.WriteRecord(r); err != nil {
			return nil, fmt.Errorf("initramfs: %s: %w", r.Name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	// The kernel checks neither checksum nor content size; the frame carries the size only.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	defer z.Close()
	return z.EncodeAll(archive.Bytes(), nil), nil
}
