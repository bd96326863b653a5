package verity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Leads tells whether the tree on dev leads from the root hash to the first block of
// data, by reading that block and one of each level. It says nothing of the other
// blocks: that is Verify's business, or the kernel's. So a tree that an earlier, longer
// image left behind a later one is none, and an image without its first block, which
// may be half written, is none either. A device too small for data and tree is a plain
// no; the error is one of reading.
func Leads(dev io.ReaderAt, p Params) (bool, error) {
	if p.Blocks == 0 || p.Blocks > maxBlocks {
		return false, nil
	}
	counts := levels(p.Blocks)
	path := []uint64{p.Blocks} // the blocks to read, from the top down to data block 0
	for i := len(counts) - 1; i > 0; i-- {
		path = append(path, path[len(path)-1]+counts[i])
	}
	if len(counts) == 0 {
		path = nil // one block of data needs no tree
	}
	return follow(dev, p, append(path, 0))
}

// leadsTop tells whether the top of the tree is what the root hash says.
func leadsTop(dev io.ReaderAt, p Params) (bool, error) {
	switch {
	case p.Blocks == 0 || p.Blocks > maxBlocks:
		return false, nil
	case p.Blocks == 1:
		return follow(dev, p, []uint64{0})
	}
	return follow(dev, p, []uint64{p.Blocks})
}

// follow hashes one block after the other, each of which begins with the hash of the
// next one.
func follow(dev io.ReaderAt, p Params, path []uint64) (bool, error) {
	s := newSummer(p.Salt, 1)
	want := p.Root
	for _, block := range path {
		sums, err := s.hashes(dev, block, 1)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("hash tree: %w", err)
		}
		if [sha256.Size]byte(sums) != want {
			return false, nil
		}
		want = [sha256.Size]byte(s.data)
	}
	return true, nil
}

// Verify reads the whole tree and all data and returns nil when every block matches.
// Otherwise the error is or wraps ErrTree, a BlockError that names the first bad block
// of data, or one of reading. It needs memory for the tree, 1/128 of the data, and
// reads dev from several goroutines at once.
func Verify(dev io.ReaderAt, p Params) error {
	if err := verify(dev, p); err != nil {
		return fmt.Errorf("verify %d blocks: %w", p.Blocks, err)
	}
	return nil
}

func verify(dev io.ReaderAt, p Params) error {
	leads, err := leadsTop(dev, p)
	if err != nil {
		return err
	}
	if !leads {
		return ErrTree
	}
	want := p.Root[:] // the hashes of the level that is next
	at := int64(p.Blocks) * BlockSize
	counts := levels(p.Blocks)
	for i := len(counts) - 1; i >= 0; i-- {
		level := make([]byte, counts[i]*BlockSize)
		if n, err := dev.ReadAt(level, at); n < len(level) {
			return fmt.Errorf("read hash tree: %w", err)
		}
		at += int64(len(level))
		bad, err := firstBad(bytesAt(level), counts[i], p.Salt, want)
		if err != nil {
			return err
		}
		if bad < counts[i] {
			return fmt.Errorf("%w: block %d of level %d does not match its hash", ErrTree, bad, i)
		}
		want = level
	}
	bad, err := firstBad(dev, p.Blocks, p.Salt, want)
	if bad < p.Blocks {
		err = errors.Join(BlockError{bad}, err)
	}
	return err
}

// firstBad returns the number of the first block whose hash is not the one in want,
// or blocks where there is none.
func firstBad(data io.ReaderAt, blocks uint64, salt [sha256.Size]byte, want []byte) (uint64, error) {
	var mu sync.Mutex // guards bad
	bad := blocks
	err := eachChunk(data, blocks, salt, func(first uint64, hashes []byte) bool {
		expected := want[first*sha256.Size:][:len(hashes)]
		if bytes.Equal(hashes, expected) {
			return true
		}
		for i := 0; i < len(hashes); i += sha256.Size {
			if !bytes.Equal(hashes[i:i+sha256.Size], expected[i:i+sha256.Size]) {
				mu.Lock()
				bad = min(bad, first+uint64(i)/sha256.Size)
				mu.Unlock()
				break
			}
		}
		return false
	})
	return bad, err
}
