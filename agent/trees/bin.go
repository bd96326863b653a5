package trees

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bin is where trees go that nobody wants any more. What a container made may be so deep or
// so much that removing it takes minutes: so it gets a name under which it is nobody's, and
// goes bit by bit, one after the other.
type Bin struct {
	// Folder is where they lie until they are gone, among others; their names begin with
	// [Discarded].
	Folder string
	// Remove removes a folder of very many files; nil: this process does.
	Remove func(ctx context.Context, folder string) error

	open     context.Context
	close    context.CancelFunc
	emptying sync.WaitGroup
	mu       sync.Mutex // held by the one who empties
}

// Discarded begins the name of what is being removed.
const Discarded = ".removed-"

// atOnce is how many entries are removed by this process, which for nearly all containers
// is all there is; for more it asks Remove.
const atOnce = 1000

// patience is how long somebody waits for the removal of what he had removed, so that he
// sees the space free, before it goes on without him.
const patience = 3 * time.Second

// OpenBin returns the bin in folder, which need not exist. Close it.
func OpenBin(folder string, remove func(ctx context.Context, folder string) error) *Bin {
	b := &Bin{Folder: folder, Remove: remove}
	b.open, b.close = context.WithCancel(context.Background())
	return b
}

// Close ends removals; what is left is for the next bin.
func (b *Bin) Close() {
	b.close()
	b.emptying.Wait()
}

// Discard puts a folder, which lies on the file system of the bin, into it. Whoever calls
// it lets [Bin.Empty] follow.
func (b *Bin) Discard(folder string) error {
	return os.Rename(folder, filepath.Join(b.Folder, Discarded+rand.Text()))
}

// Empty removes what is in the bin, and returns when that is done, or after a few seconds,
// or when ctx ends. It goes on by itself until the bin is closed.
func (b *Bin) Empty(ctx context.Context) {
	done := make(chan struct{})
	b.emptying.Go(func() {
		defer close(done)
		if err := b.empty(b.open); err != nil && b.open.Err() == nil {
			log.Print(err) // the next one tries again
		}
	})
	patience := time.NewTimer(patience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	case <-ctx.Done():
	}
}

func (b *Bin) empty(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	left, err := filepath.Glob(filepath.Join(b.Folder, Discarded+"*"))
	for _, path := range left {
		if strings.Contains(filepath.Base(path)[len(Discarded):], ".") {
			continue // a volume may have such a name: what is to be put into it, see package volumes
		}
		gone, some := Some(ctx, path, atOnce)
		switch {
		case some != nil:
			err = errors.Join(err, some)
		case gone || b.Remove == nil:
			err = errors.Join(err, All(ctx, path))
		default:
			err = errors.Join(err, b.Remove(ctx, path))
		}
	}
	return err
}

// Clear removes what is in a folder, or, where that is much, the folder with it: by way of
// the bin.
func (b *Bin) Clear(ctx context.Context, folder string) error {
	gone, err := Some(ctx, folder, atOnce)
	if err != nil || gone {
		return err
	}
	switch err := b.Discard(folder); {
	case errors.Is(err, unix.EXDEV), errors.Is(err, os.ErrNotExist): // it has no folder there
		return All(ctx, folder)
	case err != nil:
		return fmt.Errorf("discard: %w", err)
	}
	b.Empty(ctx)
	return nil
}
