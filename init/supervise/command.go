package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"kogge.example/init/guard"
)

// maxOutput is what [Command] keeps of a program's output; the rest is read and
// dropped.
const maxOutput = 64 << 10

// Command runs the program at path to its end, as os/exec would if PID 1 could
// use it: the exit goes through the one reaper. output is what it wrote to
// standard output and error, at most 64 KiB. status is its exit status, or 128 +
// the signal that ended it. err says why it was not started or, with the output
// so far, that ctx was over before the program: then it was killed and is gone.
func Command(ctx context.Context, path string, args ...string) (output []byte, status int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("run %s: %w", path, err)
	}
	defer null.Close()
	r, w, err := logPipe()
	if err != nil {
		return nil, 0, fmt.Errorf("run %s: %w", path, err)
	}
	defer r.Close()

	exit := make(chan syscall.WaitStatus, 1)
	pid, err := children.start(func() (int, error) {
		return syscall.ForkExec(path, append([]string{filepath.Base(path)}, args...), &syscall.ProcAttr{
			Env:   os.Environ(),
			Files: []uintptr{null.Fd(), uintptr(w), uintptr(w)},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	}, func(s syscall.WaitStatus) { exit <- s })
	syscall.Close(w)
	if err != nil {
		return nil, 0, fmt.Errorf("run %s: %w", path, err)
	}

	read := make(chan []byte, 1)
	guard.Go("output of "+path, func() {
		b, _ := io.ReadAll(io.LimitReader(r, maxOutput))
		_, _ = io.Copy(io.Discard, r)
		read <- b
	})
	var over error
	var ws syscall.WaitStatus
	select {
	case ws = <-exit:
	case <-ctx.Done():
		over = ctx.Err()
		_ = children.signal(pid, syscall.SIGKILL, true)
		ws = <-exit
	}
	// A grandchild may hold the pipe open; what it says is not waited for.
	_ = r.SetReadDeadline(time.Now().Add(time.Second))
	output = <-read
	status = ws.ExitStatus()
	if ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	if over != nil {
		return output, status, fmt.Errorf("run %s: killed: %w", path, over)
	}
	return output, status, nil
}

// logPipe is a pipe for a child's output: r never blocks a thread of ours, w, a
// plain descriptor, blocks the child as a program expects of its standard output.
func logPipe() (r *os.File, w int, err error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("make pipe: %w", err)
	}
	if err := syscall.SetNonblock(p[0], true); err != nil {
		return nil, -1, errors.Join(fmt.Errorf("make pipe: %w", err), syscall.Close(p[0]), syscall.Close(p[1]))
	}
	return os.NewFile(uintptr(p[0]), "pipe"), p[1], nil
}
