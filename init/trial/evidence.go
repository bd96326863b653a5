package trial

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"kogge.example/update/durable"
	"kogge.example/update/memory"
)

const (
	// maxPstore is how much of a kernel's last words is read, in bytes.
	maxPstore = 64 << 10
	// panicFile keeps a kernel's last words on STATE: where the firmware holds them there
	// is little room, so they are taken from there.
	panicFile = "panic.txt"
)

// collect gathers what the boot before this one left behind, and notes in the history
// how it ended. trial is the release that is being tried, if there is one.
func (b *Boot) collect(trial *memory.Trial) memory.Evidence {
	dir, err := b.Pstore()
	b.Degraded.Add("memory of panics", err)
	panics, err := takePstore(dir, b.file(panicFile), b.Memory != "")
	b.Degraded.Add("memory of panics", err)
	e := memory.Evidence{Panic: panics, Watchdog: b.Dog.Fired()}
	if e.Panic == "" && !e.Watchdog {
		return e
	}
	boots, err := b.history()
	b.Degraded.Add("history of boots", err)
	for _, line := range memory.Attribute(boots, trial, e, b.ID) {
		b.Degraded.Add("history of boots", b.note(line))
	}
	return e
}

// takePstore returns a kernel's last words and removes them, once they are on STATE. A
// cut before that leaves them where they are.
func takePstore(dir, saved string, persist bool) (string, error) {
	if dir == "" {
		return "", nil
	}
	names, err := filepath.Glob(filepath.Join(dir, "dmesg-*"))
	if err != nil || len(names) == 0 {
		return "", err
	}
	sort.Sort(sort.Reverse(sort.StringSlice(names))) // the newest part comes first
	var text strings.Builder
	for _, name := range names {
		part, err := readAtMost(name, int64(maxPstore-text.Len()))
		if err != nil {
			return text.String(), err
		}
		text.Write(part)
	}
	if !persist {
		return text.String(), nil
	}
	if err := os.MkdirAll(filepath.Dir(saved), 0o700); err != nil {
		return text.String(), err
	}
	if err := durable.Replace(saved, []byte(text.String()), 0o600); err != nil {
		return text.String(), err
	}
	var errs []error
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("forget a panic: %w", err))
		}
	}
	return text.String(), errors.Join(errs...)
}

// readAtMost reads the start of a file.
func readAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
