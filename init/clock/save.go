package clock

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// files is a file system that can lose power. The real one is osFiles; tests have
// one in memory.
type files interface {
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte) error // not synced
	Sync(name string) error                   // a file, or a folder
	Rename(from, to string) error
}

// save writes the time to the file. After a power cut at any point the file has the
// old time or the new one, whole:
//
//  1. write the new text to a file of another name
//  2. sync it, so that the name never stands for an empty file
//  3. rename it over the old one
//  4. sync the folder, so that the new time counts from now on
func save(fsys files, file string, t time.Time) error {
	temp := file + ".new"
	if err := fsys.WriteFile(temp, []byte(t.UTC().Format(time.RFC3339)+"\n")); err != nil {
		return fmt.Errorf("save time: %w", err)
	}
	if err := fsys.Sync(temp); err != nil {
		return fmt.Errorf("save time: %w", err)
	}
	if err := fsys.Rename(temp, file); err != nil {
		return fmt.Errorf("save time: %w", err)
	}
	if err := fsys.Sync(filepath.Dir(file)); err != nil {
		return fmt.Errorf("save time: %w", err)
	}
	return nil
}

// load reads the saved time: zero without a file, an error for one that is no time.
func load(fsys files, file string) (time.Time, error) {
	data, err := fsys.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("load saved time: %w", err)
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSuffix(string(data), "\n"))
	if err != nil {
		return time.Time{}, fmt.Errorf("load saved time: %s has no time in it", file)
	}
	return t, nil
}

// osFiles is the file system of the machine.
type osFiles struct{}

func (osFiles) ReadFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 4096))
}

func (osFiles) WriteFile(name string, data []byte) error { return os.WriteFile(name, data, 0o644) }

func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }

func (osFiles) Sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}
