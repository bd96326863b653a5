package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	containerdlog "github.com/containerd/log"
	"github.com/distribution/reference"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"kogge.example/agent/imageref"
	"kogge.example/agent/registry"
	"kogge.example/agent/workload"
)

// reportEvery is how often a pull tells how far it is, and looks at the free space.
const reportEvery = 500 * time.Millisecond

// pulls are the images that are being pulled.
type pulls struct {
	once      sync.Once
	downloads *semaphore.Weighted
	unpacks   *semaphore.Weighted // as many layers at a time as there are processors

	mu      sync.Mutex // guards what follows, and waiting of every pull
	running map[wish]*pull
	loads   map[*roomy]bool // that are under way
	seen    map[flow]int64  // bytes that each had at the last call of moving
	loading map[string]int  // names of the images that they unpack
}

// wish is what can be pulled: an image by its full name, for a platform ("": this
// node's).
type wish struct{ name, platform string }

// join adds somebody who waits to the pull of w, which do does if it is a new one.
// That ends when nobody waits any more; until then its end is nobody's but its own.
func (p *pulls) join(ctx context.Context, w wish, do func(context.Context, *pull) error) *pull {
	p.once.Do(func() {
		// Its lines would say beside ours what our errors say, with addresses in them
		// that a registry wrote.
		_ = containerdlog.SetLevel("error")
		p.downloads = semaphore.NewWeighted(registry.MaxDownloads)
		p.unpacks = semaphore.NewWeighted(int64(min(runtime.NumCPU(), registry.MaxDownloads)))
		p.running = map[wish]*pull{}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if there := p.running[w]; there != nil {
		there.waiting++
		return there
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	one := newPull(w, cancel)
	p.running[w] = one
	go func() {
		defer cancel()
		one.err = do(ctx, one)
		p.mu.Lock()
		delete(p.running, w)
		p.mu.Unlock()
		close(one.done)
	}()
	return one
}

// leave is for somebody who waits no more. The last one ends the pull, and waits for
// that.
func (p *pulls) leave(one *pull) {
	p.mu.Lock()
	one.waiting--
	last := one.waiting == 0
	p.mu.Unlock()
	if last {
		one.cancel()
		<-one.done
	}
}

// names are the images that are being pulled, or loaded.
func (p *pulls) names() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make(map[string]bool)
	for w := range p.running {
		names[w.name] = true
	}
	for name := range p.loading {
		names[name] = true
	}
	return names
}

// flow is a pull or load that is under way. It says how many bytes it has, and whether it
// waits for more; it unpacks else.
type flow interface {
	come() (bytes int64, waits bool)
}

// moving says whether a pull or load goes on: it began after the last call, has got bytes since,
// or waits for none. One that stands still may do so for an hour.
func (p *pulls) moving() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, moving := make(map[flow]int64), false
	look := func(f flow) {
		bytes, waits := f.come()
		before, known := p.seen[f]
		now[f] = bytes
		moving = moving || !known || !waits || bytes != before
	}
	for _, one := range p.running {
		look(one)
	}
	for one := range p.loads {
		look(one)
	}
	p.seen = now
	return moving
}

// load notes that a load begins; the caller says when it ends.
func (p *pulls) load(one *roomy) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loads == nil {
		p.loads = make(map[*roomy]bool)
	}
	p.loads[one] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.loads, one)
	}
}

// hold keeps the images of these names from being removed to make room, until the caller
// lets go: a load that fails leaves them as they are.
func (p *pulls) hold(all []images.Image) (letGo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loading == nil {
		p.loading = make(map[string]int)
	}
	for _, i := range all {
		p.loading[i.Name]++
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, i := range all {
			if p.loading[i.Name]--; p.loading[i.Name] == 0 {
				delete(p.loading, i.Name)
			}
		}
	}
}

