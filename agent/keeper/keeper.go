// Package keeper keeps the wanted containers of this node running.
//
// In come containers as [workload.Container]; out go calls of a container engine and of
// the containers' networks, and a [workload.Status] of each container. A [Keeper] owns
// their states and decides by [Unit.Step], which is pure.
//
// Containers are children of their shims: they go on while the agent or containerd is
// restarted, and the Keeper adopts them. The package knows neither containerd nor the
// kernel's networks: packages engine and bridge are their doors.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"kogge.example/agent/nameserver"
	"kogge.example/agent/workload"
	"kogge.example/init/rights"
)

// engine is containerd as the Keeper needs it. engine.Engine fits, and so does the one
// of the tests, which fails on demand.
type engine interface {
	List(ctx context.Context) ([]workload.Found, error)
	Lost(ctx context.Context) error
	Digest(ctx context.Context, image string) (string, error)
	Lacks(ctx context.Context, c workload.Container) error
	Pull(ctx context.Context, image, platform string, report func(workload.Progress)) error
	Health(ctx context.Context, c workload.Container) (workload.Health, error)
	Test(ctx context.Context, name string, h workload.Health) (good bool, output string)
	Start(ctx context.Context, c workload.Container, i workload.Instance, at workload.Place) error
	Wait(ctx context.Context, name string) (int, error)
	Mark(ctx context.Context, name string, code int) error
	Relieve(ctx context.Context, name string) error
	Remove(ctx context.Context, name, signal string, grace time.Duration) error
	Prepare(c workload.Container, name string) error
	WriteFiles(c workload.Container, name string, v workload.View) error
	RemoveFiles(name string) error
}

// network is the containers' networks. [bridge.Bridges] fits, and so does the one of
// the tests.
type network interface {
	Make(wanted []workload.Network) (map[string]workload.Subnet, error)
	Prune(wanted []workload.Network) error
	Attach(id string, at []workload.Address, apart bool) (workload.Place, error)
	Detach(id string) error
	Attached() ([]string, error)
	Publish(ports []workload.Publish) error
}

// resolver is the node's name server for containers. [names.Server] fits.
type resolver interface{ Set(nameserver.Table) }

// Keeper keeps a set of containers running. One goroutine, that of Run, owns all of its
// state; whatever takes time runs beside it and answers with an event, and whoever wants
// another set (see [Keeper.Want]) or something of one container (see [Keeper.Request])
// asks by a channel too.
type Keeper struct {
	// Engine and Network do the work.
	Engine  engine
	Network network
	// Names answers the containers' questions for each other's names, beside their
	// files. Default: nobody does.
	Names resolver
	// Allow is what the node's own file allows containers, see [workload.Denied]. What is not
	// allowed does not run, and does not go on.
	Allow []rights.Allow
	// Apart gives containers user namespaces of their own where that goes.
	Apart bool
	// Report is called by Run after every change and every Tick, so that silence
	// means that Run hangs. It must not block.
	Report func(workload.Status)
	// Tick is how often Run shows that it is alive and brings the containers'
	// files up to date. Default: 5 s.
	Tick time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	units   map[string]*unit
	ids     []string                   // of the units, in order
	subnets map[string]workload.Subnet // by name of the network
	leaving map[string]workload.Record // which nobody wants, by name
	locks   locks
	events  chan event
	workers sync.WaitGroup
	runs    int    // the newest run of any unit
	trouble string // with containerd or the port map, in words
	publish bool   // the port map is not yet as it should be

	made     sync.Once     // makes the channels
	changed  chan struct{} // of size 1; receives when set is another one
	requests chan request
	over     chan struct{} // closed when Run has returned

	mu   sync.Mutex // guards what follows
	set  []workload.Container
	last workload.Status
}

// unit is one wanted container, and what happens to it.
type unit struct {
	Unit
	want   workload.Container
	now    workload.Instance
	found  *workload.Found    // what there is of it; nil: nothing, or no more
	old    *workload.Record   // unless Old is Alone
	reason string             // why it does not run, in words
	code   int                // of its last exit
	pull   *workload.Progress // of its image; for a start that waits for that
	tried  bool               // a first start has succeeded or failed
	starts int
	began  time.Time // when the process that runs was started, by the clock

	// run is another number whenever it comes to run, ceases to, or is wanted otherwise,
	// and cancel ends what goes on beside a start or a run: what an earlier run still has
	// to say is not heard.
	run    int
	cancel context.CancelFunc // nil before the first start

	health workload.Health // complete; without a Test it has no check
	check  Check
	tested time.Time
	output string // of the last test

	anew   bool // its next start replaces another container of that name
	follow bool // what it goes by was replaced: restart it, too
}

