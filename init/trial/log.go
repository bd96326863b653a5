package trial

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/guard"
)

const (
	// logFile is the log of the last trial, with logFile + ".1" before it.
	logFile = "trial.log"
	// logHalf is the size in bytes at which logFile becomes the older half.
	logHalf = 32 << 10
	// logPause is how old a line may grow before it is on the disk for good.
	logPause = 2 * time.Second
)

// trialLog keeps the end of a trial's log on STATE, as it comes, for the old slot to
// read after a fall. A nil one keeps nothing.
//
// A power cut loses at most what came within logPause, and may tear the last line:
// (1) lines are appended, (2) synced at the next pause; (3) a full file is renamed to
// .1, which removes the older one, and a new one begins.
type trialLog struct {
	path string

	mu      sync.Mutex // guards the fields below
	file    *os.File
	size    int64
	waiting bool  // a sync is due
	failed  error // it is told once, and what comes later is lost
}

// openLog goes on with the log of a trial; first begins a new one.
func openLog(path string, first bool) (*trialLog, error) {
	if first {
		for _, old := range []string{path, path + ".1"} {
			if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	l := &trialLog{path: path}
	return l, l.open()
}

func (l *trialLog) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.size, err = f.Seek(0, io.SeekEnd)
	l.file = f
	return err
}

// add appends lines of one source.
func (l *trialLog) add(source string, lines []byte) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return
	}
	var out bytes.Buffer
	for line := range bytes.Lines(lines[max(0, len(lines)-logHalf):]) {
		fmt.Fprintf(&out, "%s: %s\n", source, bytes.TrimSuffix(line, []byte("\n")))
	}
	if l.failed = l.write(out.Bytes()); l.failed != nil {
		guard.Kmsg("log of the trial: " + l.failed.Error())
		return
	}
	if !l.waiting {
		l.waiting = true
		guard.Go("log of the trial", func() {
			time.Sleep(logPause)
			l.sync()
		})
	}
}

func (l *trialLog) write(b []byte) error {
	if l.size > 0 && l.size+int64(len(b)) > logHalf {
		if err := errors.Join(l.file.Sync(), l.file.Close(), os.Rename(l.path, l.path+".1")); err != nil {
			return err
		}
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return err
}

// errLogOver is for what comes when the trial is over: it is no part of its log.
var errLogOver = errors.New("the trial is over")

// end closes the log: from here on it costs no write any more.
func (l *trialLog) end() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return
	}
	l.failed = errLogOver
	if err := errors.Join(l.file.Sync(), l.file.Close()); err != nil {
		guard.Kmsg("log of the trial: " + err.Error())
	}
}

// over tells whether it keeps nothing any more.
func (l *trialLog) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed != nil
}

// sync puts what was added on the disk.
func (l *trialLog) sync() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	if l.failed == nil {
		l.failed = l.file.Sync()
	}
}

// serviceLog is a service's log on its way to the file.
type serviceLog struct {
	*trialLog
	name string
}

func (s serviceLog) Write(b []byte) (int, error) {
	s.add(s.name, b)
	return len(b), nil
}

func (serviceLog) Close() error { return nil }

// followKernel adds the kernel's log, from its beginning on, until the node is gone or the
// trial over.
func (l *trialLog) followKernel(kmsg string) error {
	// Records come one by read. Without O_NONBLOCK the runtime could not wait for them.
	f, err := os.OpenFile(kmsg, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	record := make([]byte, 8<<10)
	for !l.over() {
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
		l.add("kernel", kernelLine(head, text))
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

// readLog returns the log of the last trial; nil if there is none.
func readLog(path string) []byte {
	return append(readOptional(path+".1"), readOptional(path)...)
}
