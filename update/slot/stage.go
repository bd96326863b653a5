package slot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"kogge.example/update/armings"
	"kogge.example/update/bootloader"
	"kogge.example/update/fat"
	"kogge.example/update/memory"
	"kogge.example/update/verity"
)

// pace is how a root is written, in bytes.
type pace struct {
	chunk int64 // are in memory, and are written at once
	sync  int64 // may be lost at a cut
}

var usual = pace{chunk: 1 << 20, sync: 16 << 20}

// Progress is told how many bytes of the whole release are in the slot.
type Progress func(part string, done, total int64)

// Stage puts a release into the slot that does not run, and leaves the loader without an
// entry for it: Arm comes later. It refuses, with one of the errors of this package and
// before it writes anything, what could not run, what must not, and every release while
// the running slot is on trial. What fails later leaves the slot retired.
//
// A cut, or an error, leaves the slot as it was, retired with some of the release in it,
// or staged. Stage with the same release goes on where it was:
//
//  1. the number of armings, remembered, which the loader forgets at step 2; the release
//     that an image brought, as the first one that was blessed;
//     what is to be written, remembered: from here on nobody takes the slot for whole
//  2. retired: the loader's Retire, the trial forgotten, the first block of the root
//     zeroed, sync. A root without its first block is no root to anybody: see verity.Leads
//  3. the parts in their order, hashed on the way: boot files by the loader's Install;
//     the root from its second block on, a sync and a note of how far it is every 16 MiB
//  4. the first block of the root, sync
//  5. caches dropped, everything read back: the root through its hash tree, boot files by
//     their SHA-256
//  6. remembered as whole
//
// A sync that fails is the end of the attempt, because what the disk holds then is
// unknown: the next one begins with step 2.
func Stage(ctx context.Context, d Disk, m memory.Folder, r Release, by Authorisation, progress Progress) error {
	if err := d.permit(m, r.Digest, by); err != nil {
		return fmt.Errorf("stage release %s in slot %s: %w", r.Version, d.target(), err)
	}
	return stage(ctx, d, m, r, progress, usual)
}

func stage(ctx context.Context, d Disk, m memory.Folder, r Release, progress Progress, p pace) error {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	s := &staging{Disk: d, memory: m, release: r, slot: d.target(), root: d.Roots[d.target()], progress: progress, pace: p}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("stage release %s in slot %s: %w", r.Version, s.slot, err)
	}
	return nil
}

type staging struct {
	Disk
	memory   memory.Folder
	release  Release
	slot     bootloader.Slot
	root     Root
	progress Progress
	pace     pace
	record   memory.Staged
	done     int64
}

func (s *staging) run(ctx context.Context) error {
	if err := s.admit(s.memory, s.release); err != nil {
		return err
	}
	running := s.Roots[s.Running]
	if same, err := verity.Leads(running, s.release.Verity); err != nil {
		return fmt.Errorf("running slot: %w", err)
	} else if same {
		return ErrSameRoot
	}
	ready, err := s.begin(ctx)
	if err != nil || ready {
		return err
	}
	for _, p := range s.release.Parts {
		if p.Name == RootPart {
			err = s.writeRoot(ctx, p)
		} else {
			err = s.writeBoot(ctx, p)
		}
		if err != nil {
			return s.failed(fmt.Errorf("part %s: %w", p.Name, err))
		}
	}
	if err := s.readBack(ctx); err != nil {
		return s.failed(fmt.Errorf("read back: %w", err))
	}
	s.record.Whole, s.record.Written, s.record.First = true, 0, nil
	return s.remember()
}

// failed notes that nothing of the slot can be used again, where that is so.
func (s *staging) failed(err error) error {
	if errors.Is(err, ErrSync) || errors.Is(err, ErrContent) {
		s.record.Written, s.record.First = 0, nil
		err = errors.Join(err, s.remember())
	}
	return err
}

// remember writes what there is of the release in the slot.
func (s *staging) remember() error {
	records, err := memory.ReadStaged(s.memory)
	if err != nil {
		return err
	}
	records[s.slot] = &s.record
	return memory.WriteStaged(s.memory, records)
}

