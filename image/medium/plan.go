package medium

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"kogge.example/image/disk"
	"kogge.example/update/gpt"
	"kogge.example/update/partition"
	"kogge.example/update/verity"
)

// chunk is a piece of the image that has to be on the medium, a MiB at most.
type chunk struct {
	at, size int64
	zero     bool // all of it
	sum      [sha256.Size]byte
}

func sum(chunks []chunk) (total int64) {
	for _, c := range chunks {
		total += c.size
	}
	return total
}

// span is a part of the image, in whole MiB. What is exact is on the medium as in
// the image, zeros included; of the rest only what is not zero is written.
type span struct {
	at, end int64
	exact   bool
}

// plan lists the chunks to be written, in the order of the disk. What an old medium
// holds may shine through only where nobody reads before writing: in free clusters
// of the boot partition, behind the root file system's verity tree, and inside the
// empty slot, of which the first and the last MiB say that it is empty. STATE is
// exact: its journal must not hold somebody else's records.
func plan(image io.ReaderAt, c disk.Contents) ([]chunk, error) {
	spans, err := spans(image, c)
	if err != nil {
		return nil, err
	}
	var chunks []chunk
	b, zeros := make([]byte, disk.MiB), make([]byte, disk.MiB)
	for _, s := range spans {
		for at := s.at; at < s.end; at += disk.MiB {
			n := min(disk.MiB, s.end-at)
			if got, err := image.ReadAt(b[:n], at); int64(got) < n {
				return nil, fmt.Errorf("read %d bytes at byte %d: %w", n, at, err)
			}
			zero := bytes.Equal(b[:n], zeros[:n])
			if s.exact || !zero {
				chunks = append(chunks, chunk{at: at, size: n, zero: zero})
			}
		}
	}
	return chunks, nil
}

func spans(image io.ReaderAt, c disk.Contents) ([]span, error) {
	// In front of the first partition lies what some boards boot from.
	front := int64(disk.MiB)
	for i, p := range c.Table.Partitions {
		if i == 0 || p.Offset() < front {
			front = p.Offset()
		}
	}
	spans := []span{{0, front, true}}
	for _, p := range c.Table.Partitions {
		end := p.Offset() + p.Size()
		var first int64 // so many bytes are exact
		last := int64(0)
		switch {
		case p.Name == partition.ESP:
			var err error
			if first, err = fatEnd(io.NewSectionReader(image, p.Offset(), p.Size())); err != nil {
				return nil, fmt.Errorf("boot partition: %w", err)
			}
		case p.Name == partition.State:
			first = p.Size()
		case isRoot(c, p):
			first = int64((c.Verity.Blocks + verity.TreeSize(c.Verity.Blocks)/verity.BlockSize) * verity.BlockSize)
		default:
			first, last = disk.MiB, disk.MiB
		}
		first = min((first+disk.MiB-1)/disk.MiB*disk.MiB, p.Size())
		last = min(last, p.Size()-first)
		spans = append(spans,
			span{p.Offset(), p.Offset() + first, true},
			span{p.Offset() + first, end - last, false},
			span{end - last, end, true})
	}
	return spans, nil
}

func isRoot(c disk.Contents, p gpt.Partition) bool {
	root, err := c.Root()
	return err == nil && root.First == p.First
}

// fatEnd returns where the used part of a FAT32 volume ends, in bytes: boot sectors,
// both FATs and the clusters up to the last one in use.
func fatEnd(volume *io.SectionReader) (int64, error) {
	boot := make([]byte, gpt.SectorSize)
	if _, err := volume.ReadAt(boot, 0); err != nil {
		return 0, err
	}
	perCluster, reserved := int64(boot[13]), int64(binary.LittleEndian.Uint16(boot[14:]))
	fats, fatSectors := int64(boot[16]), int64(binary.LittleEndian.Uint32(boot[36:]))
	data := (reserved + fats*fatSectors) * gpt.SectorSize
	if data > volume.Size() {
		return 0, fmt.Errorf("its tables need %d bytes, the partition has %d", data, volume.Size())
	}
	table := make([]byte, fatSectors*gpt.SectorSize)
	if _, err := volume.ReadAt(table, reserved*gpt.SectorSize); err != nil {
		return 0, err
	}
	used := int64(0) // clusters up to the last one in use; numbers begin at 2
	for n := int64(2); n < int64(len(table)/4); n++ {
		if binary.LittleEndian.Uint32(table[4*n:])&0x0fffffff != 0 {
			used = n - 1
		}
	}
	return min(data+used*perCluster*gpt.SectorSize, volume.Size()), nil
}

// masked is an image without its partition table: zeros from the entries of the MBR
// to the end of the primary copy.
type masked struct{ io.ReaderAt }

const (
	maskFrom = 446
	maskTo   = gpt.FirstUsable * gpt.SectorSize
)

func (m masked) ReadAt(p []byte, at int64) (int, error) {
	n, err := m.ReaderAt.ReadAt(p, at)
	if from, to := max(maskFrom-at, 0), min(maskTo-at, int64(n)); from < to {
		clear(p[from:to])
	}
	return n, err
}
