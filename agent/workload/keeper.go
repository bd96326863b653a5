package workload

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"kogge.example/agent/workload/bridge"
)

// engine is containerd as the Keeper needs it. [Engine] fits, and so does the one
// of the tests, which fails on demand.
type engine interface {
	List(ctx context.Context) ([]Found, error)
	Lost(ctx context.Context) error
	Digest(ctx context.Context, image string) (string, error)
	Start(ctx context.Context, c Container, addr netip.Addr, netns string) error
	Wait(ctx context.Context, id string) (int, error)
	Mark(ctx context.Context, id string, code int) error
	Remove(ctx context.Context, id, signal string, grace time.Duration) error
	Volumes(c Container) error
	WriteFiles(c Container, peers map[string]netip.Addr) error
	RemoveFiles(id string) error
}

// network is the containers' network. [bridge.Bridge] fits, and so does the one of
// the tests.
type network interface {
	Attach(id string, addr netip.Addr) (string, error)
	Detach(id string) error
	Attached() ([]string, error)
	Publish(ports []bridge.Publish) error
}

// Keeper keeps a fixed set of containers running. One goroutine, that of Run, owns
// all of its state; whatever takes time runs beside it and answers with an event.
type Keeper struct {
	// Engine and Network do the work.
	Engine  engine
	Network network
	// Subnet is where addresses come from.
	Subnet netip.Prefix
	// Report is called by Run after every change and every Tick, so that silence
	// means that Run hangs. It must not block.
	Report func(Status)
	// Tick is how often Run shows that it is alive and brings the containers'
	// files up to date. Default: 5 s.
	Tick time.Duration
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	units   map[string]*unit
	events  chan event
	workers sync.WaitGroup
	trouble string // with containerd or the port map, in words
	publish bool   // the port map is not yet as it should be
}

// unit is one wanted container, and what happens to it.
type unit struct {
	Unit
	want   Container
	addr   netip.Addr
	reason string // why it does not run, in words
	tried  bool   // a first start has succeeded or failed
}

type event struct {
	id   string
	kind Event
	code int
	err  error
	took time.Duration // of a start: from nothing to a running process
}

// Status is what the Keeper knows, for people.
type Status struct {
	// Settled says that every container had its first start, well or not.
	Settled bool
	// Trouble is with the node rather than with one container; "" is none.
	Trouble string
	Units   []UnitStatus // by name
}

// UnitStatus is the state of one container.
type UnitStatus struct {
	ID     string
	State  State
	Exits  int
	Reason string // why it does not run; "" if it does
}

// String is one line: what is wrong first.
func (s Status) String() string {
	var parts []string
	if s.Trouble != "" {
		parts = append(parts, s.Trouble)
	}
	running := 0
	for _, u := range s.Units {
		if u.State == Running {
			running++
			continue
		}
		text := u.ID + " " + string(u.State)
		if u.Reason != "" {
			text += ": " + u.Reason
		}
		parts = append(parts, text)
	}
	parts = append(parts, fmt.Sprintf("%d of %d containers running", running, len(s.Units)))
	return strings.Join(parts, "; ")
}

// reconnect is the pause before containerd is asked again.
const reconnect = 500 * time.Millisecond

// Run keeps the wanted containers running, and no others, until ctx ends; then it
// leaves them running and returns nil. It survives containerd: while that is away
// nothing is started or stopped. Two containers with one name are an error.
func (k *Keeper) Run(ctx context.Context, wanted []Container) error {
	if k.Tick == 0 {
		k.Tick = 5 * time.Second
	}
	if k.Now == nil {
		k.Now = time.Now
	}
	k.units = make(map[string]*unit, len(wanted))
	for _, c := range wanted {
		if _, twice := k.units[c.ID]; twice {
			return fmt.Errorf("container %s is wanted twice", c.ID)
		}
		k.units[c.ID] = &unit{want: c, Unit: Unit{State: Waiting, Restart: c.Restart}}
	}
	for {
		err := k.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, u := range k.units {
			u.Unit, _ = u.Step(Lost, k.Now())
		}
		if k.trouble != err.Error() {
			k.trouble = err.Error()
			log.Printf("workloads: %v", err)
		}
		k.report()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnect):
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
	if err := k.address(found); err != nil {
		return err
	}
	k.sweep(ctx, found)
	k.adopt(ctx, found)
	return k.loop(ctx)
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
			if e.kind == Lost {
				return e.err
			}
			k.handle(ctx, e)
		case <-timer:
			for id, u := range k.units {
				if u.State == Backoff {
					k.handle(ctx, event{id: id, kind: Timer})
				}
			}
		case <-tick.C:
			k.refresh()
		}
	}
}

