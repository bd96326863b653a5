package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"syscall"
	"time"
)

// What the folder of intermediate results keeps: the results of some builds, so that
// going back and forth between two boards or two commits stays quick.
const (
	keepResults = 24
	keepBytes   = 4 << 30
	// keepFor is how long a result is safe from collection after its last use: a
	// build beside this one may be reading it.
	keepFor = 10 * time.Minute
)

// lockCache has builds that share a cache take turns: they write programs to the
// same places. It waits until the others are done or ctx is.
func lockCache(ctx context.Context, o Options) (unlock func(), err error) {
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("build cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(o.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("build cache: %w", err)
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("build cache: lock %s: %w", f.Name(), err)
		}
		if !told {
			o.Say("another build uses the cache: waiting for it")
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("build cache: wait for another build: %w", ctx.Err())
		}
	}
}

// cached returns the path of an intermediate result, made by build if it is not
// there. The name must say everything that the bytes depend on. A new result drives
// out old ones.
func cached(o Options, name string, build func(out string) error) (string, error) {
	dir := filepath.Join(o.Cache, "build")
	path := filepath.Join(dir, name)
	now := time.Now()
	if _, err := os.Stat(path); err == nil {
		return path, os.Chtimes(path, now, now) // so that what is in use is not collected
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, making)
	if err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := build(filepath.Join(tmp, name)); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(tmp, name), path); err != nil {
		return "", fmt.Errorf("build cache: %w", err)
	}
	return path, collect(dir, now)
}

// making begins the names of folders in which results are made.
const making = ".making-"

// collect removes the results that have not been used for longest, as far as there
// are too many or they are too large, and what a build that was killed has left.
func collect(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("build cache: %w", err)
	}
	type result struct {
		path  string
		bytes int64 // on the disk: results are sparse
		used  time.Time
	}
	var results []result
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // another build has removed it
		}
		r := result{path: filepath.Join(dir, e.Name()), bytes: info.Size(), used: info.ModTime()}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			r.bytes = st.Blocks * 512
		}
		results = append(results, r)
	}
	sort.Slice(results, func(i, j int) bool { return results[i].used.After(results[j].used) })
	var total int64
	for i, r := range results {
		total += r.bytes
		if (i < keepResults && total <= keepBytes) || now.Sub(r.used) < keepFor {
			continue
		}
		if err := os.RemoveAll(r.path); err != nil {
			return fmt.Errorf("build cache: %w", err)
		}
	}
	return nil
}
