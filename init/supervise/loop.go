package supervise

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kogge.example/init/cgroup"
	"kogge.example/init/control"
	"kogge.example/init/guard"
	"kogge.example/init/shutdown"
	"kogge.example/init/watchdog"
)

// loop is the goroutine that owns the state. It returns when all services are
// stopped, or the time for that is over.
func (s *supervisor) loop(ctx context.Context, signals <-chan os.Signal) (shutdown.How, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	beat := time.NewTicker(s.cfg.Dog.Interval())
	defer beat.Stop()
	over := ctx.Done()
	s.beat(time.Now())
	for {
		now := time.Now()
		s.unblock(now)
		if s.ending != "" && s.end(now) {
			return s.ending, s.cause
		}
		s.publish()
		timer.Reset(s.next(now))
		select {
		case e := <-s.exits:
			s.settle()
			s.exited(e, time.Now())
		case m := <-s.notices:
			s.noticed(m, time.Now())
		case r := <-s.requests:
			r.answer <- s.answer(r.Request, time.Now())
		case name := <-s.cfg.Restarts:
			s.answer(control.Request{Op: control.OpRestart, Service: name}, time.Now())
		case sig := <-signals:
			switch sig {
			case syscall.SIGTERM, syscall.SIGINT:
				s.ask(shutdown.Reboot, "signal: "+sig.String())
			case syscall.SIGPWR, syscall.SIGUSR2:
				s.ask(shutdown.Poweroff, "signal: "+sig.String())
			}
		case how := <-s.power:
			s.ask(how, "power key")
		case why := <-guard.Broken():
			s.cause = fmt.Errorf("%w: %s", guard.ErrPanic, why)
			s.ask(shutdown.Reboot, s.cause.Error())
		case <-over:
			over = nil
			s.cause = context.Cause(ctx)
			s.ask(shutdown.Reboot, s.cause.Error())
		case <-beat.C:
			s.beat(time.Now())
		case <-timer.C:
			for _, u := range s.units {
				s.apply(u, Timer, time.Now())
			}
		}
	}
}

// next is how long the loop may sleep for its services' sake.
func (s *supervisor) next(now time.Time) time.Duration {
	sleep := time.Hour
	for _, u := range s.units {
		if due := u.life.Next(); !due.IsZero() {
			sleep = min(sleep, due.Sub(now))
		}
	}
	if s.ending != "" {
		sleep = min(sleep, s.endBy.Sub(now))
	}
	return max(sleep, 0)
}

// apply tells a service what happened and does what follows from it.
func (s *supervisor) apply(u *unit, e Event, now time.Time) {
	before := u.life
	life, action := u.life.Step(e, now)
	u.life = life
	switch action {
	case Start:
		u.text = ""
		if err := s.start(u); err != nil {
			u.lastExit = err.Error()
			s.apply(u, Exited, now)
			return
		}
	case Terminate:
		_ = children.signal(u.pid, syscall.SIGTERM, false)
	case Abort:
		_ = children.signal(u.pid, syscall.SIGABRT, false)
	case Kill:
		s.kill(u)
	}
	if before.State != u.life.State || action == Kill {
		s.changed = true
		s.say(u.line(e, action))
	}
}

// start starts the main process of u.
func (s *supervisor) start(u *unit) error {
	if len(u.sockets) < len(u.Service.Sockets) {
		if err := u.listen(); err != nil { // an address may come with the network
			return fmt.Errorf("start: %w", err)
		}
		s.cfg.Degraded.Clear("sockets of " + u.Name)
	}
	var self int // known before anybody can receive it
	var degraded error
	pid, err := children.start(func() (int, error) {
		var err error
		self, degraded, err = s.starter.fork(u.Service, u.log.out, u.sockets)
		return self, err
	}, func(status syscall.WaitStatus) { s.exits <- exit{u, self, status} })
	s.cfg.Degraded.Add("cgroup of "+u.Name, degraded)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	u.pid, u.next = pid, 0
	u.starts++
	s.cfg.Degraded.Add("memory priority of "+u.Name, adjust(pid, u.Service))
	return nil
}

