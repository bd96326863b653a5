// Package keeper keeps the wanted containers of this node running.
//
// In come containers as [workload.Container]; out go calls of a container engine and of
// the containers' networks, and a [workload.Status] of each container. A [Keeper] owns
// their states and decides by [Unit.Step], which is pure.
//
// A set of wanted containers goes this way: [Keeper.Want] takes it (want.go), the Keeper's
// loop compares it with what there is and arranges networks and places (session.go, want.go),
// adopts what runs already (adopt.go), and lets each unit that is ready take a step (order.go,
// step in this file, which asks [Unit.Step]). A step that starts one is in start.go: it
// fetches the image (fetch.go), and calls Engine.Prepare, Bridges.Attach and Engine.Start.
// What is to stop is taken down with the time that it has (ending.go), and what nobody wants
// leaves (leaving.go).
//
// Containers are children of their shims: they go on while the agent or containerd is
// restarted, and the Keeper adopts them. The package knows neither containerd nor the
// kernel's networks: packages engine and bridge are their doors.
package keeper

import (
	"context"
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
	CheckImage(ctx context.Context, c workload.Container) error
	Pull(ctx context.Context, image, platform string, report func(workload.Progress)) error
	Complete(ctx context.Context, c workload.Container) (workload.Container, error)
	Health(ctx context.Context, c workload.Container) (workload.Health, error)
	Test(ctx context.Context, name string, h workload.Health) (good bool, output string)
	Start(ctx context.Context, c workload.Container, i workload.Instance, at workload.Namespaces) error
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
	Attach(id string, at []workload.Address, apart bool, more ...workload.Extents) (workload.Namespaces, error)
	Detach(id string) error
	Attached() ([]string, error)
	Publish(ports []workload.Publish) error
	Follow() (moving map[string]string, err error)
}

// resolver is the node's name server for containers. nameserver.Server fits.
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
	// Memory is the most that one container can have, in bytes; 0: not known. It is said of
	// those that may have ended for want of more.
	Memory int64
	// Report is called by Run after every change and every Tick, so that silence
	// means that Run hangs. It must not block.
	Report func(workload.Status)
	// Tick is how often Run shows that it is alive and brings the containers'
	// files up to date. Default: 5 s.
	Tick time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	units      map[string]*unit
	ids        []string                   // of the units, in order
	subnets    map[string]workload.Subnet // by name of the network
	leaving    map[string]*leaver         // which nobody wants, by name
	locks      locks
	events     chan event
	workers    *sync.WaitGroup // of this session
	strays     []chan struct{} // workers of earlier ones; each is closed when they have ended
	runs       int             // the newest run of any unit
	behind     bool            // set is another one than that of units
	revised    uint64          // the generation of the set of units
	generation uint64          // of the one that was last compared with what there is
	seen       bool            // one was
	ahead      bool            // units are of a later set, which was not
	trouble    string          // with containerd or the port map, in words
	links      string          // trouble with the node's own links, in words
	publish    bool            // the port map is not yet as it should be

	patience  time.Duration // 0: the constant's
	turn      time.Duration // 0: startTurn
	made      sync.Once     // makes the channels
	changed   chan struct{} // of size 1; receives when set is another one
	requests  chan request
	over      chan struct{} // closed when Run has returned
	beginning chan struct{} // holds one for each start that has its turn

	mu      sync.Mutex // guards what follows
	set     []workload.Container
	newest  uint64               // the generation of set
	blamed  map[string]string    // why the node ends an instance, by its name
	endings []*ending            // what is to stop
	told    map[string]time.Time // when instances that could not be removed yet were told to stop, by name
	last    workload.Status
}

// unit is one wanted container, and what happens to it.
type unit struct {
	Unit
	want   workload.Container
	now    workload.Instance
	found  *workload.Found    // what there is of it; nil: nothing, or no more
	old    *workload.Record   // unless Old is Alone
	reason string             // why it does not run, in words
	stuck  string             // why the last try to take old away failed, in words; "" before that
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

	lives  bool // its instance may still run: the next start ends that first
	again  bool // an operator asked for the restart that goes on
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
	why    string             // the node ended it, see [Keeper.Because]
}

func (k *Keeper) init() {
	k.made.Do(func() {
		k.changed = make(chan struct{}, 1)
		k.requests = make(chan request)
		k.over = make(chan struct{})
		k.events = make(chan event)
		k.beginning = make(chan struct{}, startsAtOnce)
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
		if k.behind {
			k.revise(ctx, nil) // the next session finds what is there
		}
		for id := range k.units {
			k.step(ctx, event{id: id, kind: Lost})
		}
		if k.trouble != err.Error() {
			k.trouble = err.Error()
			complain(err)
		}
		if !k.rest(ctx) {
			return
		}
	}
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
	if e.kind == Failed || e.kind == Succeeded {
		e.why = k.because(u.now.Name)
	}
	if e.kind == Failed || e.kind == Succeeded || e.kind == Removed {
		u.lives = false
	}
	u.again = u.again && u.State == workload.Starting
	u.explain(e, k.Memory)
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
			u.old, u.stuck = nil, ""
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
				complain(err)
			}
		})
	}
}

// explain keeps of an event what people want to know; most is [Keeper.Memory].
func (u *unit) explain(e event, most int64) {
	switch e.kind {
	case Started, Adopted, StartAsked, RestartAsked, Ready:
		u.reason = ""
	case StartFailed, RemoveFailed, Unfit:
		u.reason = workload.Line(e.err.Error())
	case OldStuck:
		u.stuck = clings(u.old.Name, e.err)
	case OldRemoved:
		if u.State == workload.Starting {
			u.reason = ""
		}
	case Succeeded, Failed:
		u.code, u.reason = e.code, exited(e.code, u.want.Memory, most)
		if e.why != "" {
			u.reason = ended(e.code, e.why)
		}
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
	u.follow, u.lives = false, true
	u.health = e.check
	u.began = e.began
	seen := Seen
	if e.kind == Started {
		if k.leaving[u.now.Name] != nil { // and could not be removed: its start has done that
			k.tidy(event{name: u.now.Name})
		}
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

// send gives up when the session does. The next one is not told what an earlier one began.
func (k *Keeper) send(ctx context.Context, e event) {
	if ctx.Err() != nil {
		return
	}
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
				complain(err)
			}
		}
	}
}