// Pull asks the registry of the image ref for it, whether or not the node has one of
// that name, and unpacks it: what Start needs. platform is for images that there are
// several of ("": the one for this node). report is called about twice a second, by the
// caller's goroutine. Of those that pull one image at a time one does it, and goes on
// for as long as one of them waits.
//
// A transfer that breaks off goes on where it stopped, at once and, after a power cut
// or an error, at the next Pull within a week; what is half there stays for that long.
// Pull waits for a network that is gone only for seconds: who wants the image tries
// again. After one of package registry's errors the collector takes what came. Errors do
// not repeat ref.
//
// After a power cut at any point the name stands for the old image, if there was one,
// or for the whole new one: (1) blobs, each synced; (2) layers unpacked, synced by file
// system; (3) the name, synced with containerd's metadata.
func (s *Store) Pull(ctx context.Context, ref, platform string, report func(workload.Progress)) error {
	name, err := imageref.Full(ref)
	if err != nil {
		return err
	}
	if err := RunsHere(platform); err != nil {
		return err
	}
	for {
		p := s.pulls.join(ctx, wish{name, platform}, s.pull)
		err := p.follow(ctx, report)
		s.pulls.leave(p)
		if ctx.Err() == nil && errors.Is(err, context.Canceled) {
			continue // it was ending when we came
		}
		return err
	}
}

// follow reports until p is done, or its caller waits no more.
func (p *pull) follow(ctx context.Context, report func(workload.Progress)) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	report(p.progress())
	for {
		select {
		case <-p.done:
			report(p.progress())
			return p.err
		case <-tick.C:
			report(p.progress())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Tries without any progress before a pull gives up, and the pause before the second.
const (
	tries = 3
	pause = 250 * time.Millisecond
)

// pull does the work of Pull.
func (s *Store) pull(ctx context.Context, p *pull) error {
	registries, err := s.registries.Read()
	if err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(p.name)
	if err != nil {
		return err
	}
	host := reference.Domain(named)
	if err := s.makeRoom(ctx, 0, nil); err != nil {
		return err
	}
	p.allowed = &allowance{most: func() int64 { return pulledMost(p.progress().Total) }}
	p.store, p.room = s.client.ContentStore(), func(ctx context.Context, need int64) error { return s.makeRoom(ctx, need, p.allowed) }
	ctx = s.context(ctx)
	lease, err := s.pullLease(ctx, p.name)
	if err != nil {
		return err
	}
	ctx = leases.WithLease(ctx, lease.ID)
	mirrors := len(registries[host].Mirrors) > 0
	var best int64
	for failed := 0; ; {
		err = s.pullOnce(ctx, p, registries, host, mirrors)
		if err == nil || ctx.Err() != nil {
			break
		}
		if mirrors && errors.Is(err, registry.ErrLie) {
			log.Printf("image %s: %v; next try without mirrors", p.name, err)
			mirrors = false
			continue
		}
		if errors.Is(err, unix.ENOSPC) {
			var more bool
			if more, err = s.moreRoom(ctx, p, err); more {
				continue
			}
			break
		}
		if done := p.progress().Done; done > best {
			best, failed = done, 0
		}
		if failed++; failed == tries || !registry.Transient(err) {
			break
		}
		log.Printf("image %s: %v; next try in %s", p.name, err, pause<<failed)
		select {
		case <-time.After(pause << failed):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // what is there is for the next try
	}
	if kept := s.release(ctx, lease, err); kept != nil {
		log.Printf("image %s: the remains of a pull stay for now: %v", p.name, kept)
	}
	return err
}

// moreRoom removes an image after a pull found the disk full, and says whether that may
// have helped; else it returns why not.
func (s *Store) moreRoom(ctx context.Context, p *pull, full error) (bool, error) {
	gone, err := s.spareOne(ctx, p.allowed)
	if err != nil {
		return false, fmt.Errorf("%w; %w", full, err)
	}
	if gone {
		log.Printf("image %s: %v; next try with more room", p.name, full)
	}
	return gone, full
}

// pullOnce is one try.
func (s *Store) pullOnce(ctx context.Context, p *pull, registries registry.Registries, host string, mirrors bool) error {
	servers, err := registries.Open(host, mirrors, p.from)
	if err != nil {
		return err
	}
	defer servers.Close()
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return servers.Hosts, nil },
		Headers: http.Header{"User-Agent": {"kogge"}},
	})
	kept, err := s.keptLabels(ctx, p.name)
	if err != nil {
		return err
	}
	err = whileRoom(ctx, reportEvery, func(ctx context.Context) error { return p.room(ctx, 0) }, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() { p.watch(ctx) })
		defer watching.Wait()
		defer cancel()
		return s.fetch(ctx, p, resolver, kept)
	})
	if errors.Is(err, registry.ErrFull) {
		return err // of the one who watches
	}
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return fmt.Errorf("%s: %w", host, registry.Explain(err))
	}
	return registry.Explain(err)
}