// kill ends the main process of u and whatever else it started.
func (s *supervisor) kill(u *unit) {
	if u.pid != 0 {
		_ = children.signal(u.pid, syscall.SIGKILL, true)
	}
	if !s.cfg.Cgroups.None() {
		s.cfg.Degraded.Add("kill "+u.Name, s.cfg.Cgroups.Kill(groupOf(u.Name)))
	}
}

// exited is called for the end of every process that was once a main process.
func (s *supervisor) exited(e exit, now time.Time) {
	u := e.u
	if e.pid != u.pid {
		return // it had handed over by MAINPID= before
	}
	if u.next != 0 && s.adopt(u, u.next) {
		return
	}
	u.lastExit = describe(e.status)
	u.log.note("kogge: " + u.lastExit)
	// What it left behind in its group ends with it. Its process group is swept
	// too, for the case without cgroups: the number cannot be in use by somebody
	// else as long as a member of the group lives.
	if s.cfg.Cgroups.None() {
		_ = syscall.Kill(-e.pid, syscall.SIGKILL)
	}
	u.pid, u.next = 0, 0
	s.kill(u)
	s.apply(u, Exited, now)
}

// adopt makes pid the main process of u, if it is our own child in u's group by now.
func (s *supervisor) adopt(u *unit, pid int) bool {
	if s.cfg.Cgroups.None() {
		return false // nothing proves that it belongs to u
	}
	ours := func() bool {
		group, err := cgroup.Of(pid)
		return err == nil && s.inGroup(group, u) && parent(pid) == os.Getpid()
	}
	if !children.adopt(pid, ours, func(status syscall.WaitStatus) { s.exits <- exit{u, pid, status} }) {
		return false
	}
	u.pid, u.next = pid, 0
	s.changed = true
	if u.life.State == Stopping { // the one before was asked, but it was leaving anyway
		_ = children.signal(pid, syscall.SIGTERM, false)
	}
	return true
}

