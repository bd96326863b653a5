package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// VM is a QEMU process and its folder. Its methods may be called from several
// goroutines.
type VM struct {
	// Name is the machine's, Dir the absolute path of its folder.
	Name, Dir string
	// Forwards are the machine's, with the host ports that were chosen.
	Forwards []Forward

	command string // what CommandLine returns
	ident   ident
	owned   bool // this process started it
	killed  atomic.Bool

	done    chan struct{} // closed when QEMU has ended
	waitErr error         // how it ended; valid once done is closed
	usage   time.Duration // CPU time of an owned QEMU that ended; valid once done is closed

	restarts atomic.Int32
	cancel   context.CancelFunc // ends the goroutines below
	running  sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	events  []Event
	more    chan struct{} // closed and replaced when an event arrives
	fault   error         // why the machine stands still although QEMU runs
	faulted chan struct{} // closed when fault is set
}

// startLimit is how long QEMU may take until its monitor answers.
const startLimit = 60 * time.Second

// ErrRunning means that the VM of a folder runs already.
var ErrRunning = errors.New("vm runs already")

// Start runs m with dir as its folder, which is created, and returns once QEMU
// answers; the guest has hardly begun by then. A VM in the foreground is killed
// when ctx ends or this process does; for a detached one, ctx bounds the start only.
//
// A folder belongs to one VM. An earlier run's overlays and firmware variables
// are used again unless m.Fresh; its console log becomes console.1.log. An error
// leaves no QEMU behind.
func Start(ctx context.Context, m Machine, dir string) (*VM, error) {
	m, err := m.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("folder of %s: %w", m.Name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of %s: %w", m.Name, err)
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("vm %s: %w", m.Name, err)
	}
	defer unlock()
	old, err := readRecord(dir)
	// Fresh starts over even where the record is unreadable; QEMU's lock on its
	// pid file still keeps two from one folder.
	if err != nil && !errors.Is(err, os.ErrNotExist) && !m.Fresh {
		return nil, fmt.Errorf("vm %s: %w", m.Name, err)
	}
	if old.Process.alive() {
		return nil, fmt.Errorf("vm %s: %w (process %d)", m.Name, ErrRunning, old.Process.PID)
	}
	if err := spaceIn(dir); err != nil {
		return nil, fmt.Errorf("vm %s: %w", m.Name, err)
	}
	r := record{Name: m.Name, Detached: m.Detached}
	if r.Images, err = m.stampImages(dir, old.Images); err != nil {
		return nil, err
	}
	// Before the overlays: none must lie there without its image's stamp.
	if err := writeRecord(dir, r); err != nil {
		return nil, fmt.Errorf("vm %s: %w", m.Name, err)
	}
	if err := m.makeFiles(ctx, dir); err != nil {
		return nil, err
	}
	wanted := m.Forwards
	for try := 1; ; try++ {
		if m.Forwards, err = choosePorts(wanted); err != nil {
			return nil, fmt.Errorf("vm %s: %w", m.Name, err)
		}
		v, err := launch(ctx, m, dir, r)
		if err == nil {
			return v, nil
		}
		// Between our look and QEMU's, somebody took a port that we chose.
		if try == 3 || !strings.Contains(err.Error(), "Could not set up host forwarding rule") {
			return nil, err
		}
	}
}

// prepare is what Start does before it touches the VM's folder.
func (m Machine) prepare(ctx context.Context) (Machine, error) {
	m, err := m.normal()
	if err != nil {
		return m, err
	}
	if _, err := lookPath(archs[m.Arch].binary, archs[m.Arch].debian); err != nil {
		return m, err
	}
	if m, err = m.formats(); err != nil {
		return m, err
	}
	if err := m.checkFiles(); err != nil {
		return m, err
	}
	if m.Accel == "auto" {
		m.Accel = "tcg"
		if m.Arch == probed {
			if ok, _ := ProbeKVM(ctx); ok {
				m.Accel = "kvm"
			}
		}
	}
	return m, nil
}

// lockFolder keeps two processes from starting a VM in one folder at once.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: another process is starting it", ErrRunning)
	}
	return func() { f.Close() }, nil
}

