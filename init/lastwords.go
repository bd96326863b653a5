package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/guard"
	"kogge.example/update/memory"
)

// wordsFile is the log of the last trial, with wordsFile + ".1" before it.
var wordsFile = filepath.Join(memory.Dir, "trial.log")

const (
	// wordsHalf is the size in bytes at which wordsFile becomes the older half.
	wordsHalf = 32 << 10
	// wordsPause is how old a line may grow before it is on the disk for good.
	wordsPause = 2 * time.Second
)

// lastWords keeps the end of a trial's log on STATE, as it comes, for the old slot to
// read after a fall. A nil one keeps nothing.
//
// A power cut loses at most what came within wordsPause, and may tear the last line:
// (1) lines are appended, (2) synced at the next pause; (3) a full file is renamed to
// .1, which removes the older one, and a new one begins.
type lastWords struct {
	path string

	mu      sync.Mutex // guards the fields below
	file    *os.File
	size    int64
	waiting bool  // a sync is due
	failed  error // it is told once, and what comes later is lost
}

// openWords goes on with the log of a trial; first begins a new one.
func openWords(path string, first bool) (*lastWords, error) {
	if first {
		for _, old := range []string{path, path + ".1"} {
			if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	w := &lastWords{path: path}
	return w, w.open()
}

func (w *lastWords) open() error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w.size, err = f.Seek(0, io.SeekEnd)
	w.file = f
	return err
}

// add appends lines of one source.
func (w *lastWords) add(source string, lines []byte) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return
	}
	var out bytes.Buffer
	for line := range bytes.Lines(lines[max(0, len(lines)-wordsHalf):]) {
		fmt.Fprintf(&out, "%s: %s\n", source, bytes.TrimSuffix(line, []byte("\n")))
	}
	if w.failed = w.write(out.Bytes()); w.failed != nil {
		guard.Kmsg("log of the trial: " + w.failed.Error())
		return
	}
	if !w.waiting {
		w.waiting = true
		guard.Go("log of the trial", func() {
			time.Sleep(wordsPause)
			w.sync()
		})
	}
}

func (w *lastWords) write(b []byte) error {
	if w.size > 0 && w.size+int64(len(b)) > wordsHalf {
		if err := errors.Join(w.file.Sync(), w.file.Close(), os.Rename(w.path, w.path+".1")); err != nil {
			return err
		}
		if err := w.open(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(b)
	w.size += int64(n)
	return err
}

// errWordsOver is for what comes when the trial is over: it is no part of its log.
var errWordsOver = errors.New("the trial is over")

// end closes the log: from here on it costs no write any more.
func (w *lastWords) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil {
		return
	}
	w.failed = errWordsOver
	if err := errors.Join(w.file.Sync(), w.file.Close()); err != nil {
		guard.Kmsg("log of the trial: " + err.Error())
	}
}

// over tells whether it keeps nothing any more.
func (w *lastWords) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed != nil
}

// sync puts what was added on the disk.
func (w *lastWords) sync() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = false
	if w.failed == nil {
		w.failed = w.file.Sync()
	}
}

// trace is a service's log on its way to the file.
type trace struct {
	words *lastWords
	name  string
}

func (t trace) Write(b []byte) (int, error) {
	t.words.add(t.name, b)
	return len(b), nil
}

func (t trace) Close() error { return nil }

// followKernel adds the kernel's log, from its beginning on, until the node is gone or the
// trial over.
func (w *lastWords) followKernel(kmsg string) error {
	// Records come one by read. Without O_NONBLOCK the runtime could not wait for them.
	f, err := os.OpenFile(kmsg, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	record := make([]byte, 8<<10)
	for !w.over() {
		n, err := f.Read(record)
		switch {
		case errors.Is(err, unix.EPIPE): // some were overwritten: the next read goes on behind
			continue
		case err != nil:
			return err
		}
		// "6,339,5140900,-;text", then lines of details that begin with a blank.
		head, text, _ := bytes.Cut(record[:n], []byte(";"))
		text, _, _ = bytes.Cut(text, []byte("\n"))
		w.add("kernel", kernelLine(head, text))
	}
	return nil
}

// kernelLine is a record as dmesg shows it: its time in seconds, then the text.
func kernelLine(head, text []byte) []byte {
	f := bytes.Split(head, []byte(","))
	var micro int64
	if len(f) > 2 {
		micro, _ = strconv.ParseInt(string(f[2]), 10, 64)
	}
	return fmt.Appendf(nil, "[%d.%06d] %s\n", micro/1e6, micro%1e6, text)
}

// readWords returns the log of the last trial; nil if there is none.
func readWords(path string) []byte {
	return append(readOptional(path+".1"), readOptional(path)...)
}
