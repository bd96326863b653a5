// Package supervise turns service definitions into processes, and their exits
// into restarts or a failed service.
//
// In come [Service] values, what the services say over sd_notify, requests on the
// control socket, signals, the power key. Out go processes in their own cgroups,
// a log for each, beats for the watchdog, and in the end one word: reboot or
// poweroff. [Run] stops the services; processes that are none of them, mounts and
// the reboot itself are left to package shutdown.
//
// One goroutine owns all state and receives events from channels. What a service
// becomes is decided by [Life.Step] alone.
package supervise

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/cgroup"
	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/shutdown"
	"kogge.example/init/watchdog"
)

// The parts of the shutdown's budget for stopping the services, and for what
// PID 1 itself has under way.
const (
	servicesShare   = 45 * time.Second
	goroutinesShare = 5 * time.Second
)

// Config is what [Run] works with. Only Services has no default.
type Config struct {
	Services []Service
	// Dir is for the sockets notify and init.sock. Default /run/kogge; it is made
	// if it is not there.
	Dir string
	// Cgroups is the hierarchy after its Setup. Default: none, which is recorded
	// as degraded.
	Cgroups cgroup.Tree
	// Dog is fed while the loop turns and vital services can be killed. Default: none.
	Dog *watchdog.Dog
	// Budget starts when somebody asks for the end. Default: one of its own.
	Budget *shutdown.Budget
	// Degraded is shown by the control socket and gets what fails here. Default: a
	// record of its own.
	Degraded *Degraded
	// Say receives the important lines (a service changed its state, the machine
	// ends), in order, one call at a time. It may be slow: then lines are left out
	// and counted, the supervisor does not wait. Default: nobody hears them.
	Say func(line string)
	// Changed receives the newest status after something changed, one call at a
	// time; it may be slow and then misses the ones between. Default: nobody does.
	Changed func(control.Status)
	// Restarts are services to start anew, by name. Default: only control clients ask.
	Restarts <-chan string
	// Answer answers control requests that are not about services, in the client's
	// goroutine: it may be slow. Default: they are refused.
	Answer func(control.Request) control.Response
	// LogDir gets a bounded copy of each service's log. Default: RAM only.
	LogDir string
	// Trace gives somebody who listens for a service's log, beside LogDir; it is asked
	// once for each service. Default: nobody.
	Trace func(service string) io.WriteCloser
	// LogSize is the RAM for each service's log in bytes. Default 256 KiB.
	LogSize int
	// InputDir is watched for a power key. Default /dev/input.
	InputDir string
	// Self is the init binary, executed with the role "launch" (see [Launch]).
	// Default /proc/self/exe.
	Self string
}

// unit is a service with all that the loop knows about it.
type unit struct {
	Service
	life     Life
	pid      int // main process, 0: none
	next     int // announced by MAINPID=, not ours yet; 0: none
	starts   int
	lastExit string
	text     string
	sockets  []*os.File
	log      *serviceLog
}

// exit is the end of a process that belonged to u.
type exit struct {
	u      *unit
	pid    int
	status syscall.WaitStatus
}

// request is a control client's, for the loop to answer.
type request struct {
	control.Request
	answer chan<- control.Response // room for one
}

// supervisor is the machine. Everything below the channels belongs to the loop.
type supervisor struct {
	cfg      Config
	starter  starter
	started  time.Time
	exits    chan exit
	notices  chan message
	requests chan request
	power    chan shutdown.How
	done     chan struct{} // closed when the loop is over
	notify   *notifySocket // nil: there is none
	marks    int           // sent on it, see settle
	says     *mailbox
	changes  chan control.Status
	beats    chan watchdog.Beat
	wg       sync.WaitGroup

	units    []*unit // in order of definition
	byName   map[string]*unit
	ending   shutdown.How // empty until asked for
	endBy    time.Time
	changed  bool
	degraded int   // [Degraded.changed] as last seen
	cause    error // of an ending that nobody asked for in words
}

// Run starts the services and keeps them running until somebody asks for a
// reboot or poweroff: by control socket, power key, SIGINT (ctrl-alt-del) or
// SIGTERM (reboot), SIGPWR or SIGUSR2 (poweroff), or a panic in PID 1 (reboot).
// Then it stops the services, dependents first, within the shutdown's budget, and
// says how the machine is to end. When ctx is over it does the same and returns
// its cause. Any other error is a wrong definition, found before anything starts.
func Run(ctx context.Context, cfg Config) (shutdown.How, error) {
	s, err := prepare(cfg)
	if err != nil {
		return shutdown.Reboot, err
	}
	signals := make(chan os.Signal, 16)
	// All that would end a Go program, before the first child: as PID 1 we outlive them.
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPWR, syscall.SIGUSR2,
		syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGQUIT, syscall.SIGALRM, syscall.SIGPIPE)
	defer signal.Stop(signals)
	if os.Getpid() == 1 {
		// From now on ctrl-alt-del is a SIGINT for us instead of a reset.
		s.cfg.Degraded.Add("ctrl-alt-del", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
		lim := syscall.Rlimit{Cur: softNoFile, Max: DefaultNoFile}
		s.cfg.Degraded.Add("open files", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim))
		// A user namespace has those of the process that made it, the agent, as the bound of
		// all containers' together: one would use it up for the others. Each container has
		// its own limits, and its memory.
		for name, which := range map[string]int{"locked memory": unix.RLIMIT_MEMLOCK, "message queues": unix.RLIMIT_MSGQUEUE, "pending signals": unix.RLIMIT_SIGPENDING} {
			unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
			s.cfg.Degraded.Add("limit of "+name, unix.Setrlimit(which, &unlimited))
		}
	}
	stop := s.open()
	how, err := s.loop(ctx, signals)
	close(s.done)
	stop()
	s.wait()
	return how, err
}

