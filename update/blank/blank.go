// Package blank is the form in which an empty STATE file system lies in the root,
// so that a node can make STATE anew: there is no static mke2fs to do it with. An
// image with few blocks that are not zero goes in, a small file comes out, and the
// other way round. It knows nothing of what the blocks mean.
package blank

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Where the root has them: File has quotas of projects, PlainFile is what every release
// mounts.
const (
	File      = "/usr/lib/kogge/state.blocks"
	PlainFile = "/usr/lib/kogge/state-plain.blocks"
)

// Seed names the file system in either: its UUID derives from it (gpt.DeriveGUID), and
// a node that finds this UUID on its STATE gives it one of its own.
const Seed = "kogge/blank-state/v1"

// BlockSize in bytes, that of STATE's file system.
const BlockSize = 4096

// Size of the file system in bytes. It grows to its partition when it is mounted.
const Size = 256 << 20

// Encode reads an image of whole blocks and returns the number (uint32, little
// endian) and bytes of each block that is not zero, by number.
func Encode(image io.Reader) ([]byte, error) {
	r := bufio.NewReaderSize(image, 1<<20)
	var out []byte
	block := make([]byte, BlockSize)
	for n := uint32(0); ; n++ {
		_, err := io.ReadFull(r, block)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", n, err)
		}
		if !zero(block) {
			out = append(binary.LittleEndian.AppendUint32(out, n), block...)
		}
	}
}

// Decode calls each for every block of an encoded image of at most size bytes. The
// block is only valid during the call.
func Decode(encoded io.Reader, size int64, each func(number uint32, block []byte) error) error {
	r := bufio.NewReaderSize(encoded, 1<<16)
	record := make([]byte, 4+BlockSize)
	for last := int64(-1); ; {
		_, err := io.ReadFull(r, record)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("blank file system: %w", err)
		}
		n := binary.LittleEndian.Uint32(record)
		if int64(n) <= last || int64(n) >= size/BlockSize {
			return fmt.Errorf("blank file system: block %d behind block %d of %d", n, last, size/BlockSize)
		}
		last = int64(n)
		if err := each(n, record[4:]); err != nil {
			return err
		}
	}
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