// launch starts QEMU in a folder whose files are ready, and waits for its monitor.
// It completes r and leaves it in the folder as soon as there is a process.
func launch(ctx context.Context, m Machine, dir string, r record) (*VM, error) {
	console := filepath.Join(dir, consoleLog)
	if err := os.Rename(console, filepath.Join(dir, consoleOld)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("vm %s: %w", m.Name, err)
	}
	if err := os.WriteFile(console, nil, 0o600); err != nil {
		return nil, fmt.Errorf("vm %s: console log: %w", m.Name, err)
	}
	argv := m.argv()
	v := &VM{
		Name: m.Name, Dir: dir, Forwards: m.Forwards,
		command: quote([]string{"cd", dir}) + "\n" + quote(argv) + "\n",
		owned:   true,
		done:    make(chan struct{}), more: make(chan struct{}), faulted: make(chan struct{}),
	}
	if err := v.exec(argv, m.Detached); err != nil {
		return nil, fmt.Errorf("vm %s: start %s: %w", m.Name, argv[0], err)
	}
	life := ctx
	if m.Detached {
		life = context.WithoutCancel(ctx)
	}
	life, v.cancel = context.WithCancel(life)
	r.Process, r.Started, r.Forwards, r.Command, r.Machine = v.ident, time.Now().UTC(), m.Forwards, v.command, &m
	var events *monitor
	err := writeRecord(dir, r)
	if err == nil {
		events, err = v.firstContact(ctx)
	}
	if err != nil {
		v.cancel()
		v.Kill()
		return nil, fmt.Errorf("vm %s: %w", m.Name, err)
	}
	v.watch(life, events, m)
	return v, nil
}

// exec starts QEMU. Its goroutine keeps its thread until QEMU has ended, because
// the kernel sends the parent-death signal when the thread that forked dies, not
// the process.
func (v *VM) exec(argv []string, detached bool) error {
	log, err := os.Create(filepath.Join(v.Dir, qemuLog))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = v.Dir, log, log
	// A process group of its own: Ctrl-C is for us, who shut the guest down.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if detached {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		v.waitErr = cmd.Wait()
		v.usage = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		close(v.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	v.ident = identify(cmd.Process.Pid)
	return nil
}

// firstContact waits for QEMU's monitor and returns the connection for events.
func (v *VM) firstContact(ctx context.Context) (*monitor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("QEMU's monitor is silent after %s", startLimit))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := dialMonitor(ctx, v.Dir, eventSock)
		if err == nil {
			return m, nil
		}
		select {
		case <-v.done:
			return nil, v.exitError()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C: // no socket yet, or QEMU is about to end
		}
	}
}

// watch starts the goroutines that accompany a VM to its end.
func (v *VM) watch(life context.Context, events *monitor, m Machine) {
	events.event = v.addEvent
	v.running.Go(func() {
		events.follow()
		events.conn.Close()
	})
	v.running.Go(func() {
		select {
		case <-v.done:
		case <-life.Done():
			if !m.Detached {
				v.Kill()
			}
		}
		events.conn.Close()
	})
	if m.ReadyLine != "" {
		v.running.Go(func() { v.restartOnce(life, regexp.MustCompile(m.ReadyLine)) })
	}
}

// addEvent keeps an event for WaitEvent and notices a machine that stands still.
func (v *VM) addEvent(e Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, e)
	close(v.more)
	v.more = make(chan struct{})
	// QEMU stops the guest where a write to an overlay finds the disk full.
	var io struct {
		Device  string `json:"device"`
		NoSpace bool   `json:"nospace"`
	}
	if e.Name == "BLOCK_IO_ERROR" && json.Unmarshal(e.Data, &io) == nil && io.NoSpace && v.fault == nil {
		v.fault = fmt.Errorf("guest stands still: %s: %w", or(io.Device, "disk"), ErrNoSpace)
		close(v.faulted)
	}
}

// halted returns why no wait for this guest can come to anything, or nil.
func (v *VM) halted() error {
	select {
	case <-v.done:
		return v.exitError()
	case <-v.faulted:
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.fault
	default:
		return nil
	}
}

// doubleFault is what Linux says when it dies of one.
var doubleFault = regexp.MustCompile(`(?i)double fault`)

