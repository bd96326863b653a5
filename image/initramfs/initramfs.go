// Package initramfs packs stage 0 and its modules into the archive that the kernel
// unpacks into memory: init, modules in load order, and nothing else.
package initramfs

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"kogge.example/image/kernel"
)

// Lists in the folder modules: files in the order in which stage 0 loads them. The
// watchdog comes before everything that could hang.
const (
	WatchdogList = "modules/watchdog"
	OrderList    = "modules/order"
)

// Build returns the compressed archive with the program init, the watchdog's
// modules and the others. Same input, same bytes: every time and inode number is
// fixed.
func Build(init string, watchdog, modules []kernel.Module) ([]byte, error) {
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
	packed := map[string]bool{}
	for _, l := range []struct {
		name    string
		modules []kernel.Module
	}{{WatchdogList, watchdog}, {OrderList, modules}} {
		var list strings.Builder
		for _, m := range l.modules {
			name := path.Base(m.Path)
			fmt.Fprintln(&list, name)
			if packed[name] {
				continue
			}
			packed[name] = true
			data, err := os.ReadFile(m.File)
			if err != nil {
				return nil, fmt.Errorf("initramfs: %w", err)
			}
			records = append(records, cpio.StaticFile("modules/"+name, string(data), 0o644))
		}
		records = append(records, cpio.StaticFile(l.name, list.String(), 0o644))
	}
	records = append(records, cpio.StaticFile("init", string(program), 0o755))

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