// wait waits for the goroutines around the loop, but not for ever: a line of the
// log may hang on a dead disk, one for the console on a serial line.
func (s *supervisor) wait() {
	over := make(chan struct{})
	guard.Go("end", func() {
		s.wg.Wait()
		close(over)
	})
	select {
	case <-over:
	case <-time.After(max(time.Second, s.cfg.Budget.Share(time.Now(), goroutinesShare))):
		guard.Kmsg("supervisor: a log or a listener hangs, continuing without it")
	}
}

// prepare checks the configuration, fills in the defaults and makes the units.
func prepare(cfg Config) (*supervisor, error) {
	if err := Check(cfg.Services); err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		cfg.Dir = "/run/kogge"
	}
	if cfg.Dog == nil {
		cfg.Dog = watchdog.None(nil)
	}
	if cfg.Budget == nil {
		cfg.Budget = &shutdown.Budget{}
	}
	if cfg.Degraded == nil {
		cfg.Degraded = &Degraded{}
	}
	if cfg.LogSize == 0 {
		cfg.LogSize = 256 << 10
	}
	if cfg.InputDir == "" {
		cfg.InputDir = "/dev/input"
	}
	if cfg.Self == "" {
		cfg.Self = "/proc/self/exe"
	}
	now := time.Now()
	s := &supervisor{
		cfg: cfg, started: now, byName: map[string]*unit{},
		// Each process ends once and has one successor at most before the loop has
		// heard of it (MAINPID=): with this room the reaper never blocks.
		exits:    make(chan exit, 4*len(cfg.Services)+4),
		notices:  make(chan message),
		requests: make(chan request),
		power:    make(chan shutdown.How, 1),
		done:     make(chan struct{}),
		says:     newMailbox(256),
		changes:  make(chan control.Status, 1),
		beats:    make(chan watchdog.Beat, 1),
	}
	for _, def := range cfg.Services {
		u := &unit{Service: def, life: newLife(def, now)}
		s.units = append(s.units, u)
		s.byName[def.Name] = u
	}
	return s, nil
}

// open opens what the services need and starts the goroutines around the loop.
// What fails is recorded. The function it returns closes all of it.
func (s *supervisor) open() (stop func()) {
	var closers []func()
	fail := func(what string, err error) { s.cfg.Degraded.Add(what, err) }

	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		fail("services", err)
		null = os.Stdin
	}
	fail("run-time folder", os.MkdirAll(s.cfg.Dir, 0o755))
	if s.cfg.Cgroups.None() {
		fail("cgroups", fmt.Errorf("services run without cgroups of their own"))
	}
	s.starter = starter{
		self: s.cfg.Self, cgroups: s.cfg.Cgroups, null: null,
		notify: filepath.Join(s.cfg.Dir, "notify"),
	}

	// Before the sockets: their goroutines look at the logs.
	for _, u := range s.units {
		u.log, err = newServiceLog(s.cfg.LogSize)
		fail("log of "+u.Name, err)
		s.goes("log of "+u.Name, u.log.collect)
		if s.cfg.LogDir != "" {
			s.goes("log file of "+u.Name, func() {
				u.log.keep(newSpool(s.cfg.LogDir, u.Name))
			})
		}
		if s.cfg.Trace != nil {
			s.goes("trace of "+u.Name, func() { u.log.keep(s.cfg.Trace(u.Name)) })
		}
		fail("sockets of "+u.Name, u.listen())
		closers = append(closers, u.close)
	}

	notify, err := listenNotify(s.starter.notify)
	if err != nil {
		fail("sd_notify", err)
		for _, u := range s.units { // nobody can say READY=1 or WATCHDOG=1
			u.life.Notify, u.life.WatchdogTimeout = false, 0
		}
	} else {
		s.notify = notify
		s.goes("notices", func() { notify.receive(s.notices, s.done) })
		closers = append(closers, func() { notify.conn.Close() })
	}
	closeControl, err := s.serveControl(filepath.Join(s.cfg.Dir, "init.sock"))
	fail("control socket", err)
	closers = append(closers, closeControl)

	s.goes("power key", func() { watchPower(s.cfg.InputDir, "/sys/class/input", s.power, s.done) })
	s.goes("lines", func() { s.says.deliver(s.cfg.Say) })
	s.goes("changes", func() {
		for status := range s.changes {
			s.cfg.Changed(status)
		}
	})
	s.goes("watchdog", func() { s.cfg.Dog.Keep(s.beats, s.say) })
	return func() {
		for _, c := range slices.Backward(closers) {
			c()
		}
		close(s.beats)
		close(s.changes)
		s.says.close()
		null.Close()
	}
}

// listen opens the sockets of u that are not open yet; those after one that
// cannot be opened wait for the next call.
func (u *unit) listen() error {
	for _, sock := range u.Service.Sockets[len(u.sockets):] {
		f, err := listen(sock)
		if err != nil {
			return err
		}
		u.sockets = append(u.sockets, f)
	}
	return nil
}

// close gives back what belongs to a service beyond its processes.
func (u *unit) close() {
	u.log.close()
	for _, f := range u.sockets {
		f.Close()
	}
}

// goes starts a goroutine that Run waits for.
func (s *supervisor) goes(name string, f func()) {
	s.wg.Add(1)
	guard.Go(name, func() {
		defer s.wg.Done()
		f()
	})
}

// say gives one line to whoever listens, without waiting for them.
func (s *supervisor) say(line string) { s.says.put(line) }
