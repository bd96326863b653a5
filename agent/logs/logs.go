// Package logs reads logs: the output that the shims keep of containers, and the kernel's
// records. In comes a file, out go lines in messages of the API, those to come too for
// whoever follows. It writes nothing.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/agent/api/kogge/v1"
)

// Batch gathers lines into messages: one for each line would cost a slow node more
// than the lines do. A reader that does not keep up holds up the sender, and no
// more than one batch waits.
type Batch struct {
	Send  func(*apiv1.LogLines) error
	lines []string
	bytes int
}

// maxBatch is when a batch is sent though more is there, in bytes.
const maxBatch = 32 << 10

// Add puts a line into the next message.
func (b *Batch) Add(line string) error {
	b.lines = append(b.lines, strings.ToValidUTF8(line, "\uFFFD"))
	if b.bytes += len(line) + 1; b.bytes < maxBatch {
		return nil
	}
	return b.Flush()
}

// Flush sends what there is.
func (b *Batch) Flush() error {
	if len(b.lines) == 0 {
		return nil
	}
	err := b.Send(&apiv1.LogLines{Lines: b.lines})
	b.lines, b.bytes = nil, 0
	return err
}

// followPause is how long a follower waits before it looks for more.
const followPause = 250 * time.Millisecond

// Output reads a container's kept output: file+".1", the older part, then file, into
// which the shim goes on to write; when that is full, it becomes the older part and
// a new one begins.
type Output struct {
	File string
	To   *Batch
	// Gone says that the container is no more: then what follows its output ends with the
	// file. Default: it stays.
	Gone func() bool
	rest []byte // of a line without its newline yet
}

// ErrNoOutput means that the container has written nothing since it was made.
var ErrNoOutput = errors.New("no output yet")

// Send sends the last tail lines (0: all) and, with follow, those to come until ctx
// ends or the container has gone. A reader that does not keep up costs two open files and a
// batch.
func (o *Output) Send(ctx context.Context, tail int, follow bool) error {
	old, f, err := o.begin(tail)
	if errors.Is(err, fs.ErrNotExist) && !follow {
		return ErrNoOutput
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer func() { f.Close() }()
	if old != nil {
		err := o.copy(old)
		old.Close()
		if err != nil {
			return err
		}
	}
	for over := !follow; ; over = o.over() {
		if f != nil {
			if err := o.copy(f); err != nil {
				return err
			}
		}
		if err := o.flush(over); err != nil || over {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPause):
		}
		if next := o.turned(f); next != nil {
			if f != nil {
				if err := o.copy(f); err != nil { // what came before it was put aside
					next.Close()
					return err
				}
				f.Close()
			}
			f = next
		}
	}
}

