package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/agent/engine"
	"kogge.example/agent/events"
	"kogge.example/agent/identity"
	"kogge.example/agent/install"
	"kogge.example/agent/keeper"
	"kogge.example/agent/machine"
	"kogge.example/agent/mdns"
	"kogge.example/agent/nameserver"
	"kogge.example/agent/part"
	"kogge.example/agent/serve"
	"kogge.example/agent/wanted"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/partition"
)

// parts are what the API asks, as far as they exist by now.
type parts struct {
	keeper atomic.Pointer[keeper.Keeper]
	store  atomic.Pointer[wanted.Store]
	engine atomic.Pointer[engine.Engine]
	names  atomic.Pointer[nameserver.Server]
	events events.Ring
	drain  drain
	parent *supervisor
	// node is who the node is; nil until that is known.
	node atomic.Pointer[identity.Node]
	// part is what the node is in its fleet; nil until it serves.
	part atomic.Pointer[part.Part]
	// refused is why the workloads cannot be run; nil: they can.
	refused atomic.Pointer[string]
}

// nameless says where containers cannot ask for names.
func (p *parts) nameless() error {
	if s := p.names.Load(); s != nil {
		return s.Problem()
	}
	return nil
}

// An interface around a nil pointer would not be nil, hence these.

func (p *parts) containers() serve.Containers {
	if k := p.keeper.Load(); k != nil {
		return k
	}
	return nil
}

func (p *parts) projects() serve.Projects {
	if s := p.store.Load(); s != nil {
		return s
	}
	return nil
}

func (p *parts) images() serve.Images {
	if e := p.engine.Load(); e != nil {
		return e
	}
	return nil
}

func (p *parts) commands() serve.Commands {
	if e := p.engine.Load(); e != nil {
		return e
	}
	return nil
}

func (p *parts) volumes() serve.Volumes {
	if e := p.engine.Load(); e != nil {
		return e
	}
	return nil
}

// serveAPI answers on the API's port until ctx ends. An API that cannot be had is a
// line in the log, and tried again: containers run without it.
func serveAPI(ctx context.Context, at paths, now *parts, slots *install.Installer) {
	for began := time.Now(); ctx.Err() == nil; {
		if err := serveOnce(ctx, at, now, slots, time.Since(began)); err != nil && ctx.Err() == nil {
			log.Printf("agent: %v; next try in %s", err, serveAgain)
			pause(ctx, serveAgain)
		}
	}
}

const (
	serveAgain = 10 * time.Second // between two tries to serve
	// longestWait is how long a disk has to give who the node is, at most. Then the node serves without
	// what it does not give: somebody has to be able to repair it.
	longestWait = 3 * time.Minute
)

// waitForDisk is how long it has: a quarter of the time in which a boot has to be good, because one bad
// sector is no reason to give up a release. Reading that sector may take most of it.
func waitForDisk(config string) time.Duration {
	settings, _ := nodeconfig.ReadFile(config) // what is wrong with it others say
	timeout := cmp.Or(settings.Assess.Timeout, nodeconfig.DefaultAssessTimeout)
	return min(timeout/4, longestWait)
}

// openNode reads who the node is, for which it was tried for so long already.
func openNode(state string, tried, most time.Duration) (*identity.Node, error) {
	node, err := identity.OpenNode(filepath.Join(state, "identity"))
	if err == nil && node.Unread() && tried+serveAgain <= most {
		err = fmt.Errorf("who this node is cannot be read, and is tried for %s: %w", most, node.Problem())
	}
	return node, err
}