// fetch has containerd pull and unpack the image.
func (s *Store) fetch(ctx context.Context, p *pull, resolver remotes.Resolver, kept map[string]string) error {
	_, err := s.client.Pull(ctx, p.name,
		client.WithPlatformMatcher(p.platform),
		client.WithPullLabels(kept),
		client.WithResolver(resolver),
		client.WithPullUnpack,
		client.WithPullSnapshotter(Snapshotter),
		client.WithDownloadLimiter(s.pulls.downloads),
		client.WithUnpackOpts([]client.UnpackOpt{client.WithUnpackLimiter(s.pulls.unpacks)}),
		client.WithImageHandlerWrapper(p.check),
	)
	return err
}

// keptLabels are those of an image that outlive a pull of it. What takes the place of a
// preload is not replaced by it at the next boot.
func (s *Store) keptLabels(ctx context.Context, name string) (map[string]string, error) {
	old, err := s.client.ImageService().Get(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("image: %w", err)
	}
	kept := make(map[string]string)
	for _, label := range []string{labelPreload, labelUsed} {
		if value := old.Labels[label]; value != "" {
			kept[label] = value
		}
	}
	return kept, nil
}

// keepHalf is how long the collector keeps what a broken pull left. Half of that is
// the least that a new try finds.
const keepHalf = 14 * 24 * time.Hour

// labelPull marks a lease with the image that is pulled under it.
const labelPull = "kogge.example/pull"

// pullLease returns the lease of the pulls of name: that of the last try, so that
// what this one left is still there, unless it ends soon.
func (s *Store) pullLease(ctx context.Context, name string) (leases.Lease, error) {
	service := s.client.LeasesService()
	old, err := service.List(ctx, fmt.Sprintf("labels.%q==%q", labelPull, name))
	if err != nil {
		return leases.Lease{}, fmt.Errorf("list leases: %w", err)
	}
	i := slices.IndexFunc(old, func(l leases.Lease) bool {
		left := time.Until(l.CreatedAt.Add(keepHalf))
		return left > keepHalf/2 && left <= keepHalf // a clock that was set back
	})
	if i >= 0 {
		return old[i], nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, time.Now().UnixNano()))
	lease, err := service.Create(ctx, leases.WithID("kogge-pull-"+hex.EncodeToString(sum[:8])),
		leases.WithExpiration(keepHalf), leases.WithLabel(labelPull, name))
	if err != nil {
		return leases.Lease{}, fmt.Errorf("lease: %w", err)
	}
	return lease, nil
}

// release gives back what a pull that ended with err held: all of it, unless the
// next try can go on there. After ErrFull the collector has run when it returns.
func (s *Store) release(ctx context.Context, lease leases.Lease, err error) error {
	var how []leases.DeleteOpt
	switch {
	case errors.Is(err, registry.ErrFull):
		how = append(how, leases.SynchronousDelete)
	case err != nil && !registry.Final(err):
		return nil
	}
	if err := s.client.LeasesService().Delete(ctx, lease, how...); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}