type event struct {
	id     string
	kind   Event
	health HealthEvent // instead of kind
	run    int         // of the unit; 0 for what concerns it whatever runs
	code   int
	err    error
	took   time.Duration      // of a start: from nothing to a running process
	began  time.Time          // of Adopted: when that was
	check  workload.Health    // of Started and Adopted
	output string             // of a test
	pull   *workload.Progress // instead of kind: how far the image of a start is
	name   string             // of the old instance that it is about
}

// reconnect is the pause before containerd is asked again.
const reconnect = 500 * time.Millisecond

func (k *Keeper) init() {
	k.made.Do(func() {
		k.changed = make(chan struct{}, 1)
		k.requests = make(chan request)
		k.over = make(chan struct{})
	})
}

// Run keeps the wanted containers running, and no others, until ctx ends; then it
// leaves them running. Before the first [Keeper.Want] it touches nothing. It survives
// containerd: while that is away nothing is started or stopped.
func (k *Keeper) Run(ctx context.Context) {
	k.init()
	defer close(k.over)
	if k.Tick == 0 {
		k.Tick = 5 * time.Second
	}
	if k.Now == nil {
		k.Now = time.Now
	}
	select {
	case <-ctx.Done():
		return
	case <-k.changed:
		k.revise(ctx, nil)
	}
	for {
		err := k.session(ctx)
		if ctx.Err() != nil {
			return
		}
		for id := range k.units {
			k.step(ctx, event{id: id, kind: Lost})
		}
		if k.trouble != err.Error() {
			k.trouble = err.Error()
			log.Printf("workloads: %v", err)
		}
		if !k.rest(ctx) {
			return
		}
	}
}

// rest is the pause before the next session. It returns false when ctx ends.
func (k *Keeper) rest(ctx context.Context) bool {
	over := time.After(reconnect)
	for {
		k.report()
		select {
		case <-ctx.Done():
			return false
		case <-over:
			return true
		case <-k.changed:
			k.revise(ctx, nil) // the next session finds what is there
		case r := <-k.requests:
			k.take(ctx, r, false)
		}
	}
}

// session lasts as long as containerd does: it finds out what is there, makes it
// what is wanted and keeps it so. It returns why it had to end.
func (k *Keeper) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer k.workers.Wait()
	defer cancel()
	found, err := k.Engine.List(ctx)
	if err != nil {
		return err
	}
	k.trouble = ""
	k.events = make(chan event)
	k.workers.Go(func() {
		if err := k.Engine.Lost(ctx); err != nil {
			k.send(ctx, event{kind: Lost, err: err})
		}
	})
	k.leaving = make(map[string]workload.Record)
	k.subnets = make(map[string]workload.Subnet)
	for _, u := range k.units {
		u.now.At = nil
	}
	k.arrange(ctx, found, nil)
	return k.loop(ctx)
}

// arrange goes from what is there to what is wanted: for the units that wait, all of
// them in a new session, and for what nobody wants, former among it.
func (k *Keeper) arrange(ctx context.Context, found []workload.Found, former []workload.Record) {
	k.linkAll(found)
	k.choose(ctx, found)
	leave := k.unwanted(found, former)
	k.placeAll()
	// Before anything starts: the table keeps networks apart. What was found running
	// stays published meanwhile.
	k.publish = true
	k.publishPorts()
	k.sweep(ctx, leave)
	k.adopt(ctx)
	k.refresh()
}

func (k *Keeper) loop(ctx context.Context) error {
	tick := time.NewTicker(k.Tick)
	defer tick.Stop()
	for {
		k.publishPorts()
		k.report()
		var timer <-chan time.Time
		if next, ok := k.next(); ok {
			timer = time.After(next.Sub(k.Now()))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-k.events:
			if k.stale(e) {
				continue
			}
			switch e.kind {
			case Lost:
				return e.err
			case swept:
				k.tidy(e.name)
			default:
				k.handle(ctx, e)
			}
		case <-k.changed:
			if err := k.change(ctx); err != nil {
				return err
			}
		case r := <-k.requests:
			k.take(ctx, r, true)
		case <-timer:
			for id, u := range k.units {
				e := event{id: id, kind: Timer}
				if u.State == workload.Running {
					k.step(ctx, event{id: id, health: Due})
				}
				k.step(ctx, e)
			}
			k.advance(ctx)
		case <-tick.C:
			k.refresh()
		}
	}
}

// stale says whether e is about a run that is over, or a container that is not wanted
// any more.
func (k *Keeper) stale(e event) bool {
	if e.id == "" {
		return false
	}
	u := k.units[e.id]
	return u == nil || e.run != 0 && e.run != u.run || e.name != "" && (u.old == nil || e.name != u.old.Name)
}