// next is the earliest end of a pause.
func (k *Keeper) next() (earliest time.Time, ok bool) {
	for _, u := range k.units {
		if u.State == Backoff && (!ok || u.NotBefore.Before(earliest)) {
			earliest, ok = u.NotBefore, true
		}
	}
	return earliest, ok
}

// address gives every wanted container the address it had, or a free one.
func (k *Keeper) address(found []Found) error {
	used := make(map[netip.Addr]bool)
	for _, f := range found {
		if u := k.units[f.ID]; u != nil && !u.addr.IsValid() && k.Subnet.Contains(f.Address) && !used[f.Address] {
			u.addr = f.Address
			used[f.Address] = true
		}
	}
	for _, u := range k.units {
		if u.addr.IsValid() {
			used[u.addr] = true
		}
	}
	for _, id := range k.names() {
		if u := k.units[id]; !u.addr.IsValid() {
			a, err := bridge.Free(k.Subnet, used)
			if err != nil {
				return err
			}
			u.addr, used[a] = a, true
		}
	}
	return nil
}

// ports are those of running containers: for any other the node itself answers
// "refused" at once, where a packet to nobody would be waited for.
func (k *Keeper) ports() []bridge.Publish {
	var all []bridge.Publish
	for _, id := range k.names() {
		u := k.units[id]
		if u.State != Running {
			continue
		}
		for _, p := range u.want.Ports {
			all = append(all, bridge.Publish{
				Protocol: p.Protocol, HostIP: p.HostIP, HostPort: p.HostPort,
				To: netip.AddrPortFrom(u.addr, p.Container),
			})
		}
	}
	return all
}

// publishPorts makes the port map what it should be, if it is not known to be.
// Without it containers may still be of use to each other, so it is tried again
// and stops nothing.
func (k *Keeper) publishPorts() {
	if !k.publish {
		return
	}
	trouble := ""
	if err := k.Network.Publish(k.ports()); err != nil {
		trouble = "published ports: " + err.Error()
		if trouble != k.trouble {
			log.Printf("workloads: %s", trouble)
		}
	}
	k.trouble, k.publish = trouble, trouble != ""
}

// sweep takes away what nobody wants: containers of an earlier configuration, and
// networks of containers that are gone.
func (k *Keeper) sweep(ctx context.Context, found []Found) {
	attached, err := k.Network.Attached()
	if err != nil {
		log.Printf("workloads: %v", err)
	}
	// After a boot there is no port map to correct, and none is needed yet.
	k.publish = len(attached) > 0 || err != nil
	gone := make(map[string]bool)
	for _, id := range attached {
		gone[id] = k.units[id] == nil
	}
	for _, f := range found {
		gone[f.ID] = k.units[f.ID] == nil
	}
	for id, yes := range gone {
		if !yes {
			continue
		}
		k.workers.Go(func() {
			if err := k.remove(ctx, id); err != nil && ctx.Err() == nil {
				log.Printf("workloads: remove: %v", err)
			}
		})
	}
}

func (k *Keeper) remove(ctx context.Context, id string) error {
	if err := k.Engine.Remove(ctx, id, "", DefaultStopGrace); err != nil {
		return err
	}
	if err := k.Network.Detach(id); err != nil {
		return err
	}
	return k.Engine.RemoveFiles(id)
}

// adopt tells every unit what was found of it.
func (k *Keeper) adopt(ctx context.Context, found []Found) {
	byID := make(map[string]Found, len(found))
	for _, f := range found {
		byID[f.ID] = f
	}
	for _, id := range k.names() {
		u, f := k.units[id], byID[id]
		switch {
		case u.State != Waiting:
		case f.Task == Alive && k.current(ctx, u, f):
			k.handle(ctx, event{id: id, kind: Adopted})
		case (f.Task == Exited || f.Task == Over) && k.current(ctx, u, f):
			k.handle(ctx, exit(id, f.Exit))
		default:
			k.handle(ctx, event{id: id, kind: Begin})
		}
	}
}

// current says whether what was found is what is wanted: the same settings, image
// and address. An image that is no longer there does not end what runs.
func (k *Keeper) current(ctx context.Context, u *unit, f Found) bool {
	if f.Spec != u.want.Hash() || f.Address != u.addr {
		return false
	}
	digest, err := k.Engine.Digest(ctx, u.want.Image)
	return err != nil || digest == f.Image
}

func exit(id string, code int) event {
	kind := Failed
	if code == 0 {
		kind = Succeeded
	}
	return event{id: id, kind: kind, code: code}
}