// begin opens both parts, where their last tail lines begin. old is nil when there is
// none.
func (o *Output) begin(tail int) (old, now *os.File, err error) {
	old, err = os.Open(o.File + ".1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	now, err = os.Open(o.File)
	if err == nil {
		err = seek(old, now, tail)
	}
	if err != nil {
		old.Close()
		now.Close()
		return nil, nil, err
	}
	return old, now, nil
}

// seek sets both files to where their last n lines begin, 0: to their start. old may
// be nil.
func seek(old, now *os.File, n int) error {
	if n == 0 {
		return nil
	}
	var seam int64 // of both files, one behind the other
	if old != nil {
		st, err := old.Stat()
		if err != nil {
			return err
		}
		seam = st.Size()
	}
	st, err := now.Stat()
	if err != nil {
		return err
	}
	at, err := last(old, now, seam, seam+st.Size(), n)
	if err != nil {
		return err
	}
	if old != nil {
		if _, err := old.Seek(min(at, seam), io.SeekStart); err != nil {
			return err
		}
	}
	_, err = now.Seek(max(at-seam, 0), io.SeekStart)
	return err
}

// last is where the last n lines begin; a line without a newline at the end counts.
func last(old, now io.ReaderAt, seam, size int64, n int) (int64, error) {
	buffer := make([]byte, maxBatch)
	for end := size; end > 0; {
		start := max(end-maxBatch, 0)
		file, offset := old, start
		if end > seam {
			start = max(start, seam)
			file, offset = now, start-seam
		}
		block := buffer[:end-start]
		if _, err := file.ReadAt(block, offset); err != nil {
			return 0, err
		}
		for i := len(block) - 1; i >= 0; i-- {
			if block[i] != '\n' || start+int64(i) == size-1 {
				continue
			}
			if n--; n == 0 {
				return start + int64(i) + 1, nil
			}
		}
		end = start
	}
	return 0, nil
}

// copy sends what is left in f.
func (o *Output) copy(f *os.File) error {
	buffer := make([]byte, maxBatch)
	for {
		n, err := f.Read(buffer)
		if taken := o.take(buffer[:n]); taken != nil {
			return taken
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// maxLine is where a line without an end is cut.
const maxLine = 16 << 10

// take sends the whole lines of data and keeps the rest.
func (o *Output) take(data []byte) error {
	o.rest = append(o.rest, data...)
	for {
		at := bytes.IndexByte(o.rest, '\n')
		if at < 0 && len(o.rest) <= maxLine {
			o.rest = bytes.Clone(o.rest) // lets go of what was sent
			return nil
		}
		if at < 0 || at > maxLine {
			at = maxLine
			if err := o.To.Add(string(o.rest[:at])); err != nil {
				return err
			}
			o.rest = o.rest[at:]
			continue
		}
		if err := o.To.Add(strings.TrimSuffix(string(o.rest[:at]), "\r")); err != nil {
			return err
		}
		o.rest = o.rest[at+1:]
	}
}

// flush sends what waits; at the end also a line without its newline.
func (o *Output) flush(end bool) error {
	if end && len(o.rest) > 0 {
		if err := o.To.Add(string(o.rest)); err != nil {
			return err
		}
		o.rest = nil
	}
	return o.To.Flush()
}

// over says that the container has gone, and its file with it.
func (o *Output) over() bool {
	if o.Gone == nil || !o.Gone() {
		return false
	}
	_, err := os.Lstat(o.File)
	return errors.Is(err, fs.ErrNotExist)
}

// turned opens the file that took f's place; nil while f is still the one.
func (o *Output) turned(f *os.File) *os.File {
	next, err := os.Open(o.File)
	if err != nil {
		return nil
	}
	if f == nil {
		return next
	}
	a, err1 := f.Stat()
	b, err2 := next.Stat()
	if err1 != nil || err2 != nil || os.SameFile(a, b) {
		next.Close()
		return nil
	}
	return next
}

// Kernel sends the kernel's records and, with follow, those to come until ctx
// ends. Each line begins with the seconds since the kernel started.
//
// Source: Documentation/ABI/testing/dev-kmsg in the kernel tree.
func Kernel(ctx context.Context, path string, follow bool, b *Batch) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	record := make([]byte, 8192)
	for {
		if !follow {
			// A device that has no more to say would wait for more.
			_ = f.SetReadDeadline(time.Now().Add(followPause))
		}
		n, err := f.Read(record)
		switch {
		case errors.Is(err, unix.EPIPE):
			continue // the next read goes on with the oldest that is left
		case errors.Is(err, os.ErrDeadlineExceeded), err == io.EOF:
			return b.Flush()
		case err != nil:
			return err
		}
		line, ok := kernelLine(string(record[:n]))
		if !ok {
			continue
		}
		if err := b.Add(line); err != nil {
			return err
		}
		if follow {
			if err := b.Flush(); err != nil {
				return err
			}
		}
	}
}

// kernelLine makes "[   12.345678] text" of a record "6,1234,12345678,-;text\n KEY=value\n".
func kernelLine(record string) (string, bool) {
	prefix, text, ok := strings.Cut(record, ";")
	fields := strings.Split(prefix, ",")
	if !ok || len(fields) < 3 {
		return "", false
	}
	var micros int64
	if _, err := fmt.Sscanf(fields[2], "%d", &micros); err != nil {
		return "", false
	}
	text, _, _ = strings.Cut(text, "\n")
	return fmt.Sprintf("[%5d.%06d] %s", micros/1e6, micros%1e6, text), true
}
