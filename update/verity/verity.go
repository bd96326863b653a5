// Package verity protects a read-only file system image by a tree of hashes.
//
// In comes an image of whole 4096-byte blocks; out come its hash tree, which is to lie
// right behind it, and the root hash that names the content. In comes a device with
// both and what the kernel command line says of it; out comes whether they match, or a
// second device on which the kernel checks every block it reads. It leaves alone what
// is in the image, where it came from, and who vouches for the root hash.
//
// The format is dm-verity's version 1 without a superblock: SHA-256, data and hash
// blocks of 4096 bytes, the salt in front of each block, the top of the tree first.
//
// Source: Documentation/admin-guide/device-mapper/verity.rst in the kernel tree.
package verity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// BlockSize is the size in bytes of a block of data and of the tree.
const BlockSize = 4096

const (
	perBlock  = BlockSize / sha256.Size // hashes in a block of the tree
	maxBlocks = 1 << 25                 // 128 GiB: the tree fits an int of a 32-bit machine
)

// ErrTree says that the tree behind the data does not lead to the root hash: another
// release lies there, or half of one, or none.
var ErrTree = errors.New("hash tree does not lead to the root hash")

// BlockError names a block of data that does not match the tree.
type BlockError struct{ Block uint64 }

func (e BlockError) Error() string {
	return fmt.Sprintf("data block %d does not match its hash", e.Block)
}

// Params is what has to be known from elsewhere to open an image: the value of
// kogge.verity on the kernel command line.
type Params struct {
	Root, Salt [sha256.Size]byte
	Blocks     uint64 // of data; the tree begins right behind them
}

// String is the form <root hex>:<salt hex>:<blocks>.
func (p Params) String() string {
	return fmt.Sprintf("%x:%x:%d", p.Root, p.Salt, p.Blocks)
}

// ParseParams reads what String writes, and nothing else.
func ParseParams(text string) (Params, error) {
	var p Params
	fields := strings.Split(text, ":")
	if len(fields) != 3 || len(fields[0]) != 2*sha256.Size || len(fields[1]) != 2*sha256.Size {
		return Params{}, fmt.Errorf("verity parameters %q: want <root, 64 hex digits>:<salt, 64 hex digits>:<blocks>", text)
	}
	_, rootErr := hex.Decode(p.Root[:], []byte(fields[0]))
	_, saltErr := hex.Decode(p.Salt[:], []byte(fields[1]))
	blocks, blocksErr := strconv.ParseUint(fields[2], 10, 64)
	if err := errors.Join(rootErr, saltErr, blocksErr); err != nil {
		return Params{}, fmt.Errorf("verity parameters %q: %w", text, err)
	}
	if p.Blocks = blocks; blocks == 0 || blocks > maxBlocks {
		return Params{}, fmt.Errorf("verity parameters %q: %d blocks: want 1 to %d", text, blocks, maxBlocks)
	}
	if p.String() != text { // upper-case digits, a sign, leading zeros
		return Params{}, fmt.Errorf("verity parameters %q: not in the usual form %q", text, p.String())
	}
	return p, nil
}

// levels returns how many hash blocks each level of the tree has, the lowest first.
// One block of data needs no tree: its hash is the root hash.
func levels(blocks uint64) []uint64 {
	var counts []uint64
	for blocks > 1 {
		blocks = (blocks + perBlock - 1) / perBlock
		counts = append(counts, blocks)
	}
	return counts
}

// TreeSize is the size in bytes of the tree over so many blocks of data.
func TreeSize(blocks uint64) uint64 {
	var size uint64
	for _, count := range levels(blocks) {
		size += count * BlockSize
	}
	return size
}

// HashTree reads so many blocks of data and returns the tree to be stored right
// behind them, with the root hash. It uses every core, so data is read from several
// goroutines at once.
func HashTree(data io.ReaderAt, blocks uint64, salt [sha256.Size]byte) (tree []byte, root [sha256.Size]byte, err error) {
	if blocks == 0 || blocks > maxBlocks {
		return nil, root, fmt.Errorf("hash tree: %d blocks: want 1 to %d", blocks, maxBlocks)
	}
	// Is the data as long as it is said to be? Before a tree of up to 1 GiB is made.
	if _, err := newSummer(salt, 1).hashes(data, blocks-1, 1); err != nil {
		return nil, root, fmt.Errorf("hash tree: %w", err)
	}
	counts := levels(blocks)
	tree = make([]byte, TreeSize(blocks))
	end := len(tree)
	below, belowBlocks := data, blocks
	for _, count := range counts {
		level := tree[end-int(count)*BlockSize : end]
		end -= len(level)
		err := eachChunk(below, belowBlocks, salt, func(first uint64, hashes []byte) bool {
			copy(level[first*sha256.Size:], hashes)
			return true
		})
		if err != nil {
			return nil, root, fmt.Errorf("hash tree: %w", err)
		}
		below, belowBlocks = bytesAt(level), count
	}
	err = eachChunk(below, 1, salt, func(_ uint64, hashes []byte) bool {
		root = [sha256.Size]byte(hashes)
		return true
	})
	if err != nil {
		return nil, root, fmt.Errorf("hash tree: %w", err)
	}
	return tree, root, nil
}

// eachChunk hashes blocks of data, a hash block's worth at a time and on every core,
// and calls each, from several goroutines, with the number of the first block and the
// hashes of it and those that follow. Where each returns false, what lies behind may
// be left out; all that lies before has been, or will be, handed to it.
func eachChunk(data io.ReaderAt, blocks uint64, salt [sha256.Size]byte, each func(first uint64, hashes []byte) bool) error {
	chunks := (blocks + perBlock - 1) / perBlock
	var next atomic.Uint64
	var stop atomic.Bool
	var wait sync.WaitGroup
	failed := make([]error, min(uint64(runtime.GOMAXPROCS(0)), chunks))
	for w := range failed {
		wait.Go(func() {
			s := newSummer(salt, min(perBlock, blocks))
			for !stop.Load() {
				first := (next.Add(1) - 1) * perBlock
				if first >= blocks {
					return
				}
				hashes, err := s.hashes(data, first, min(perBlock, blocks-first))
				if err != nil {
					failed[w] = err
				}
				if err != nil || !each(first, hashes) {
					stop.Store(true)
				}
			}
		})
	}
	wait.Wait()
	return errors.Join(failed...)
}

// summer hashes blocks, one goroutine's worth of buffers kept.
type summer struct {
	hash hash.Hash
	salt [sha256.Size]byte
	data []byte
	sums []byte
}

// newSummer hashes at most so many blocks at a time.
func newSummer(salt [sha256.Size]byte, most uint64) *summer {
	return &summer{
		hash: sha256.New(), salt: salt,
		data: make([]byte, most*BlockSize), sums: make([]byte, 0, most*sha256.Size),
	}
}

// hashes returns the hashes of count blocks from first on, valid until the next call.
func (s *summer) hashes(r io.ReaderAt, first, count uint64) ([]byte, error) {
	data := s.data[:count*BlockSize]
	if n, err := r.ReadAt(data, int64(first)*BlockSize); n < len(data) {
		return nil, fmt.Errorf("read %d blocks from %d: %w", count, first, err)
	}
	sums := s.sums[:0]
	for ; len(data) > 0; data = data[BlockSize:] {
		s.hash.Reset()
		s.hash.Write(s.salt[:])
		s.hash.Write(data[:BlockSize])
		sums = s.hash.Sum(sums)
	}
	return sums, nil
}

// bytesAt reads from memory as if it were a device.
type bytesAt []byte

func (b bytesAt) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