// next is when a pause ends or a test is due, whichever comes first.
func (k *Keeper) next() (earliest time.Time, ok bool) {
	for _, u := range k.units {
		var all [3]time.Time
		switch {
		case u.State == workload.Backoff || u.State == workload.Stopping:
			all[0] = u.NotBefore
		case u.State == workload.Running && !u.check.Testing:
			all[0] = u.check.Next
		}
		switch {
		case u.Old == Draining || u.Old == Leaving:
			all[1] = u.Until
		case u.Old == Serving && u.State == workload.Running && len(u.health.Test) == 0:
			all[2] = u.Since.Add(drain)
		}
		for _, t := range all {
			if !t.IsZero() && (!ok || t.Before(earliest)) {
				earliest, ok = t, true
			}
		}
	}
	return earliest, ok
}

func exit(id string, code int) event {
	kind := Failed
	if code == 0 {
		kind = Succeeded
	}
	return event{id: id, kind: kind, code: code}
}

// handle is step, and what follows for others.
func (k *Keeper) handle(ctx context.Context, e event) {
	k.step(ctx, e)
	k.advance(ctx)
}

// step does what Step says about an event.
func (k *Keeper) step(ctx context.Context, e event) {
	u := k.units[e.id]
	if e.health != "" {
		k.inspect(ctx, u, e)
		return
	}
	if e.pull != nil {
		u.pulling(e.pull)
		return
	}
	before, old := u.State, u.Old
	var action Action
	u.Unit, action = u.Step(e.kind, k.Now())
	u.explain(e)
	if before == workload.Running && (u.State != workload.Running || action == Start) {
		u.cancel()
		u.run = k.nextRun()
		k.inspect(ctx, u, event{health: Down})
	}
	switch u.State {
	case workload.Running, workload.Backoff, workload.Ended, workload.Stopping, workload.Stopped:
		u.tried = true
	}
	if u.Old != old {
		k.publish = true
		if u.Old == Alone {
			u.old = nil
		}
		if e.kind != Lost {
			k.prune()
			defer k.refresh()
		}
	}
	if u.State != before {
		k.publish = k.publish || u.State == workload.Running || before == workload.Running
		k.note(e, u)
	}
	switch action {
	case Start:
		u.anew = u.anew || e.kind == RestartAsked
		k.start(ctx, u)
	case Watch:
		k.running(ctx, u, e)
	case Cancel:
		u.cancel()
	case Remove:
		k.drop(ctx, u)
	case Relieve:
		k.relieve(ctx, u)
	case Discard:
		k.discard(ctx, u)
	case RemoveOld:
		k.removeOld(ctx, u)
	case Mark:
		name := u.now.Name
		lock := k.locks.queue(name) // at once: it is not for an instance that is started after it
		k.workers.Go(func() {
			defer lock()()
			if err := k.Engine.Mark(ctx, name, e.code); err != nil && ctx.Err() == nil {
				log.Printf("workloads: %v", err)
			}
		})
	}
}

// explain keeps of an event what people want to know.
func (u *unit) explain(e event) {
	switch e.kind {
	case Started, Adopted, StartAsked, RestartAsked, Ready:
		u.reason = ""
	case StartFailed, RemoveFailed, Unfit:
		u.reason = e.err.Error()
	case Succeeded, Failed:
		u.code, u.reason = e.code, fmt.Sprintf("exit code %d", e.code)
	case StopAsked, Removed:
		u.reason = ""
		if u.Held {
			u.reason = "by request"
		}
	}
}

// running begins what goes on while a container runs.
func (k *Keeper) running(ctx context.Context, u *unit, e event) {
	whole, cancel := context.WithCancel(ctx)
	u.cancel = cancel
	u.run = k.nextRun()
	u.follow = false
	u.health = e.check
	u.began = e.began
	seen := Seen
	if e.kind == Started {
		seen = Up
		u.starts++
		u.began = k.Now()
		if u.anew && u.Old != Serving {
			u.anew = false
			k.replaced(u.want.ID)
		}
	}
	k.watch(whole, u)
	k.inspect(ctx, u, event{health: seen})
}

// note writes the line that an operator looks for.
func (k *Keeper) note(e event, u *unit) {
	switch u.State {
	case workload.Running:
		took := ""
		if e.took > 0 {
			took = " in " + e.took.Round(time.Millisecond).String()
		}
		log.Printf("container %s: running (%s%s)%s", e.id, e.kind, took, places(u.now.At))
	case workload.Backoff:
		log.Printf("container %s: %s; next start in %s", e.id, u.reason, u.NotBefore.Sub(k.Now()).Round(time.Millisecond))
	case workload.Ended:
		log.Printf("container %s: ended, %s, restart policy %q", e.id, u.reason, u.Restart.Policy)
	case workload.Stopped:
		log.Printf("container %s: stopped by request", e.id)
	case workload.Replacing:
		log.Printf("container %s: %s has to stop first", e.id, u.old.Name)
	}
}

// startLimit is generous: a slow disk unpacks nothing here, but a slow machine
// runs three programs.
const startLimit = 2 * time.Minute

