package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// pollInterval is how often waits look at the console log or at a forward.
const pollInterval = 20 * time.Millisecond

// maxLine bounds the memory for a line. A longer one is taken for several.
const maxLine = 64 << 10

// Console is what a VM says on its first serial port: whole lines, without
// escape sequences and other control characters than tabs.
type Console struct {
	// Path is the log. It holds the bytes as the guest sent them.
	Path string

	vm   *VM
	from int64 // where this view of the log begins
}

// Console returns the console of v from the moment it was started.
func (v *VM) Console() *Console {
	return &Console{Path: filepath.Join(v.Dir, consoleLog), vm: v}
}

// After returns a console that begins with what the guest says from now on. A
// line that the guest is in the middle of counts from here.
func (c *Console) After() (*Console, error) {
	st, err := os.Stat(c.Path)
	if err != nil {
		return nil, fmt.Errorf("console of vm %s: %w", c.vm.Name, err)
	}
	return &Console{Path: c.Path, vm: c.vm, from: st.Size()}, nil
}

// Lines returns the lines so far, a last unfinished one included.
func (c *Console) Lines() ([]string, error) {
	r := lineReader{off: c.from}
	lines, err := r.read(c.Path)
	if err != nil {
		return nil, fmt.Errorf("console of vm %s: %w", c.vm.Name, err)
	}
	return texts(append(lines, r.rest()...)), nil
}

// WaitLine waits for the first line that matches re and returns it.
func (c *Console) WaitLine(ctx context.Context, re *regexp.Regexp) (string, error) {
	return c.WaitCount(ctx, re, 1)
}

// WaitCount waits for the nth line that matches re (n counts from 1) and returns
// it. Lines that came before the call count. It fails where ctx ends, QEMU ends
// or the guest stands still; the error then has the path of the log and its last lines.
func (c *Console) WaitCount(ctx context.Context, re *regexp.Regexp, n int) (string, error) {
	line, _, err := c.Next(ctx, re, n)
	return line, err
}

// Next is WaitCount that also returns the console that begins after the line it
// found, so that the next wait does not find the same again.
func (c *Console) Next(ctx context.Context, re *regexp.Regexp, n int) (string, *Console, error) {
	r := lineReader{off: c.from}
	left := n
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		halted := c.vm.halted() // before the log is read: then nothing is missed
		lines, err := r.read(c.Path)
		if err != nil {
			return "", nil, fmt.Errorf("console of vm %s: %w", c.vm.Name, err)
		}
		if halted != nil {
			lines = append(lines, r.rest()...)
		}
		for _, line := range lines {
			if re.MatchString(line.text) {
				if left--; left == 0 {
					return line.text, &Console{Path: c.Path, vm: c.vm, from: line.end}, nil
				}
			}
		}
		if halted == nil {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
				halted = context.Cause(ctx)
			}
		}
		return "", nil, c.missing(re, n, n-left, halted)
	}
}

// Follow hands on every line from the beginning of c, each as soon as it is
// finished, until ctx or QEMU ends. Its error is ctx's, or nil where QEMU ended.
func (c *Console) Follow(ctx context.Context, line func(string)) error {
	r := lineReader{off: c.from}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ended := !c.vm.Running() // before the log is read: then nothing is missed
		lines, err := r.read(c.Path)
		if err != nil {
			return fmt.Errorf("console of vm %s: %w", c.vm.Name, err)
		}
		if ended {
			lines = append(lines, r.rest()...)
		}
		for _, l := range lines {
			line(l.text)
		}
		if ended {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// missing is the error of a wait that came to nothing.
func (c *Console) missing(re *regexp.Regexp, n, seen int, why error) error {
	want := fmt.Sprintf("line %q", re)
	if n > 1 {
		want = fmt.Sprintf("%d lines %q (%d seen)", n, re, seen)
	}
	end := "it is empty"
	if lines, err := c.Lines(); err == nil && len(lines) > 0 {
		end = "it ends in:\n\t" + strings.Join(lines[max(0, len(lines)-5):], "\n\t")
	}
	return fmt.Errorf("vm %s: wait for %s: %w; console log %s: %s", c.vm.Name, want, why, c.Path, end)
}

// Dial connects to the serial port: what is written goes to the guest, what the
// guest says can be read, and goes to the log all the same. The port serves one
// client at a time; a client that does not read makes the guest wait.
func (c *Console) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := dialUnix(ctx, c.vm.Dir, consoleSock)
	if err != nil {
		return nil, fmt.Errorf("console of vm %s: %w", c.vm.Name, err)
	}
	return conn, nil
}

// Send types text on the console and returns once the guest's port has taken it.
func (c *Console) Send(ctx context.Context, text string) error {
	conn, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	_, err = io.WriteString(conn, text)
	if err == nil {
		err = conn.(*net.UnixConn).CloseWrite()
	}
	if err == nil {
		// QEMU hangs up when it has handed the last byte to the port.
		_, err = io.Copy(io.Discard, conn)
	}
	if err != nil {
		return fmt.Errorf("console of vm %s: send: %w", c.vm.Name, ctxErr(ctx, err))
	}
	return nil
}

// logLine is a line and where the next one begins in the log.
type logLine struct {
	text string
	end  int64
}

func texts(lines []logLine) []string {
	var all []string
	for _, l := range lines {
		all = append(all, l.text)
	}
	return all
}

// lineReader takes a growing file apart into lines.
type lineReader struct {
	off     int64 // what was read
	partial []byte
}

// read returns the lines that were finished since the last call.
func (r *lineReader) read(path string) ([]logLine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []logLine
	buf := make([]byte, 32<<10)
	for {
		n, err := f.ReadAt(buf, r.off)
		lines = append(lines, r.add(buf[:n])...)
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// add returns the lines that data, the next bytes of the file, finishes.
func (r *lineReader) add(data []byte) []logLine {
	var lines []logLine
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		r.off += int64(i) + 1
		lines = append(lines, logLine{plain(append(r.partial, data[:i]...)), r.off})
		r.partial, data = r.partial[:0], data[i+1:]
	}
	r.off += int64(len(data))
	r.partial = append(r.partial, data...)
	for len(r.partial) > maxLine {
		rest := int64(len(r.partial) - maxLine)
		lines = append(lines, logLine{plain(r.partial[:maxLine]), r.off - rest})
		r.partial = append(r.partial[:0], r.partial[maxLine:]...)
	}
	return lines
}

// rest returns the unfinished line, if there is one.
func (r *lineReader) rest() []logLine {
	if len(r.partial) == 0 {
		return nil
	}
	return []logLine{{plain(r.partial), r.off}}
}

// escapes are the sequences of ECMA-48 and of the terminals after it: CSI, OSC,
// character sets, single characters.
var escapes = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]+[0-~]|[0-Z\\^_=>a-z~])`)

// plain returns a line without escape sequences and control characters.
func plain(line []byte) string {
	line = escapes.ReplaceAll(line, nil)
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, string(line))
}