// restartOnce resets a guest that double-faults before it is ready.
func (v *VM) restartOnce(ctx context.Context, ready *regexp.Regexp) {
	either := regexp.MustCompile("(?:" + ready.String() + ")|(?:" + doubleFault.String() + ")")
	line, err := v.Console().WaitLine(ctx, either)
	if err != nil || ready.MatchString(line) {
		return // the VM ended, or all is well
	}
	if v.Reset(ctx) == nil {
		v.restarts.Add(1)
	}
}

// Restarts says how often the VM was reset because of [Machine.ReadyLine]: 0 or 1.
func (v *VM) Restarts() int { return int(v.restarts.Load()) }

// WaitEvent waits for the nth event called name (n counts from 1) since the VM
// was started and returns it. Only the process that started a VM hears its events.
func (v *VM) WaitEvent(ctx context.Context, name string, n int) (Event, error) {
	if !v.owned {
		return Event{}, fmt.Errorf("vm %s: only the process that started it gets its events", v.Name)
	}
	for {
		v.mu.Lock()
		more, left := v.more, n
		for _, e := range v.events {
			if e.Name == name {
				if left--; left == 0 {
					v.mu.Unlock()
					return e, nil
				}
			}
		}
		v.mu.Unlock()
		select {
		case <-more:
		case <-v.done:
			return Event{}, fmt.Errorf("vm %s: event %s (%d of %d seen): %w", v.Name, name, n-left, n, v.exitError())
		case <-ctx.Done():
			return Event{}, fmt.Errorf("vm %s: event %s (%d of %d seen): %w", v.Name, name, n-left, n, context.Cause(ctx))
		}
	}
}

// PID is the number of QEMU's process.
func (v *VM) PID() int { return v.ident.PID }

// CommandLine is the shell command that QEMU was started with.
func (v *VM) CommandLine() string { return v.command }

// Done is closed when QEMU has ended.
func (v *VM) Done() <-chan struct{} { return v.done }

// Running says whether QEMU still runs.
func (v *VM) Running() bool {
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

// Wait waits until QEMU has ended. Where it ended otherwise than by the guest's
// wish or by ours, the error says how, with QEMU's last words.
func (v *VM) Wait() error {
	<-v.done
	v.cancel()
	v.running.Wait()
	if v.killed.Load() || v.waitErr == nil {
		return nil
	}
	return v.exitError()
}

// exitError says how QEMU ended. done is closed.
func (v *VM) exitError() error {
	how := "QEMU ended"
	if v.waitErr != nil {
		how += " with " + v.waitErr.Error()
	}
	if words := tail(filepath.Join(v.Dir, qemuLog), 1000); words != "" {
		how += ": " + words
	}
	return errors.New(how)
}

// Kill ends QEMU at once and waits for that. What the guest flushed is in its
// overlay; for a true power cut see package nbd.
func (v *VM) Kill() error {
	v.killed.Store(true)
	if err := v.ident.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill vm %s: %w", v.Name, err)
	}
	<-v.done
	return nil
}

// Stop presses the power button and waits for the guest to shut down. When ctx
// ends before that, it kills QEMU and says so.
func (v *VM) Stop(ctx context.Context) error {
	err := v.Powerdown(ctx)
	if err == nil {
		select {
		case <-v.done:
			return nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if !v.Running() {
		return nil
	}
	return errors.Join(fmt.Errorf("vm %s did not shut down and was killed: %w", v.Name, err), v.Kill())
}

// Close lets go of the VM: one in the foreground is killed, a detached or
// attached one runs on. The VM is of no use afterwards, and no goroutine is left
// but the one that waits for a detached child.
func (v *VM) Close() error {
	v.cancel()
	v.running.Wait()
	return nil
}

// CPUSeconds is the user and system time that QEMU has used so far, or all in
// all once it has ended. For a VM of another process that has ended it is an error.
func (v *VM) CPUSeconds() (float64, error) {
	if v.Running() {
		used, err := v.ident.cpu()
		if err == nil {
			return used.Seconds(), nil
		}
		if !v.owned {
			return 0, fmt.Errorf("cpu time of vm %s: %w", v.Name, err)
		}
		<-v.done // it ended while we were looking
	}
	if !v.owned {
		return 0, fmt.Errorf("cpu time of vm %s: it has ended, and only the process that started it knows", v.Name)
	}
	return v.usage.Seconds(), nil
}