func (k *Keeper) start(ctx context.Context, u *unit) {
	err := k.place(u)
	c, i, v, old, run := u.want, u.now, k.view(u, u.now), u.Old == Serving, u.run
	whole, cancel := context.WithCancel(ctx)
	u.cancel = cancel
	k.workers.Go(func() {
		defer cancel()
		if err == nil {
			err = workload.Denied(c, k.Allow)
		}
		// Before what is left of it goes: of a pull that fails nobody should notice.
		if err == nil {
			err = k.fetch(whole, c, func(p workload.Progress) { k.send(ctx, event{id: c.ID, run: run, pull: &p}) })
		}
		if err == nil && old && !c.Beside(k.health(whole, c)) {
			k.send(ctx, event{id: c.ID, run: run, kind: MustGo})
			return
		}
		var took time.Duration
		var check workload.Health
		if err == nil {
			limited, done := context.WithTimeout(whole, c.StopGrace+startLimit)
			defer done()
			took, check, err = k.begin(limited, c, i, v)
		}
		if err != nil {
			k.send(ctx, event{id: c.ID, run: run, kind: StartFailed, err: err})
			return
		}
		k.send(ctx, event{id: c.ID, run: run, kind: Started, took: took, check: check})
	})
}

// drop takes a container away at an operator's request.
func (k *Keeper) drop(ctx context.Context, u *unit) {
	id, run, all := u.want.ID, u.run, u.records()
	var locks []func() func()
	for _, r := range all {
		locks = append(locks, k.locks.queue(r.Name))
	}
	k.workers.Go(func() {
		errs := make([]error, len(all))
		var both sync.WaitGroup
		for i, r := range all {
			both.Go(func() { errs[i] = k.takeAway(ctx, r, locks[i]) })
		}
		both.Wait()
		if err := errors.Join(errs...); err != nil {
			k.send(ctx, event{id: id, run: run, kind: RemoveFailed, err: err})
			return
		}
		k.send(ctx, event{id: id, run: run, kind: Removed})
	})
}

// begin takes away what is left of the instance i of c and starts it. took is the time
// from there to the running process: container, network, task.
func (k *Keeper) begin(ctx context.Context, c workload.Container, i workload.Instance, v workload.View) (took time.Duration, check workload.Health, err error) {
	defer k.locks.queue(i.Name)()()
	if err := ctx.Err(); err != nil {
		return 0, workload.Health{}, err // given up: what follows in the queue has nothing to take away
	}
	if err := k.Engine.Remove(ctx, i.Name, c.StopSignal, c.StopGrace); err != nil {
		return 0, workload.Health{}, err
	}
	began := time.Now()
	if err := k.Engine.Prepare(c, i.Name); err != nil {
		return 0, workload.Health{}, err
	}
	if err := k.Engine.WriteFiles(c, i.Name, v); err != nil {
		return 0, workload.Health{}, err
	}
	// Beside the start: it reads the image's configuration.
	var own workload.Health
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { own = k.health(ctx, c) })
	var place workload.Place // the node's
	if !c.Shares(rights.HostNetwork) {
		if place, err = k.Network.Attach(i.Name, i.At, k.Apart && c.Apart()); err != nil {
			return 0, workload.Health{}, err
		}
	}
	if err := k.Engine.Start(ctx, c, i, place); err != nil {
		return 0, workload.Health{}, err
	}
	took = time.Since(began)
	beside.Wait()
	return took, own, nil
}

// watch waits for the exit of a running container; ctx is that of its run. When
// waiting itself fails, only a look at everything tells whether the container is gone
// or containerd is.
func (k *Keeper) watch(ctx context.Context, u *unit) {
	id, name, run := u.want.ID, u.now.Name, u.run
	k.workers.Go(func() {
		code, err := k.Engine.Wait(ctx, name)
		e := exit(id, code)
		if err != nil {
			e = event{id: id, kind: Lost, err: err}
		}
		e.run = run
		k.send(ctx, e)
	})
}

// send gives up when the session does.
func (k *Keeper) send(ctx context.Context, e event) {
	select {
	case k.events <- e:
	case <-ctx.Done():
	}
}

// refresh brings what containers know of each other up to date: resolv.conf and hosts,
// and the name server.
func (k *Keeper) refresh() {
	if k.Names != nil {
		k.Names.Set(k.table())
	}
	for _, id := range k.ids {
		u := k.units[id]
		var there []workload.Instance
		if u.State == workload.Running { // else the next start writes them
			there = append(there, u.now)
		}
		if u.Old == Serving {
			there = append(there, u.old.Instance)
		}
		for _, i := range there {
			if err := k.Engine.WriteFiles(u.want, i.Name, k.view(u, i)); err != nil {
				log.Printf("workloads: %v", err)
			}
		}
	}
}
