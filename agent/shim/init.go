package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is what the shim is called where it is process 1 of a container.
const initName = "init"

// The exit codes of a shell for a program that cannot be started.
const (
	notExecutable = 126
	notFound      = 127
)

// reap is process 1 of a container that asks for one: it starts the program of args,
// passes signals on to it, takes in every process whose parent has gone, and returns
// the exit code of the program, or 128 and its signal. The kernel ends what is left
// when process 1 does.
//
// The program keeps process 1's environment, folder, user and output. It is looked
// up in PATH, since runc only looked for us.
func reap(args []string) int {
	// It sleeps: one processor and a small heap are enough.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(10)
	if len(args) == 0 {
		os.Stderr.WriteString("init: nothing to start\n")
		return notFound
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		os.Stderr.WriteString("init: " + err.Error() + "\n")
		if errors.Is(err, fs.ErrPermission) {
			return notExecutable
		}
		return notFound
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // before the program is there: none is lost
	child, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		os.Stderr.WriteString("init: start " + path + ": " + err.Error() + "\n")
		return notExecutable
	}
	debug.FreeOSMemory()
	go pass(signals, child)
	return await(child)
}

// pass sends to child what process 1 gets, except for what the kernel and the Go
// runtime tell process 1 itself.
func pass(signals <-chan os.Signal, child int) {
	for s := range signals {
		switch number := s.(syscall.Signal); number {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
		default:
			_ = syscall.Kill(child, number) // it may have ended: await will say
		}
	}
}

// await reaps until child has ended and returns its exit code.
func await(child int) int {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil: // no children left, and child not seen: cannot be
			os.Stderr.WriteString("init: wait: " + err.Error() + "\n")
			return 1
		case pid != child:
		case status.Signaled():
			return 128 + int(status.Signal())
		case status.Exited():
			return status.ExitStatus()
		}
	}
}
