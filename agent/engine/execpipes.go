package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"
)

// execFolder lies among a container's files and has a folder for each command that runs
// in it, called as containerd calls it: so an agent finds what one before it left.
const execFolder = "exec"

// pipes are the FIFOs between us and the shim. Both sides open them; until both have,
// somebody holds both ends of each, since an open would wait and a read would end.
type pipes struct {
	folder         string
	config         cio.Config
	stdin          *os.File
	stdout, stderr *os.File
	held           []*os.File
}

func makePipes(folder string, input, terminal bool) (*pipes, error) {
	p := &pipes{folder: folder, config: cio.Config{Terminal: terminal}}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	open := func(name string, flag int, path *string, end **os.File) error {
		*path = filepath.Join(folder, name)
		if err := unix.Mkfifo(*path, 0o600); err != nil {
			return fmt.Errorf("fifo %s: %w", *path, err)
		}
		both, err := os.OpenFile(*path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		p.held = append(p.held, both)
		*end, err = os.OpenFile(*path, flag|unix.O_NONBLOCK, 0)
		return err
	}
	err := open("stdout", os.O_RDONLY, &p.config.Stdout, &p.stdout)
	if err == nil && !terminal {
		err = open("stderr", os.O_RDONLY, &p.config.Stderr, &p.stderr)
	}
	if err == nil && input {
		err = open("stdin", os.O_WRONLY, &p.config.Stdin, &p.stdin)
	}
	if err != nil {
		p.close()
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return p, nil
}

// findPipes opens the outputs of a command that an earlier agent made, as far as they
// are there.
func findPipes(folder string) *pipes {
	p := &pipes{folder: folder}
	p.stdout, _ = os.OpenFile(filepath.Join(folder, "stdout"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	p.stderr, _ = os.OpenFile(filepath.Join(folder, "stderr"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	return p
}

// Config and what follows make it what containerd's client asks for.
func (p *pipes) Config() cio.Config { return p.config }
func (*pipes) Cancel()              {}
func (*pipes) Wait()                {}
func (*pipes) Close() error         { return nil }

// release is for when the shim has its ends, but for that of the input: see awaitReader.
func (p *pipes) release() {
	for _, f := range p.held {
		f.Close()
	}
	p.held = nil
}

// readerPoll is how often awaitReader looks.
const readerPoll = time.Millisecond

// awaitReader waits, after release, until the shim has its end of the input: it says that
// the command runs before that, and what is written meanwhile would be lost.
func (p *pipes) awaitReader(ctx context.Context) error {
	if p.stdin == nil {
		return nil
	}
	for {
		fd, err := unix.Open(p.config.Stdin, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EINTR) { // ENXIO: nobody reads
			return fmt.Errorf("fifo %s: %w", p.config.Stdin, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its shim does not accept the input: %w", context.Cause(ctx))
		case <-time.After(readerPoll):
		}
	}
}

// close lets go of our ends.
func (p *pipes) close() {
	p.release()
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		f.Close() // nil is an error, and none of ours
	}
}

// quiet makes readers that wait look again, since the command has ended.
func (p *pipes) quiet() {
	for _, f := range []*os.File{p.stdout, p.stderr} {
		_ = f.SetReadDeadline(time.Now().Add(quietLimit))
	}
}

// drainLimit is for what is still on its way when nothing writes any more.
const drainLimit = 2 * time.Second

// drain reads what nobody wants to have: the shim would wait for that while it deletes
// the command. The function it returns ends that, and closes the pipes.
func (p *pipes) drain() (end func()) {
	p.stdin.Close()
	var reading sync.WaitGroup
	for _, f := range []*os.File{p.stdout, p.stderr} {
		if f != nil {
			_ = f.SetReadDeadline(time.Time{})
			reading.Go(func() { _, _ = io.Copy(io.Discard, f) })
		}
	}
	return func() {
		for _, f := range []*os.File{p.stdout, p.stderr} {
			_ = f.SetReadDeadline(time.Now().Add(drainLimit))
		}
		reading.Wait()
		p.close()
	}
}

// quietLimit is how long an output may be silent, after the command has ended, before
// that is its end: a child that the command left holds it open. On a node that has much to
// do the shim may take its time over the last output, too. maxRest is how much
// comes still: more than the pipes on the way hold.
const (
	quietLimit = 3 * time.Second
	maxRest    = 256 << 10
)

// outlet is an output as its reader sees it: after the end of the command comes what it
// has written, not what others go on to write.
type outlet struct {
	file  *os.File
	ended <-chan struct{}
	rest  int // what was read after the end
}

func (o *outlet) Read(b []byte) (int, error) {
	for {
		over := false
		select {
		case <-o.ended:
			over = true
			_ = o.file.SetReadDeadline(time.Now().Add(quietLimit))
		default:
		}
		if o.rest >= maxRest {
			return 0, io.EOF
		}
		n, err := o.file.Read(b)
		if over {
			o.rest += n
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && n == 0:
			if over {
				return 0, io.EOF
			}
			continue
		case errors.Is(err, fs.ErrClosed):
			return n, io.EOF // it was taken away
		}
		return n, err
	}
}

// inlet is the input of a command.
type inlet struct {
	*os.File
	process  *Process
	terminal bool
}

// Close ends the input. That of a terminal has no end: only a character that says so.
func (i *inlet) Close() error {
	if i.terminal {
		return nil
	}
	if err := i.File.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(i.process.engine.context(context.Background()), testStart)
	defer cancel()
	return i.process.process.CloseIO(ctx, client.WithStdinCloser) // the shim's own end
}

// endSession kills what is left in the session of the process leader and in cgroup:
// what a command has started and not let go of.
func endSession(leader int, cgroup string) error {
	const rounds = 10 // what is killed may just have started another
	for range rounds {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return fmt.Errorf("processes: %w", err)
		}
		left := false
		for _, entry := range entries {
			if pid, err := strconv.Atoi(entry.Name()); err == nil && inSession(pid, leader, cgroup) {
				left = true
				kill(pid, func() bool { return inSession(pid, leader, cgroup) })
			}
		}
		if !left {
			return nil
		}
		time.Sleep(10 * time.Millisecond) // they end on their own now
	}
	return fmt.Errorf("processes of session %d do not end", leader)
}

// kill kills the process pid if it is, once nobody else can get its number, still the one.
func kill(pid int, still func() bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if still() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// inSession says whether a process lives in a session and a cgroup.
//
// Source: proc_pid_stat(5), proc_pid_cgroup(5).
func inSession(pid, session int, cgroup string) bool {
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(folder, "stat"))
	if err != nil {
		return false
	}
	// "pid (name) state ppid pgrp session …": the name may have anything in it.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 4 || f[0] == "Z" || f[3] != strconv.Itoa(session) {
		return false
	}
	groups, err := os.ReadFile(filepath.Join(folder, "cgroup"))
	return err == nil && strings.Contains(string(groups), cgroup+"\n")
}
