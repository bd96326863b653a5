// Package entropy carries randomness from one boot to the next, so that a small
// board does not wait for minutes before it can make its first key.
//
// In comes the seed file on STATE; out go its bytes, hashed, into the kernel's pool,
// and a new seed in its place. No flashed image has one: a seed that two nodes share
// is none. What the kernel gathers from the processor, the firmware and interrupts
// is left to it.
package entropy

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"kogge.example/update/durable"
)

// Size is how long a seed file is, in bytes.
const Size = 512

// credit is the entropy that a seed counts for, in bits: as much as the kernel's
// pool holds, and far less than a good seed has.
const credit = 256

// ErrNotReady means that the kernel's pool has not gathered enough yet.
var ErrNotReady = errors.New("the kernel has not gathered enough randomness yet")

// files is a file system that can lose power. The real one is osFiles; tests have
// one in memory.
type files interface {
	// Read returns the content of a regular file, at most Size+1 bytes of it.
	Read(name string) ([]byte, fs.FileMode, error)
	// Replace puts a file of mode 0600 in the place of an old one: whole or not at
	// all, and for good once it returns.
	Replace(name string, data []byte) error
}

// pool is the kernel's random number generator.
type pool interface {
	// Random fills b. Without wait it takes what there is, however little; with it,
	// ErrNotReady means that it is too little.
	Random(b []byte, ready bool) error
	// Add mixes data in and counts it as so many bits.
	Add(data []byte, bits int) error
}

// Load puts the seed of the last boot into the kernel's pool, and says whether it
// counted. Without a file there is nothing to do and no error; a file of the wrong
// size or mode is an error, is not used, and is replaced by the next Save.
//
// A seed is never used twice, wherever the power is cut:
//
//  1. read the old seed
//  2. replace it by the next one, made from the old one and what the pool has
//  3. only now give the old one to the pool
//
// If 2 fails, it is mixed in without counting.
func Load(file string) (counted bool, err error) { return load(osFiles{}, kernelPool{}, file) }

// Save writes a new seed, for shutdown and, where there is none, for once the pool
// is ready. After a power cut at any point the file is the old one or the new one.
// The error is [ErrNotReady] if the pool is not; Save does not wait.
func Save(file string) error { return save(osFiles{}, kernelPool{}, file) }

func load(fsys files, p pool, file string) (bool, error) {
	old, mode, err := fsys.Read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("load seed: %w", err)
	case !mode.IsRegular() || mode.Perm()&0o077 != 0:
		return false, fmt.Errorf("load seed: %s has mode %s: others could have read it", file, mode)
	case len(old) != Size:
		return false, fmt.Errorf("load seed: %s is not %d bytes long", file, Size)
	case bytes.Count(old, old[:1]) == Size:
		return false, fmt.Errorf("load seed: %s is one byte repeated", file)
	}
	fresh := make([]byte, 64)
	bits := credit
	if err = p.Random(fresh, false); err == nil {
		err = fsys.Replace(file, derive("next", old, fresh, Size))
	}
	if err != nil {
		bits, err = 0, fmt.Errorf("replace seed: %w", err)
	}
	// What is used is no part of what lies on the disk next: neither tells the other.
	if addErr := p.Add(derive("use", old, nil, 64), bits); addErr != nil {
		return false, errors.Join(err, fmt.Errorf("add seed to the kernel's pool: %w", addErr))
	}
	return bits > 0, err
}

func save(fsys files, p pool, file string) error {
	seed := make([]byte, Size)
	if err := p.Random(seed, true); err != nil {
		return fmt.Errorf("save seed: %w", err)
	}
	if err := fsys.Replace(file, seed); err != nil {
		return fmt.Errorf("save seed: %w", err)
	}
	return nil
}

// derive makes size bytes from a seed for one purpose: SHA-512 over a counter, the
// purpose and the inputs.
func derive(purpose string, seed, fresh []byte, size int) []byte {
	var out []byte
	for counter := uint32(0); len(out) < size; counter++ {
		h := sha512.New()
		_ = binary.Write(h, binary.BigEndian, counter) // a hash takes everything
		fmt.Fprintf(h, "kogge/seed/v1/%s\n", purpose)
		h.Write(seed)
		h.Write(fresh)
		out = h.Sum(out)
	}
	return out[:size]
}

// kernelPool is the kernel's random number generator.
type kernelPool struct{}

// Random reads getrandom(2).
func (kernelPool) Random(b []byte, ready bool) error {
	flags := unix.GRND_INSECURE
	if ready {
		flags = unix.GRND_NONBLOCK
	}
	for len(b) > 0 {
		n, err := unix.Getrandom(b, flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return ErrNotReady
		case err != nil:
			return fmt.Errorf("getrandom: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// Add is RNDADDENTROPY of random(4). Its struct rand_pool_info has the bits, the
// length, and the data behind them.
func (kernelPool) Add(data []byte, bits int) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if bits == 0 {
		_, err := f.Write(data)
		return err
	}
	// Whole words, so that the kernel's integers are aligned.
	info := make([]int32, 2+(len(data)+3)/4)
	info[0], info[1] = int32(bits), int32(len(data))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&info[2])), len(data)), data)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// osFiles is the file system of the machine.
type osFiles struct{}

func (osFiles) Read(name string) ([]byte, fs.FileMode, error) {
	// Not a link to somewhere else, and no waiting for a pipe's other end.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, fs.ModeIrregular, err
	}
	data, err := io.ReadAll(io.LimitReader(f, Size+1))
	return data, info.Mode(), err
}

func (osFiles) Replace(name string, data []byte) error { return durable.Replace(name, data, 0o600) }
