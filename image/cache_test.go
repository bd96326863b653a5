package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCollect(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	put := func(name string, age time.Duration) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("result"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range keepResults + 10 {
		put(fmt.Sprintf("old-%02d", i), 2*time.Hour+time.Duration(i)*time.Minute)
	}
	for i := range 3 {
		put(fmt.Sprintf("new-%d", i), time.Minute)
	}
	if err := collect(dir, now); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != keepResults {
		t.Errorf("%d results stay, want %d", len(entries), keepResults)
	}
	for _, e := range entries {
		if e.Name() > fmt.Sprintf("old-%02d", keepResults-4) {
			t.Errorf("%s stays, which was used longer ago than others", e.Name())
		}
	}
	// What is in use stays, however much there is.
	for i := range 2 * keepResults {
		put(fmt.Sprintf("new-%d", i), time.Minute)
	}
	if err := collect(dir, now); err != nil {
		t.Fatal(err)
	}
	if entries, _ = os.ReadDir(dir); len(entries) != 2*keepResults {
		t.Errorf("%d results stay, want %d", len(entries), 2*keepResults)
	}
}

// TestLockCache has a second build wait for the first, and give up when told to.
func TestLockCache(t *testing.T) {
	waits := make(chan struct{}, 1)
	o := Options{Cache: filepath.Join(t.TempDir(), "new"), Say: func(string, ...any) { waits <- struct{}{} }}
	unlock, err := lockCache(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-waits; cancel() }()
	if _, err := lockCache(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("a second build went on: %v", err)
	}
	go func() { <-waits; unlock() }()
	second, err := lockCache(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	second()
}

func TestCached(t *testing.T) {
	o := Options{Cache: t.TempDir()}
	made := 0
	build := func(out string) error {
		made++
		return os.WriteFile(out, []byte("x"), 0o644)
	}
	for range 2 {
		if path, err := cached(o, "result", build); err != nil || made != 1 {
			t.Fatalf("made %d times: %s, %v", made, path, err)
		}
	}
	broken := errors.New("broken")
	if _, err := cached(o, "other", func(out string) error {
		if err := os.WriteFile(out, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		return broken
	}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(o.Cache, "build"))
	if err != nil || len(entries) != 1 {
		t.Errorf("in the cache: %v, %v", entries, err)
	}
}

// TestAppear writes outputs that cannot be finished: nothing half-written stays.
func TestAppear(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "kogge.img")
	if err := os.WriteFile(out, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := appear(out, func(f *os.File) error {
		if _, err := f.WriteString("half an image"); err != nil {
			return err
		}
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer full.Close()
		_, err = full.WriteString("the rest")
		return err
	})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "old" {
		t.Errorf("the old output is now %q, %v", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("in the folder: %v, %v", entries, err)
	}
	err = appear(filepath.Join(dir, "missing", "kogge.img"), func(*os.File) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "output: ") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
	err = appear(dir, func(*os.File) error { return nil })
	if err == nil {
		t.Error("a folder was replaced by an image")
	}
}