// handle does what Step says about an event.
func (k *Keeper) handle(ctx context.Context, e event) {
	u := k.units[e.id]
	before := u.State
	var action Action
	u.Unit, action = u.Step(e.kind, k.Now())
	switch e.kind {
	case Started, Adopted:
		u.reason = ""
	case StartFailed:
		u.reason = e.err.Error()
	case Succeeded, Failed:
		u.reason = fmt.Sprintf("exit code %d", e.code)
	}
	switch u.State {
	case Running, Backoff, Ended:
		u.tried = true
	}
	if u.State != before {
		k.publish = k.publish || u.State == Running || before == Running
		k.note(e, u)
	}
	switch action {
	case Start:
		k.start(ctx, u.want, u.addr)
	case Watch:
		k.watch(ctx, e.id)
	case Mark:
		k.workers.Go(func() {
			if err := k.Engine.Mark(ctx, e.id, e.code); err != nil && ctx.Err() == nil {
				log.Printf("workloads: %v", err)
			}
		})
	}
}

// note writes the line that an operator looks for.
func (k *Keeper) note(e event, u *unit) {
	switch u.State {
	case Running:
		took := ""
		if e.took > 0 {
			took = " in " + e.took.Round(time.Millisecond).String()
		}
		log.Printf("container %s: running (%s%s), %s", e.id, e.kind, took, u.addr)
	case Backoff:
		log.Printf("container %s: %s; next start in %s", e.id, u.reason, u.NotBefore.Sub(k.Now()).Round(time.Millisecond))
	case Ended:
		log.Printf("container %s: ended, %s, restart policy %q", e.id, u.reason, u.Restart.Policy)
	}
}

// startLimit is generous: a slow disk unpacks nothing here, but a slow machine
// runs three programs.
const startLimit = 2 * time.Minute

func (k *Keeper) start(ctx context.Context, c Container, addr netip.Addr) {
	peers := k.peers()
	k.workers.Go(func() {
		limited, cancel := context.WithTimeout(ctx, c.StopGrace+startLimit)
		defer cancel()
		took, err := k.begin(limited, c, addr, peers)
		if err != nil {
			k.send(ctx, event{id: c.ID, kind: StartFailed, err: err})
			return
		}
		k.send(ctx, event{id: c.ID, kind: Started, took: took})
	})
}

// begin takes away what is left of c and starts it. took is the time from there to
// the running process: container, network, task.
func (k *Keeper) begin(ctx context.Context, c Container, addr netip.Addr, peers map[string]netip.Addr) (took time.Duration, err error) {
	if err := k.Engine.Remove(ctx, c.ID, c.StopSignal, c.StopGrace); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := k.Engine.Volumes(c); err != nil {
		return 0, err
	}
	if err := k.Engine.WriteFiles(c, peers); err != nil {
		return 0, err
	}
	netns, err := k.Network.Attach(c.ID, addr)
	if err != nil {
		return 0, err
	}
	err = k.Engine.Start(ctx, c, addr, netns)
	return time.Since(began), err
}

// watch waits for the exit of a running container. When waiting itself fails, only
// a look at everything tells whether the container is gone or containerd is.
func (k *Keeper) watch(ctx context.Context, id string) {
	k.workers.Go(func() {
		code, err := k.Engine.Wait(ctx, id)
		if err != nil {
			k.send(ctx, event{kind: Lost, err: err})
			return
		}
		k.send(ctx, exit(id, code))
	})
}

// send gives up when the session does.
func (k *Keeper) send(ctx context.Context, e event) {
	select {
	case k.events <- e:
	case <-ctx.Done():
	}
}

// refresh brings resolv.conf and hosts of the containers up to date.
func (k *Keeper) refresh() {
	for _, id := range k.names() {
		if err := k.Engine.WriteFiles(k.units[id].want, k.peers()); err != nil {
			log.Printf("workloads: %v", err)
		}
	}
}

func (k *Keeper) peers() map[string]netip.Addr {
	peers := make(map[string]netip.Addr, len(k.units))
	for id, u := range k.units {
		peers[id] = u.addr
	}
	return peers
}

func (k *Keeper) names() []string {
	names := make([]string, 0, len(k.units))
	for id := range k.units {
		names = append(names, id)
	}
	slices.Sort(names)
	return names
}

func (k *Keeper) report() {
	if k.Report == nil {
		return
	}
	s := Status{Settled: true, Trouble: k.trouble}
	for _, id := range k.names() {
		u := k.units[id]
		s.Settled = s.Settled && u.tried
		s.Units = append(s.Units, UnitStatus{ID: id, State: u.State, Exits: u.Exits, Reason: u.reason})
	}
	k.Report(s)
}

// Stop ends all containers at once, each by its own signal and grace, and is for
// the end of the node; call it after Run has returned.
func (k *Keeper) Stop(ctx context.Context) {
	for _, u := range k.units {
		k.workers.Go(func() {
			if err := k.Engine.Remove(ctx, u.want.ID, u.want.StopSignal, u.want.StopGrace); err != nil {
				log.Printf("workloads: stop: %v", err)
			}
		})
	}
	k.workers.Wait()
}
