package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

// Below a tenth of free space images go that nobody uses, so that the next one fits.
// Which ones is decided by expendable and spare, which are pure; makeRoom carries out.
// It runs before and during each pull and load, and every minute while none goes on; a pull that
// finds the disk full all the same has images removed one by one. Nobody knows before how
// much of what comes will be on the disk, and some is made to fill it: what a pull or load
// may have removed for it goes by how much it sends (pulledMost and loadedMost, pure too).

// labelUsed says when an image was last in use (RFC 3339), to the hour while it is.
const labelUsed = "kogge.example/used"

// notedEvery is how often the use of an image is written down.
const notedEvery = time.Hour

// reserve is the part of STATE that images leave free.
const reserve = 10 // one tenth

// space is that of the file system on which images lie, in bytes, and in the files that it
// can have: ext4 has a number of those for good.
type space struct{ free, size, freeFiles, files int64 }

// missing is how many bytes have to become free for need more; 0 or less: none.
func (s space) missing(need int64) int64 { return need + s.size/reserve - s.free }

// missingFiles is how many files have to go; 0 or less: none.
func (s space) missingFiles() int64 { return s.files/reserve - s.freeFiles }

// roomy says that need bytes more fit.
func (s space) roomy(need int64) bool { return s.missing(need) <= 0 && s.missingFiles() <= 0 }

// enough says whether need bytes fit, in words.
func (s space) enough(need int64) error {
	const mega = 1e6
	free, stay := float64(s.free)/mega, float64(s.size/reserve)/mega
	switch {
	case s.roomy(need):
		return nil
	case s.missing(need) <= 0:
		return fmt.Errorf("%w: it can have %d more files, of which %d are reserved", registry.ErrFull, s.freeFiles, s.files/reserve)
	case need == 0:
		return fmt.Errorf("%w: %.1f MB free, %.1f MB reserved", registry.ErrFull, free, stay)
	}
	return fmt.Errorf("%w: %.1f MB needed, %.1f MB free, %.1f MB reserved", registry.ErrFull, float64(need)/mega, free, stay)
}

// space returns that of the images, or nothing where no bound is set.
func (s *Store) space() (space, error) {
	if s.folder == "" {
		return space{}, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.folder, &st); err != nil {
		return space{}, fmt.Errorf("free space of %s: %w", s.folder, err)
	}
	block := int64(st.Bsize)
	return space{
		free: int64(st.Bavail) * block, size: int64(st.Blocks) * block, freeFiles: int64(st.Ffree), files: int64(st.Files),
	}, nil
}

// expendable are the images that may go, the one whose last use is longest ago first:
// no container is wanted or there that is made from it, it does not come from a
// preload, which the next boot would import again, and nobody is pulling it.
func expendable(all []Image) []Image {
	var may []Image
	for _, i := range all {
		if len(i.By) == 0 && !i.Preload && !i.Pulling {
			may = append(may, i)
		}
	}
	slices.SortFunc(may, func(a, b Image) int {
		return cmp.Or(a.last().Compare(b.last()), strings.Compare(a.Name, b.Name))
	})
	return may
}

// last is when an image was last used, or came.
func (i Image) last() time.Time {
	if i.Used.After(i.Created) {
		return i.Used
	}
	return i.Created
}

// spare is the image that goes first for need more bytes, if that is of use: with all
// that may go there would be room. Need 0 is the tenth that stays free, for which
// every bit is of use. Where files are what is missing, and images have not got them, none
// goes.
func spare(s space, need int64, all []Image) (Image, bool) {
	may := expendable(all)
	if s.roomy(need) || len(may) == 0 {
		return Image{}, false
	}
	most := s
	for _, i := range may {
		most.free += i.Disk // what two of them share is counted twice: it is the most
		most.freeFiles += i.Files
	}
	if need > 0 && most.missing(need) > 0 || s.missing(need) <= 0 && most.missingFiles() > 0 {
		return Image{}, false
	}
	return may[0], true
}

// allowance is how much may be removed for one pull or load.
type allowance struct {
	most func() int64 // bytes on the disk that what comes can take, as far as that is known
	gone int64        // bytes on the disk that were removed; guarded by Store.collecting
}

// packs is how many times as small a layer, or an archive, is when packed. About three times
// is common, and text and programs with symbols come near to this. What was made to fill a
// disk packs hundreds of times as small.
const packs = 8

// pulledMost is what an image may take on the disk of which sent bytes come: each layer is
// there packed, as it comes, and unpacked.
func pulledMost(sent int64) int64 { return (1 + packs) * sent }

// loadedMost is the same of an archive, which had so many bytes as it came, and so many when
// unpacked once. Its layers are in it packed or not: where they are not, they are on the disk
// twice, and the archive may be packed around them.
func loadedMost(sent, unpacked int64) int64 { return min(pulledMost(unpacked), 2*packs*sent) }

// used says that nothing more may be removed. The last image may be bigger than what is left
// of the allowance: it would not be of use in parts. nil allows all.
func (a *allowance) used() bool { return a != nil && a.gone >= a.most() }

func (a *allowance) take(i Image) {
	if a != nil {
		a.gone += i.Disk
	}
}