func serveOnce(ctx context.Context, at paths, now *parts, slots *install.Installer, tried time.Duration) error {
	node, err := openNode(at.state, tried, waitForDisk(at.config))
	if err != nil {
		return err
	}
	joins := func() error {
		return join(node, filepath.Join(at.state, "kogge", "join.yaml"), func() (func(), error) { return slots.MakeReady(partition.FleetState) })
	}
	joined := joins()
	if joined != nil {
		log.Printf("agent: %v", joined) // who is known already goes on being known
	}
	now.node.Store(node)
	if err := node.Problem(); err != nil {
		log.Printf("agent: %v", err)
	}
	own := part.New(node, at.state, at.run, func() { now.parent.tell("X_CHANGED=1") })
	own.Tell()
	if err := own.SettleVotes(); err != nil {
		log.Printf("agent: %v", err)
	}
	now.part.Store(own)
	var twin mdns.Twin
	machine := machine.Machine{
		Run: at.run, State: at.state, Workload: at.cgroup,
		Twin: func() error { return errors.Join(node.Problem(), twin.Problem(time.Now())) }, Names: now.nameless,
		Ledger: own.Problem,
	}
	talk := part.NewTalk(own, machine, now.events.Add)
	comes := talk.Comer(machine.Hostname)
	records := talk.Records()
	changed := func() {
		talk.Look()
		select {
		case comes.Again <- struct{}{}:
		default:
		}
	}
	records.Changed = changed
	records.Ready = func() (func(), error) { return slots.Ready(partition.FleetState) }
	records.Etcd = func(ctx context.Context) (control.Etcd, error) { return etcdNow(ctx, at.run) }
	server, err := serve.Listen(at.api, serve.Config{
		Node: node, ClockSure: machine.ClockSure, Known: own.Known, Machine: machine,
		Containers: now.containers, Projects: now.projects, Images: now.images, Volumes: now.volumes, Commands: now.commands, Registries: at.registries, Events: &now.events,
		LogDir: filepath.Join(at.run, "log"), Updates: slots,
		Records: records,
		Care: talk.Care(func(ctx context.Context) error {
			return orderEtcd(ctx, pid1Of(at.run), restartLimit, (*control.Client).Restart)
		}),
		Protocols: talk.Protocols(),
		Docket:    talk.Docket,
	})
	if err != nil {
		return err
	}
	log.Printf("agent: API on %s, %s", server.Address(), node)
	found, stop := context.WithCancel(ctx)
	var announcing sync.WaitGroup
	announcing.Go(func() { announce(found, node, at.run, server.Port(), &twin) })
	announcing.Go(func() { talk.Run(found, server.Port()) })
	announcing.Go(func() { comes.Run(found) })
	announcing.Go(func() { joinLater(found, joined, joins); changed() })
	defer func() {
		stop()
		announcing.Wait()
	}()
	return server.Serve(ctx)
}

// errLater is of a join.yaml whose time comes later, and which stays until then.
var errLater = errors.New("later")

// join has the node take what is in join.yaml, which PID 1 moved to path, and removes
// the file: the node keeps what it needs of it. A mistake is told once; the file
// would be no better at the next start. ready is [install.Installer.MakeReady] for a fleet that
// older releases do not know; while that cannot be, the error wraps errLater.
func join(node *identity.Node, path string, ready func() (done func(), err error)) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	parsed, err := identity.ParseJoinFile("join.yaml", text)
	if err == nil && !parsed.Genesis.Alone() && !node.Adopted() {
		done, err := ready()
		if err != nil {
			return fmt.Errorf("join fleet %s: %w: %w", parsed.Genesis.Name, errLater, err)
		}
		defer done()
	}
	if err == nil {
		err = node.Join(parsed)
	}
	return errors.Join(err, os.Remove(path))
}

// joinLater repeats join for as long as the error, which was told, is errLater, and ctx lasts.
func joinLater(ctx context.Context, err error, join func() error) {
	const again = 5 * time.Second
	for errors.Is(err, errLater) {
		pause(ctx, again)
		if ctx.Err() != nil {
			return
		}
		told := err
		if err = join(); err != nil && err.Error() != told.Error() {
			log.Printf("agent: %v", err)
		}
	}
}
