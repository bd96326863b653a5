package workload

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
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	containerdlog "github.com/containerd/log"
	"github.com/distribution/reference"
	"golang.org/x/sync/semaphore"
)

// Why a pull is refused or fails for good; everything else may be better at the next
// try.
var (
	// ErrDenied means that the registry wants other credentials, or none would do.
	ErrDenied = errors.New("access denied")
	// ErrMissing means that the registry does not have the image.
	ErrMissing = errors.New("not in the registry")
	// ErrPlatform means that the image is not for this node.
	ErrPlatform = errors.New("image is for another platform")
	// ErrLie means that what came is not what was announced: other bytes than the
	// digest says, more than the size says, or no image at all.
	ErrLie = errors.New("registry sends something else than it announced")
	// ErrFull means that the image does not fit beside the tenth of STATE that stays
	// free.
	ErrFull = errors.New("not enough free space")
)

// Progress is how far a pull is, in bytes of the image as it travels. Total is 0 as
// long as it is not known. Once Done is Total, layers are still being unpacked.
type Progress struct{ Done, Total int64 }

// String is a line for people.
func (p Progress) String() string {
	const mega = 1e6
	switch {
	case p.Total == 0:
		return "pulling"
	case p.Done >= p.Total:
		return fmt.Sprintf("unpacking %.1f MB", float64(p.Total)/mega)
	}
	return fmt.Sprintf("pulling %.1f of %.1f MB", float64(p.Done)/mega, float64(p.Total)/mega)
}

// downloads is how many layers come at the same time, of all images together: each
// costs a connection and a MiB or two here and in containerd.
const downloads = 4

// reportEvery is how often a pull tells how far it is, and looks at the free space.
const reportEvery = 500 * time.Millisecond

// pulls are the images that are being pulled.
type pulls struct {
	once      sync.Once
	downloads *semaphore.Weighted
	unpacks   *semaphore.Weighted // as many layers at a time as there are processors

	mu      sync.Mutex // guards running
	running map[string]*pull
}

// join returns the pull of name, and whether it is a new one.
func (p *pulls) join(name string) (*pull, bool) {
	p.once.Do(func() {
		// Its lines would say beside ours what our errors say, with addresses in them
		// that a registry wrote.
		_ = containerdlog.SetLevel("error")
		p.downloads = semaphore.NewWeighted(downloads)
		p.unpacks = semaphore.NewWeighted(int64(min(runtime.NumCPU(), downloads)))
		p.running = map[string]*pull{}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if there := p.running[name]; there != nil {
		return there, false
	}
	p.running[name] = newPull(name)
	return p.running[name], true
}

// Pull asks the registry of the image ref for it, whether or not the node has one of
// that name, and unpacks it: what Start needs. report is called about twice a second,
// by the caller's goroutine. Of two that pull one image at a time one does it.
//
// A transfer that breaks off goes on where it stopped, at once and, after a power cut
// or an error, at the next Pull within a week; what is half there stays for that long.
// Pull waits for a network that is gone only for seconds: who wants the image tries
// again. After [ErrDenied], [ErrMissing], [ErrPlatform], [ErrLie] and [ErrFull] the
// collector takes what came. Errors do not repeat ref.
//
// After a power cut at any point the name stands for the old image, if there was one,
// or for the whole new one: (1) blobs, each synced; (2) layers unpacked, synced by file
// system; (3) the name, synced with containerd's metadata.
func (e *Engine) Pull(ctx context.Context, ref string, report func(Progress)) error {
	name, err := FullName(ref)
	if err != nil {
		return err
	}
	for {
		p, mine := e.pulls.join(name)
		if mine {
			go func() {
				p.err = e.pull(ctx, p)
				e.pulls.mu.Lock()
				delete(e.pulls.running, name)
				e.pulls.mu.Unlock()
				close(p.done)
			}()
		}
		err := p.follow(ctx, mine, report)
		if !mine && ctx.Err() == nil && errors.Is(err, context.Canceled) {
			continue // it was the other who gave up
		}
		return err
	}
}

// follow reports until p is done. Whose pull it is waits for its end in any case.
func (p *pull) follow(ctx context.Context, mine bool, report func(Progress)) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	leave := ctx.Done()
	if mine {
		leave = nil
	}
	report(p.progress())
	for {
		select {
		case <-p.done:
			return p.err
		case <-tick.C:
			report(p.progress())
		case <-leave:
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
func (e *Engine) pull(ctx context.Context, p *pull) error {
	registries, err := e.paths.Registries.Read()
	if err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(p.name)
	if err != nil {
		return err
	}
	host := reference.Domain(named)
	if err := e.room(0); err != nil {
		return err
	}
	p.store, p.room = e.client.ContentStore(), e.room
	ctx = e.context(ctx)
	lease, err := e.pullLease(ctx, p.name)
	if err != nil {
		return err
	}
	ctx = leases.WithLease(ctx, lease.ID)
	mirrors := len(registries[host].Mirrors) > 0
	var best int64
	for failed := 0; ; {
		err = e.pullOnce(ctx, p, registries, host, mirrors)
		if err == nil || ctx.Err() != nil {
			break
		}
		if mirrors && errors.Is(err, ErrLie) {
			log.Printf("image %s: %v; next try without mirrors", p.name, err)
			mirrors = false
			continue
		}
		if done := p.progress().Done; done > best {
			best, failed = done, 0
		}
		if failed++; failed == tries || !transient(err) {
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
	if kept := e.release(ctx, lease, err); kept != nil {
		log.Printf("image %s: what a pull left stays for now: %v", p.name, kept)
	}
	return err
}

// pullOnce is one try.
func (e *Engine) pullOnce(ctx context.Context, p *pull, registries Registries, host string, mirrors bool) error {
	servers, err := registries.open(host, mirrors)
	if err != nil {
		return err
	}
	defer servers.Close()
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return servers.hosts, nil },
		Headers: http.Header{"User-Agent": {"kogge"}},
	})
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.watch(ctx, cancel) })
	defer watching.Wait()
	defer cancel(nil)
	_, err = e.client.Pull(ctx, p.name,
		client.WithResolver(resolver),
		client.WithPullUnpack,
		client.WithPullSnapshotter(snapshotter),
		client.WithDownloadLimiter(e.pulls.downloads),
		client.WithUnpackOpts([]client.UnpackOpt{client.WithUnpackLimiter(e.pulls.unpacks)}),
		client.WithImageHandlerWrapper(p.check),
	)
	if err != nil && errors.Is(context.Cause(ctx), ErrFull) {
		return context.Cause(ctx)
	}
	return explain(err)
}

// keepHalf is how long the collector keeps what a broken pull left. Half of that is
// the least that a new try finds.
const keepHalf = 14 * 24 * time.Hour

// labelPull marks a lease with the image that is pulled under it.
const labelPull = "kogge.example/pull"

// pullLease returns the lease of the pulls of name: that of the last try, so that
// what this one left is still there, unless it ends soon.
func (e *Engine) pullLease(ctx context.Context, name string) (leases.Lease, error) {
	service := e.client.LeasesService()
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
func (e *Engine) release(ctx context.Context, lease leases.Lease, err error) error {
	var how []leases.DeleteOpt
	switch {
	case errors.Is(err, ErrFull):
		how = append(how, leases.SynchronousDelete)
	case err != nil && !final(err):
		return nil
	}
	if err := e.client.LeasesService().Delete(ctx, lease, how...); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}