// parent is the parent of process pid, 0 if it is gone.
func parent(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// 1234 (any name) S 1 …
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// noticed is called for each sd_notify datagram.
func (s *supervisor) noticed(m message, now time.Time) {
	i := slices.IndexFunc(s.units, func(u *unit) bool {
		return u.pid != 0 && (m.pid == u.pid || m.session == u.pid || s.inGroup(m.group, u))
	})
	if i < 0 {
		return // not a service, or one that is gone
	}
	u := s.units[i]
	s.changed = s.changed || m.Changed
	if m.Status != nil && *m.Status != u.text {
		u.text = *m.Status
		s.changed = true
	}
	switch {
	case m.Errno != 0:
		u.text = printable(fmt.Sprintf("%s (%v)", u.text, syscall.Errno(m.Errno)), maxStatus)
	case m.Stopping && u.text == "":
		u.text = "stopping"
	case m.Reloading && u.text == "":
		u.text = "reloading"
	}
	if m.MainPID != 0 && m.MainPID != u.pid && !s.adopt(u, m.MainPID) {
		u.next = m.MainPID // looked at again when the present one exits
	}
	if m.Ready {
		s.apply(u, Ready, now)
	}
	if m.Watchdog {
		s.apply(u, Pinged, now)
	}
	if m.Trigger {
		s.apply(u, Hung, now)
	}
}

// inGroup says whether a path of [cgroup.Of] lies in u's group. The hierarchy
// may be mounted below its root (a test in a container), so the end decides.
func (s *supervisor) inGroup(group string, u *unit) bool {
	if group == "" || s.cfg.Cgroups.None() {
		return false
	}
	return strings.HasSuffix(group, groupOf(u.Name)) || strings.Contains(group, groupOf(u.Name)+"/")
}

// unblock starts what has waited long enough for others.
func (s *supervisor) unblock(now time.Time) {
	if s.ending != "" {
		return
	}
	for again := true; again; { // a service without Notify may unblock the next at once
		again = false
		for _, u := range s.units {
			if u.life.State != Waiting || slices.ContainsFunc(u.After, func(name string) bool {
				before := s.byName[name].life
				return before.State != Running && before.State != Stopped && !before.Failing()
			}) {
				continue
			}
			s.apply(u, Unblocked, now)
			again = true
		}
	}
}

// answer answers a control request that needs the state.
func (s *supervisor) answer(r control.Request, now time.Time) control.Response {
	switch r.Op {
	case control.OpStatus:
		status := s.status(now)
		return control.Response{Status: &status}
	case control.OpRestart, control.OpStart, control.OpStop:
		u := s.byName[r.Service]
		if u == nil {
			return control.Response{Error: fmt.Sprintf("no service %q", r.Service), NoService: true}
		}
		if s.ending != "" {
			return control.Response{Error: "the machine is going down"}
		}
		return s.order(r.Op, u, now)
	case control.OpReboot:
		s.ask(shutdown.Reboot, "request")
	case control.OpPoweroff:
		s.ask(shutdown.Poweroff, "request")
	}
	return control.Response{}
}

// order has a service start, stop or start anew. Those that a node always has are only started
// anew, and one that is not wanted now is none to start anew.
func (s *supervisor) order(op control.Op, u *unit, now time.Time) control.Response {
	stopped := u.life.State == Stopped || u.life.State == Stopping && u.life.Goal == Stopped
	switch {
	case op == control.OpRestart && u.OnDemand && stopped:
		return control.Response{Error: fmt.Sprintf("service %s does not run on this node now", u.Name), NoService: true}
	case op != control.OpRestart && !u.OnDemand:
		return control.Response{Error: fmt.Sprintf("service %s always runs", u.Name)}
	case op == control.OpRestart:
		s.say("service " + u.Name + ": restart requested")
		s.apply(u, Restart, now)
	case op == control.OpStart && stopped:
		s.apply(u, Restart, now)
	case op == control.OpStop && !stopped:
		s.apply(u, Stop, now)
	}
	return control.Response{}
}

// beat tells the watchdog that the loop turns.
func (s *supervisor) beat(now time.Time) {
	if n := s.cfg.Degraded.changed(); n != s.degraded {
		s.degraded, s.changed = n, true // recorded by somebody else
	}
	b := watchdog.Beat{At: now}
	for _, u := range s.units {
		if u.Vital && u.life.Stuck(now) {
			b.Stuck = append(b.Stuck, u.Name)
		}
	}
	select {
	case <-s.beats: // nobody fetched the last one: this one is younger
	default:
	}
	select {
	case s.beats <- b:
	default:
	}
}

// publish gives the newest status to whoever shows it.
func (s *supervisor) publish() {
	if !s.changed || s.cfg.Changed == nil {
		return
	}
	s.changed = false
	select {
	case <-s.changes:
	default:
	}
	s.changes <- s.status(time.Now()) // room for one, and only we fill it
}

// status is the answer to "how are you".
func (s *supervisor) status(now time.Time) control.Status {
	status := control.Status{
		UptimeSeconds: int64(uptime() / time.Second),
		Services:      []control.Service{},
		Degraded:      s.cfg.Degraded.List(),
		Ending:        string(s.ending),
	}
	for _, u := range s.units {
		if u.OnDemand && u.life.State == Stopped {
			continue
		}
		status.Services = append(status.Services, control.Service{
			Name: u.Name, State: string(u.life.State), PID: u.pid, Vital: u.Vital,
			// The clock may have been set since: the time passed is what holds.
			Since:   time.Now().Add(-now.Sub(u.life.Since)).UTC().Truncate(time.Millisecond),
			Failing: u.life.Failing(), Exits: u.life.Exits, Starts: u.starts,
			LastExit: u.lastExit, Text: u.text,
		})
	}
	return status
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	b, _ := os.ReadFile("/proc/uptime")
	seconds, _, _ := strings.Cut(string(b), ".")
	n, _ := strconv.ParseInt(seconds, 10, 64)
	return time.Duration(n) * time.Second
}
