package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"kogge.example/agent/imageref"
	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

// Image is an image that the node has.
type Image struct {
	Name    string
	Digest  string
	Size    int64 // bytes, compressed, of what this platform needs; 0: some of it is missing
	Disk    int64 // bytes, compressed and unpacked, of all that is here; other images may share some
	Files   int64 // that are unpacked; 0 unless somebody had them counted
	Created time.Time
	Used    time.Time // last use, to the hour while it lasts; zero: never
	By      []string  // IDs of the containers that are wanted or there, and made from it
	Preload bool      // it comes from a preload
	Pulling bool
}

// ErrWants means that nobody can tell which containers are wanted: a project's file is
// refused by this release. Then nothing is removed.
var ErrWants = errors.New("the node's containers are not known")

// NotKnown stands for the containers then.
const NotKnown = "(not known)"

// Wants tells s how to find out which containers are wanted. It comes before the first
// call from another goroutine.
func (s *Store) Wants(list func() ([]workload.Container, error)) { s.wants = list }

func (s *Store) Wanted() ([]workload.Container, error) {
	if s.wants == nil {
		return nil, ErrWants
	}
	wanted, err := s.wants()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWants, err)
	}
	return wanted, nil
}

// Images lists the images of the node by name.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	ctx = s.context(ctx)
	known, err := s.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	by, err := s.usedBy(ctx)
	unsure := errors.Is(err, ErrWants)
	if err != nil && !unsure {
		return nil, err
	}
	pulling := s.pulls.names()
	// A container may be made from what another name stands for, too.
	for _, i := range known {
		if digest := i.Target().Digest.String(); !unsure {
			by[digest] = append(by[digest], by[i.Name()]...)
		}
	}
	var all []Image
	for _, i := range known {
		one := Image{
			Name: i.Name(), Digest: i.Target().Digest.String(), Created: i.Metadata().CreatedAt,
			Preload: i.Labels()[labelPreload] != "", Pulling: pulling[i.Name()],
		}
		if one.Size, err = i.Size(ctx); err != nil {
			one.Size = 0
		}
		if one.Disk, err = i.Usage(ctx, client.WithSnapshotUsage()); err != nil {
			one.Disk = one.Size
		}
		// What we did not write is as good as nothing.
		one.Used, _ = time.Parse(time.RFC3339, i.Labels()[labelUsed])
		one.By = slices.Compact(slices.Sorted(slices.Values(by[one.Digest])))
		if unsure {
			one.By = []string{NotKnown}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// usedBy returns which containers use an image: by name those that are wanted, by
// digest those that are there.
func (s *Store) usedBy(ctx context.Context) (map[string][]string, error) {
	wanted, err := s.Wanted()
	if err != nil {
		return nil, err
	}
	there, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	by := make(map[string][]string)
	for _, c := range wanted {
		by[c.Image] = append(by[c.Image], c.ID)
	}
	for _, f := range there {
		by[f.Image] = append(by[f.Image], f.ID)
	}
	return by, nil
}

// Load imports and unpacks the images of a tar (an OCI layout or what `docker save`
// writes; plain, or packed with gzip or zstd) and returns their names. One image that cannot be unpacked, or does not fit, fails
// all: each name stays with the image that it had, and what came is collected. What replaces
// a preload is not replaced by it at the next boot.
//
// After a power cut at any point each name stands for the old image, if there was one, or
// for the whole new one: (1) blobs, each synced; (2) layers unpacked, synced by file system;
// (3) the names, one by one, synced with containerd's metadata.
func (s *Store) Load(ctx context.Context, tar io.Reader) ([]string, error) {
	ctx = s.context(ctx)
	bounded := &roomy{Reader: tar}
	defer s.pulls.load(bounded)()
	if err := s.makeRoom(ctx, 0, nil); err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	load := &bounds{}
	load.allowed = &allowance{most: func() int64 { return loadedMost(bounded.sent.Load(), load.unpacked.sent.Load()) }}
	room := func(ctx context.Context) error { return s.makeRoom(ctx, 0, load.allowed) }
	bounded.room = func() error { return room(ctx) }
	load.unpacked.room = bounded.room
	var names []string
	err := whileRoom(ctx, loadEvery, room, func(ctx context.Context) (err error) {
		names, err = s.importTar(ctx, bounded, load, nil)
		return err
	})
	if full := cmp.Or(bounded.err, load.unpacked.err); full != nil {
		err = full
	}
	if err != nil {
		return nil, fmt.Errorf("load images: %w", registry.Full(err))
	}
	return names, nil
}

// bounds are those of a load: its tar, unpacked once, ends where the room does.
type bounds struct {
	unpacked roomy
	allowed  *allowance
}

// roomy is a reader that ends when there is no more room.
type roomy struct {
	io.Reader
	room func() error
	left int // bytes until it looks again
	sent atomic.Int64
	wait atomic.Bool // for bytes
	err  error
}

// come is r as a [flow].
func (r *roomy) come() (bytes int64, waits bool) { return r.sent.Load(), r.wait.Load() }

func (r *roomy) Read(p []byte) (int, error) {
	const every = 4 << 20
	if r.left <= 0 {
		if r.err = r.room(); r.err != nil {
			return 0, r.err
		}
		r.left = every
	}
	r.wait.Store(true)
	n, err := r.Reader.Read(p)
	r.wait.Store(false)
	r.left -= n
	r.sent.Add(int64(n))
	return n, err
}

// loadEvery is how often a load looks whether there is still room: 10 GB of zeros are 10 MB
// of a layer, and nobody said before how much comes.
const loadEvery = 100 * time.Millisecond

// whileRoom does something that takes room, and ends it when there is none: with the error
// of room then, which is asked every so often.
func whileRoom(ctx context.Context, every time.Duration, room, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := room(ctx); err != nil {
				cancel(err)
				return
			}
		}
	})
	defer watching.Wait()
	defer cancel(nil)
	err := do(ctx)
	if why := context.Cause(ctx); err != nil && why != nil && !errors.Is(why, context.Canceled) {
		return why
	}
	return err
}

// Forget removes an image by name; containers that run from it go on. The error
// wraps [workload.ErrNoImage] where there is none.
func (s *Store) Forget(ctx context.Context, name string) error {
	// First as it stands: an older release took from archives whatever they called an image.
	err := s.forget(ctx, name)
	if !errors.Is(err, workload.ErrNoImage) {
		return err
	}
	full, bad := imageref.Full(name)
	if bad != nil {
		return bad
	}
	return s.forget(ctx, full)
}

// forget removes the image that is stored under a name.
func (s *Store) forget(ctx context.Context, stored string) error {
	err := s.client.ImageService().Delete(s.context(ctx), stored, images.SynchronousDelete())
	if errdefs.IsNotFound(err) {
		err = workload.ErrNoImage
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", stored, err)
	}
	return nil
}
