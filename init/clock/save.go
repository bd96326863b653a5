package clock

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"time"

	"kogge.example/update/durable"
)

// save writes the time to the file. After a power cut at any point the file has the
// old time or the new one, whole.
func save(file string, t time.Time) error {
	if err := durable.Replace(file, []byte(t.UTC().Format(time.RFC3339)+"\n"), 0o644); err != nil {
		return fmt.Errorf("save time: %w", err)
	}
	return nil
}

// kept are the times of the floor that are kept in files beside the saved time, in the order
// in which they are written.
func (f *Floor) kept(saved string) iter.Seq2[string, *time.Time] {
	return func(yield func(string, *time.Time) bool) {
		_ = yield(saved+".doubted", &f.Doubted) && yield(saved+".witnessed", &f.Witnessed) && yield(passedFile(saved), &f.Passed)
	}
}

func passedFile(saved string) string { return saved + ".passed" }

// load reads the saved time: zero without a file, an error for one that is no time.
func load(file string) (time.Time, error) {
	data, err := readStart(file)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("load saved time: %w", err)
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSuffix(string(data), "\n"))
	if err != nil {
		return time.Time{}, fmt.Errorf("load saved time: %s does not hold a time", file)
	}
	return t, nil
}

// readStart reads as much of a file as a time could need: it may hold anything.
func readStart(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 64))
}