// makeRoom sees to it that need bytes more fit on the file system of the images beside
// the tenth that stays free: first it lets go of what pulls left that broke off, then
// of images. Where need is 0, and so all may be in vain, no more go than a allows.
func (s *Store) makeRoom(ctx context.Context, need int64, a *allowance) error {
	now, err := s.space()
	if err != nil || now.roomy(need) {
		return err
	}
	s.collecting.Lock()
	defer s.collecting.Unlock()
	ctx = s.context(ctx)
	if _, err := s.dropHalves(ctx); err != nil {
		return err
	}
	for gone := make(map[string]bool); ; {
		if now, err = s.space(); err != nil || now.roomy(need) {
			return err
		}
		all, err := s.Images(ctx)
		if err != nil {
			return fmt.Errorf("%w; %w", now.enough(need), err)
		}
		all = slices.DeleteFunc(all, func(i Image) bool { return gone[i.Name] }) // what is there again helps nobody
		if now.missingFiles() > 0 {
			s.countFiles(ctx, all)
		}
		i, ok := spare(now, need, all)
		if !ok || need == 0 && a.used() {
			return now.enough(need)
		}
		if err := s.drop(ctx, i); err != nil {
			return fmt.Errorf("%w; %w", now.enough(need), err)
		}
		a.take(i)
		gone[i.Name] = true
	}
}

// spareOne removes what broken pulls left or else the image that may go first, if there
// is one: for a pull that found the disk full between two looks at it, and took more than
// anybody could foresee, but no more than a allows.
func (s *Store) spareOne(ctx context.Context, a *allowance) (bool, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	if gone, err := s.dropHalves(ctx); gone || err != nil {
		return gone, err
	}
	if a.used() {
		return false, nil
	}
	all, err := s.Images(ctx)
	if err != nil {
		return false, err
	}
	now, err := s.space()
	if err != nil {
		return false, err
	}
	if now.missingFiles() > 0 {
		s.countFiles(ctx, all)
		i, ok := spare(now, 0, all)
		if !ok {
			return false, nil
		}
		a.take(i)
		return true, s.drop(ctx, i)
	}
	may := expendable(all)
	if len(may) == 0 {
		return false, nil
	}
	a.take(may[0])
	return true, s.drop(ctx, may[0])
}

// countFiles finds out how many files each image has unpacked.
func (s *Store) countFiles(ctx context.Context, all []Image) {
	snapshots := s.client.SnapshotService(Snapshotter)
	for n := range all {
		img, err := s.client.GetImage(ctx, all[n].Name)
		if err != nil {
			continue // it has gone meanwhile
		}
		layers, err := img.RootFS(ctx)
		if err != nil {
			continue // it is not here as a whole, and not unpacked
		}
		for _, id := range identity.ChainIDs(slices.Clone(layers)) {
			if u, err := snapshots.Usage(ctx, id.String()); err == nil {
				all[n].Files += u.Inodes
			}
		}
	}
}

// drop removes an image that may go.
func (s *Store) drop(ctx context.Context, i Image) error {
	if err := s.forget(ctx, i.Name); err != nil && !errors.Is(err, workload.ErrNoImage) {
		return err
	}
	log.Printf("image %s: removed to make room, last used %s", i.Name, i.last().UTC().Format(time.DateTime))
	return nil
}

// dropHalves lets go of what pulls left that are not under way, and says whether there
// was any.
func (s *Store) dropHalves(ctx context.Context) (gone bool, err error) {
	service := s.client.LeasesService()
	all, err := service.List(ctx, fmt.Sprintf("labels.%q", labelPull))
	if err != nil {
		return false, fmt.Errorf("list leases: %w", err)
	}
	pulling := s.pulls.names()
	for _, l := range all {
		if pulling[l.Labels[labelPull]] {
			continue
		}
		if err := service.Delete(ctx, l, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return gone, fmt.Errorf("lease: %w", err)
		}
		gone = true
		log.Printf("image %s: removed the remains of a broken pull to make room", l.Labels[labelPull])
	}
	return gone, nil
}

// Prune removes every image that may go and what broken pulls left, and returns the
// images and how much space that freed. With check it only says which images those are.
func (s *Store) Prune(ctx context.Context, check bool) (gone []Image, freed int64, err error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	all, err := s.Images(ctx)
	if err != nil {
		return nil, 0, err
	}
	before, err := s.space()
	may := expendable(all)
	if check || err != nil {
		return may, 0, err
	}
	if _, err := s.dropHalves(s.context(ctx)); err != nil {
		return nil, 0, err
	}
	for n, i := range may {
		if err := s.forget(ctx, i.Name); err != nil && !errors.Is(err, workload.ErrNoImage) {
			return may[:n], 0, err
		}
	}
	after, err := s.space()
	return may, max(0, after.free-before.free), err
}

// Tend keeps a tenth of the file system free, and notes which images are in use, once
// a minute until ctx ends.
func (s *Store) Tend(ctx context.Context) {
	used := make(map[string]bool) // at the last look
	for tick := time.NewTicker(time.Minute); ; {
		if err := s.tend(ctx, used, time.Now()); err != nil && ctx.Err() == nil {
			log.Printf("images: %v", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
	}
}

// tend is one round. Containerd may be away, and be back at the next.
func (s *Store) tend(ctx context.Context, used map[string]bool, now time.Time) error {
	all, err := s.Images(ctx)
	if err != nil {
		return nil
	}
	for _, i := range all {
		if slices.Contains(i.By, NotKnown) {
			continue
		}
		is, was := len(i.By) > 0, used[i.Name]
		used[i.Name] = is
		if is && now.Sub(i.Used).Abs() >= notedEvery || was && !is {
			note := images.Image{Name: i.Name, Labels: map[string]string{labelUsed: now.UTC().Format(time.RFC3339)}}
			if _, err := s.client.ImageService().Update(s.context(ctx), note, "labels."+labelUsed); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("record the use of %s: %w", i.Name, err)
			}
		}
	}
	if s.pulls.moving() {
		return nil // they see to it that there is room, or give up
	}
	if err := s.makeRoom(ctx, 0, nil); err != nil && !errors.Is(err, registry.ErrFull) {
		return err
	}
	return nil // that STATE is full, its numbers say
}
