package supervise

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"kogge.example/init/guard"
)

// reaper owns every wait(2) of the process. As PID 1 it waits for any child, the
// re-parented ones included: there os/exec would wait in vain, [Command] is what
// PID 1 runs programs with. In any other process (tests) it waits only for those
// that it started, so that it takes nothing from os/exec.
type reaper struct {
	once sync.Once
	any  bool // wait for any child; set before the first start

	// mu guards known, and is held from fork to registration and from wait to
	// removal: no child can be reaped before it is known, and no signal can go to
	// a number that was reaped and given to somebody else.
	mu    sync.Mutex
	known map[int]func(syscall.WaitStatus)
}

// children is one for the process, as SIGCHLD is.
var children = reaper{known: map[int]func(syscall.WaitStatus){}, any: os.Getpid() == 1}

// start runs fork, which returns a new child's number, and sees that exited is
// called once when that child is gone. exited runs on the reaper's goroutine and
// must not block.
func (r *reaper) start(fork func() (int, error), exited func(syscall.WaitStatus)) (int, error) {
	r.once.Do(r.run)
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, err
	}
	r.known[pid] = exited
	return pid, nil
}

// adopt makes a child known that somebody else forked and that was re-parented
// to us. Unless ours, asked while nobody can be reaped, agrees, it does nothing.
func (r *reaper) adopt(pid int, ours func() bool, exited func(syscall.WaitStatus)) bool {
	r.once.Do(r.run)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[pid] != nil || !ours() {
		return false
	}
	r.known[pid] = exited
	return true
}

// signal sends sig to the known child pid, and to its process group if it leads
// one; a child that is gone gets nothing.
func (r *reaper) signal(pid int, sig syscall.Signal, group bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[pid] == nil {
		return syscall.ESRCH
	}
	if group {
		return syscall.Kill(-pid, sig)
	}
	return syscall.Kill(pid, sig)
}

// run starts the goroutine that waits. It ends with the process.
func (r *reaper) run() {
	news := make(chan os.Signal, 1) // one is enough: each is followed by waiting for all
	signal.Notify(news, syscall.SIGCHLD)
	guard.Go("reaper", func() {
		for range news {
			for _, tell := range r.reap() {
				tell()
			}
		}
	})
}

// reap waits for all children that are gone and returns what is to be called.
func (r *reaper) reap() (calls []func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	take := func(which int) bool {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(which, &status, syscall.WNOHANG, nil)
		for err == syscall.EINTR {
			pid, err = syscall.Wait4(which, &status, syscall.WNOHANG, nil)
		}
		if err != nil || pid <= 0 {
			return false
		}
		if exited := r.known[pid]; exited != nil {
			delete(r.known, pid)
			calls = append(calls, func() { exited(status) })
		}
		return true
	}
	if r.any {
		for take(-1) {
		}
		return calls
	}
	for pid := range r.known {
		take(pid)
	}
	return calls
}
