package verity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Leads tells whether the top of the tree on dev leads to the root hash, by reading
// one block. It says nothing of what lies below: that is Verify's business, or the
// kernel's. A device too small for data and tree is a plain no; the error is one of
// reading.
func Leads(dev io.ReaderAt, p Params) (bool, error) {
	if p.Blocks == 0 || p.Blocks > maxBlocks {
		return false, nil
	}
	at := p.Blocks
	if p.Blocks == 1 {
		at = 0
	}
	sums, err := newSummer(p.Salt).hashes(dev, at, 1)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("top of the hash tree: %w", err)
	}
	return [sha256.Size]byte(sums) == p.Root, nil
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
	leads, err := Leads(dev, p)
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