// begin finds out how much of the release is in the slot already, and retires the slot
// if that is nothing. ready: all of it is there, and is what it should be.
func (s *staging) begin(ctx context.Context) (ready bool, err error) {
	records, err := memory.ReadStaged(s.memory)
	if err != nil {
		return false, err
	}
	var state bootloader.State
	err = s.Boot.Read(func(v *fat.Volume) (err error) {
		state, err = s.Loader.State(v)
		return err
	})
	if err != nil {
		return false, err
	}
	r := s.release
	s.record = memory.Staged{Release: r.Version, Digest: r.Digest, Board: r.Board, Counter: r.Counter, Verity: r.Verity.String(), Schema: r.Schema}
	old := records[s.slot]
	if old != nil && old.Digest == r.Digest && old.Verity == s.record.Verity {
		if old.Whole && s.readBack(ctx) == nil {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if old.Written > 0 && !old.Whole && !state.Of(s.slot).Present {
			s.record.Written, s.record.First = old.Written, old.First
			return false, nil
		}
	}
	now := s.Disk.record(state.Of(s.Running))
	if before := records[s.Running]; s.Verity.Blocks > 0 && (before == nil || before.Verity != now.Verity) {
		records[s.Running] = now
	}
	records[s.slot] = &s.record
	if err := armings.Keep(s.memory, state); err != nil {
		return false, err
	}
	return false, s.retire(records)
}

// record is what can be said of the running slot where no update has put it there: enough
// to go back to it, even if its entry is lost.
func (d Disk) record(e bootloader.Entry) *memory.Staged {
	return &memory.Staged{Release: e.Version, Board: d.Board, Counter: d.Counter, Verity: d.Verity.String(), Schema: d.Schema, Whole: true}
}

// retire is steps 1 and 2.
func (s *staging) retire(records map[bootloader.Slot]*memory.Staged) error {
	if err := memory.StartFloor(s.memory, s.Counter); err != nil {
		return err
	}
	if err := memory.WriteStaged(s.memory, records); err != nil {
		return err
	}
	if err := s.forget(s.memory); err != nil {
		return err
	}
	if err := s.writeAt(make([]byte, verity.BlockSize), 0); err != nil {
		return err
	}
	return s.sync()
}

func (s *staging) writeAt(b []byte, offset int64) error {
	if _, err := s.root.WriteAt(b, offset); err != nil {
		return fmt.Errorf("%w: write %d bytes at %d of the root partition: %w", ErrSync, len(b), offset, err)
	}
	return nil
}

func (s *staging) sync() error {
	if err := s.root.Sync(); err != nil {
		return fmt.Errorf("%w: root partition: %w", ErrSync, err)
	}
	return nil
}

// writeBoot writes a boot file, unless it lies there already.
func (s *staging) writeBoot(ctx context.Context, p Part) error {
	if sum, size, err := s.bootSum(ctx, p.Name); err == nil && size == p.Size && sum == p.SHA256 {
		s.tell(p, p.Size)
		return nil
	}
	body, err := p.Open(ctx, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer body.Close()
	sum := sha256.New()
	content := &partReader{ctx: ctx, body: io.LimitReader(body, p.Size+1), sum: sum, tell: func(n int64) { s.progress(p.Name, s.done+n, s.total()) }}
	// A slow source must not hold the boot partition from others, such as PID 1.
	whole, err := memfile(p.Name, content)
	if err != nil {
		return err
	}
	defer whole.Close()
	switch {
	case content.read > p.Size:
		return fmt.Errorf("%w: it is longer than the %d bytes announced", ErrContent, p.Size)
	case content.read < p.Size:
		return fmt.Errorf("it ends after %d of %d bytes: %w", content.read, p.Size, io.ErrUnexpectedEOF)
	case [sha256.Size]byte(sum.Sum(nil)) != p.SHA256:
		return fmt.Errorf("%w: its SHA-256 is %x, signed is %x", ErrContent, sum.Sum(nil), p.SHA256)
	}
	err = s.Boot.Edit(func(v *fat.Volume) error {
		return s.Loader.Install(v, s.slot, p.Name, p.Size, whole, time.Time{})
	})
	switch {
	case errors.Is(err, fat.ErrFull):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	s.tell(p, p.Size)
	return nil
}

// tell counts a part that is done.
func (s *staging) tell(p Part, n int64) {
	s.done += n
	s.progress(p.Name, s.done, s.total())
}

func (s *staging) total() int64 {
	var sum int64
	for _, p := range s.release.Parts {
		sum += p.Size
	}
	return sum
}

// partReader hashes what is read of a part, keeps the error that it ended with, and ends
// with the context.
type partReader struct {
	ctx  context.Context
	body io.Reader
	sum  hash.Hash
	read int64
	tell func(int64)
	err  error // of the source, not its end
}

func (r *partReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, err
	}
	n, err := r.body.Read(p)
	r.sum.Write(p[:n])
	if r.read += int64(n); n > 0 {
		r.tell(r.read)
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// bootSum hashes a boot file that lies in the slot.
func (s *staging) bootSum(ctx context.Context, name string) (sum [sha256.Size]byte, size int64, err error) {
	err = s.Boot.Read(func(v *fat.Volume) error {
		r, err := s.Loader.Open(v, s.slot, name)
		if err != nil {
			return err
		}
		size = r.Size()
		sum, err = hashAll(ctx, r)
		return err
	})
	return sum, size, err
}

func hashAll(ctx context.Context, r io.Reader) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			return [sha256.Size]byte(h.Sum(nil)), nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// writeRoot is steps 3 and 4 for the root.
func (s *staging) writeRoot(ctx context.Context, p Part) error {
	from := s.record.Written
	if from <= verity.BlockSize || from >= p.Size || from%verity.BlockSize != 0 {
		from = 0
	}
	body, err := p.Open(ctx, from)
	if err != nil {
		return fmt.Errorf("open at byte %d: %w", from, err)
	}
	defer body.Close()
	sum := sha256.New()
	at := from
	if from == 0 {
		first := make([]byte, verity.BlockSize)
		if _, err := readFull(ctx, body, first); err != nil {
			return err
		}
		s.record.First, at = first, verity.BlockSize
		sum.Write(first)
	} else {
		sum.Write(s.record.First)
		if err := s.hashWritten(ctx, sum, at); err != nil {
			return err
		}
	}
	if err := s.stream(ctx, p, body, sum, at); err != nil {
		return err
	}
	if got := [sha256.Size]byte(sum.Sum(nil)); got != p.SHA256 {
		err := fmt.Errorf("%w: its SHA-256 is %x, signed is %x", ErrContent, got, p.SHA256)
		if from == 0 {
			return err
		}
		// What an earlier attempt left may have been wrong, and not what came now.
		s.record.Written, s.record.First = 0, nil
		if remembered := s.remember(); remembered != nil {
			return errors.Join(err, remembered)
		}
		return s.writeRoot(ctx, p)
	}
	if err := s.sync(); err != nil {
		return err
	}
	if err := s.writeAt(s.record.First, 0); err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	s.tell(p, p.Size)
	return nil
}

// hashWritten hashes what an earlier attempt has written behind the first block.
func (s *staging) hashWritten(ctx context.Context, sum hash.Hash, end int64) error {
	buf := make([]byte, s.pace.chunk)
	for at := int64(verity.BlockSize); at < end; at += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = buf[:min(int64(len(buf)), end-at)]
		if n, err := s.root.ReadAt(buf, at); n < len(buf) {
			return fmt.Errorf("%w: read what an earlier attempt wrote: %w", ErrSync, err)
		}
		sum.Write(buf)
	}
	return nil
}

// stream copies the part from byte at on. What fails leaves a note of how far it came,
// so that the next attempt goes on from there.
func (s *staging) stream(ctx context.Context, p Part, body io.Reader, sum hash.Hash, at int64) error {
	buf := make([]byte, s.pace.chunk)
	synced := at
	note := func() error {
		if err := s.sync(); err != nil {
			return err
		}
		synced, s.record.Written = at, at
		return s.remember()
	}
	for at < p.Size {
		part := buf[:min(s.pace.chunk-at%s.pace.chunk, p.Size-at)] // whole chunks of the partition
		n, err := readFull(ctx, body, part)
		if err != nil {
			n -= n % verity.BlockSize // what came, as far as it is whole blocks
		}
		if n > 0 {
			sum.Write(part[:n])
			if err := s.writeAt(part[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("after %d of %d bytes: %w", at, p.Size, err), note())
		}
		if at-synced >= s.pace.sync {
			if err := note(); err != nil {
				return err
			}
		}
		s.progress(p.Name, s.done+at, s.total())
	}
	if n, err := readFull(ctx, body, make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: it is longer than the %d bytes announced", ErrContent, p.Size)
	} else if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
}

// readFull is io.ReadFull with one error for an early end, and none after the context's.
func readFull(ctx context.Context, r io.Reader, b []byte) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = fmt.Errorf("read: %w", err)
	}
	return n, err
}

// dropper is a device that can forget what it has in memory of the disk.
type dropper interface{ DropCaches() error }

// readBack is step 5.
func (s *staging) readBack(ctx context.Context) error {
	for _, device := range []any{s.root.Device, s.Boot} {
		if d, ok := device.(dropper); ok {
			if err := d.DropCaches(); err != nil {
				return fmt.Errorf("%w: %w", ErrSync, err)
			}
		}
	}
	for _, p := range s.release.Parts {
		if p.Name == RootPart {
			if err := verity.Verify(s.root, s.release.Verity); err != nil {
				return fmt.Errorf("%w: part %s: %w", ErrContent, p.Name, err)
			}
			continue
		}
		sum, size, err := s.bootSum(ctx, p.Name)
		if err != nil {
			return fmt.Errorf("part %s: %w", p.Name, err)
		}
		if size != p.Size || sum != p.SHA256 {
			return fmt.Errorf("%w: part %s", ErrContent, p.Name)
		}
	}
	return nil
}
