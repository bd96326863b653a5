package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/bridge"
	"kogge.example/agent/compose"
	"kogge.example/agent/confine"
	"kogge.example/agent/engine"
	"kogge.example/agent/events"
	"kogge.example/agent/identity"
	"kogge.example/agent/install"
	"kogge.example/agent/keeper"
	"kogge.example/agent/machine"
	"kogge.example/agent/nameserver"
	"kogge.example/agent/quota"
	"kogge.example/agent/registry"
	"kogge.example/agent/sealed"
	"kogge.example/agent/trees"
	"kogge.example/agent/wanted"
	"kogge.example/agent/workload"
	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
	"kogge.example/update/partition"
)

// paths are where the role agent finds things. The defaults are those of a node; others
// are for tests, which run the role without one.
type paths struct {
	config  string // node.yaml, written by PID 1
	state   string // STATE: preload/, volumes/
	run     string // run-time files: workload/, log/, containerd.sock
	bin     string // runc
	netns   string
	leaving string // exists when the whole node stops
	cgroup  string // parent of the containers' cgroups
	cgroups string // where cgroups are mounted
	shims   string // cgroup of the shims
	api     string // where the API listens

	registries *registry.Store
}

func (p *paths) parse(args []string) error {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.StringVar(&p.config, "config", "/run/kogge/node.yaml", "`path` of the settings")
	flags.StringVar(&p.state, "state", "/state", "`folder` that outlives a boot")
	flags.StringVar(&p.run, "run", "/run/kogge", "`folder` that does not")
	flags.StringVar(&p.bin, "bin", "/bin", "`folder` of runc")
	flags.StringVar(&p.netns, "netns", "/run/netns", "`folder` of network namespaces")
	flags.StringVar(&p.leaving, "leaving", "/run/kogge/leaving", "`path` of the file that says that the node stops")
	flags.StringVar(&p.cgroup, "cgroup", "/workload", "parent `cgroup` of the containers")
	flags.StringVar(&p.cgroups, "cgroups", "/sys/fs/cgroup", "`folder` where cgroups are mounted")
	flags.StringVar(&p.shims, "shims", "/workload/.shims", "`cgroup` of the shims; empty: containerd's")
	flags.StringVar(&p.api, "api", fmt.Sprintf(":%d", api.Port), "`address` of the API")
	if err := flags.Parse(args); err != nil {
		return err
	}
	// The key lies apart from what it opens, beside the other secrets of the node.
	p.registries = registry.Open(filepath.Join(p.state, "kogge", "registries.age"), filepath.Join(p.state, "identity", "registries.key"))
	return nil
}

// bounds is what all containers together can have; none is set where there are no groups.
func (p *paths) bounds() machine.Use {
	all, _ := machine.OpenGroups(p.cgroups).Of(p.cgroup)
	return all
}

// most is what one container can have of that.
func (p *paths) most() confine.Most {
	all := p.bounds()
	return confine.MostOf(all.Limit, all.MostOfThem)
}

// seals says whether applied projects are written sealed: neither slot has a release that
// would not read them. Outside of a node they are not.
func (p *paths) seals() bool {
	return (&install.Installer{Run: p.run, State: p.state}).Readable(partition.SealedState)
}

// sealed says whether STATE is, or is about to be, what a release that reads format 1 alone
// cannot use: projects are sealed, or its file system has quotas.
func (p *paths) sealed() bool {
	return p.seals() || quota.Has(p.state) || wanted.AnySealed(p.projects())
}

// format is that of STATE. A node that does not know yet who it is may be of any fleet.
func (p *paths) format(node *identity.Node) int {
	switch {
	case node == nil || node.Lost():
		return partition.FleetState
	case node.Genesis() != nil && !node.Genesis().Alone():
		return partition.FleetState
	case p.sealed():
		return partition.SealedState
	}
	return 1
}

func (p *paths) projects() string { return filepath.Join(p.state, "projects") }

// runAgent is the role agent: settings in, running containers out, until told to
// stop. Then containers stay, unless the whole node stops.
func runAgent(ctx context.Context, args []string) error {
	var at paths
	if err := at.parse(args); err != nil {
		return err
	}
	limitMemory(10, 16<<20, 128<<20)
	parent, err := newSupervisor()
	if err != nil {
		return err
	}
	now := parts{parent: parent}
	defer attend(ctx, at, &now)()
	own, settings, err := ownContainers(at.config)
	if err != nil {
		// What runs goes on: a mistake in the file is no order to stop it.
		why := wanted.Refused + nodeconfig.Public(err)
		now.refused.Store(&why)
		return alive(ctx, parent, why)
	}
	network, err := bridge.Open(at.netns)
	if err != nil {
		return err
	}
	network.Pool = settings.Containers.Pool
	network.Last = filepath.Join(at.state, "kogge", "subnets.json")
	network.Routed = func() []string { return routed(at.run) }
	resolver := nameserver.New(func() []netip.Addr { return upstream(at.run) })
	defer resolver.Close()
	now.names.Store(resolver)
	containerd, err := connect(ctx, at, parent)
	if err != nil || containerd == nil {
		return err
	}
	defer containerd.Close()
	boot, _ := control.ReadBoot(at.run) // outside of a node nothing is known of it
	containerd.Release = boot.RootHash
	busy(parent, "importing images", func() { preload(ctx, containerd, filepath.Join(at.state, partition.Preload)) })
	busy(parent, "looking for commands that are left from before", func() { endExecs(ctx, containerd) })
	containerd.OOM = now.outOfMemory
	store := wanted.Open(at.projects(), own)
	store.Allow, store.Outdated = settings.Allow, containerd.Outdated
	store.Key, store.Seal = sealed.Key(filepath.Join(at.state, wanted.KeyFile)), at.seals()
	store.Most = wanted.MostOf(at.bounds().Limit)
	containerd.Wants(store.Containers)
	read := reread(at.config, settings)
	network.Asked = func() []netip.Addr {
		registries, _ := at.registries.Read() // who needs them says what is wrong with them
		wanted, _, _ := store.Readable()
		return slices.Concat(serversOf(at.run), namedServers(read(), registries, wanted))
	}
	now.engine.Store(containerd)
	reserving, unreserve := context.WithCancel(ctx)
	reserved := quota.Keep(reserving, at.state)
	defer func() { unreserve(); reserved() }()
	defer alongside(ctx, func(ctx context.Context) {
		pause(ctx, time.Minute) // a boot is busy enough
		containerd.Tend(ctx)
	})()
	now.store.Store(store)
	apart := engine.CanSetApart()
	if !apart {
		log.Print("agent: containers get no user namespaces of their own: the agent lacks CAP_SYS_RESOURCE")
	}
	keeper := &keeper.Keeper{
		Engine: telling{containerd, &now.events}, Network: network, Names: resolver, Allow: settings.Allow, Apart: apart,
		Memory: at.most().Memory, Tick: tick(parent.watchdog),
	}
	report, look := reporter(parent, &now.refused), now.watchContainers()
	keeper.Report = func(s workload.Status) {
		now.keeper.Store(keeper) // from its first word on it knows what runs
		report(s)
		look(s)
	}
	keepCtx, stopKeeping := context.WithCancel(ctx)
	defer stopKeeping()
	now.drain.begin(stopKeeping)
	keep(keepCtx, parent, store, containerd.List, &now.refused, keeper)
	limit := now.drain.wanted()
	if limit != nil && ctx.Err() == nil {
		if err := drainAll(ctx, limit, parent, &now.drain, keeper); err != nil {
			return err
		}
	}
	parent.tell("STOPPING=1")
	if _, err := os.Stat(at.leaving); err == nil && limit == nil {
		log.Print("agent: the node stops, and its containers with it")
		limited, cancel := context.WithTimeout(context.Background(), stopLimit)
		defer cancel()
		keeper.Stop(limited)
	}
	return nil
}

// attend starts what answers and watches, with or without containers. The function that
// it returns ends that.
func attend(ctx context.Context, at paths, now *parts) (end func()) {
	slots := installer(at, now)
	now.events.Add(events.Event{Kind: events.Service, Object: "agent", What: "started", Text: "earlier events are forgotten"})
	return alongside(ctx,
		func(ctx context.Context) { serveAPI(ctx, at, now, slots) },
		slots.Serve,
		func(ctx context.Context) { watchServices(ctx, &now.events) },
		func(ctx context.Context) { memberOnDemand(ctx, at, now) },
		func(ctx context.Context) {
			now.watchMemory(ctx, confine.Looker{Proc: "/proc", Cgroups: at.cgroups, Group: at.cgroup})
		},
		func(ctx context.Context) { assessBoot(ctx, at, now) },
	)
}

// alongside runs each task in a goroutine of its own. The function that it returns ends
// them and waits until they have.
func alongside(ctx context.Context, tasks ...func(context.Context)) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, task := range tasks {
		all.Go(func() { task(ctx) })
	}
	return func() {
		stop()
		all.Wait()
	}
}

// drainAll stops the containers, and waits for the reboot that this is for.
func drainAll(ctx, limit context.Context, parent *supervisor, d *drain, keeper *keeper.Keeper) (err error) {
	log.Print("agent: the containers stop for a reboot")
	busy(parent, "stopping containers for a reboot", func() { keeper.Stop(limit) })
	close(d.over)
	busy(parent, "waiting for the reboot", func() {
		select {
		case <-ctx.Done():
		case err = <-d.failed:
			err = fmt.Errorf("the reboot did not happen, so the containers start again: %w", err)
		}
	})
	return err
}

// keep has keeper run what is wanted, as that changes, until ctx ends. While a project is
// refused, what runs goes on as it is, and refused says why. Projects that cannot be opened
// are only in the way of the others while something of them runs, which list tells: it
// would be taken away.
func keep(ctx context.Context, parent *supervisor, store *wanted.Store, list func(context.Context) ([]workload.Found, error), refused *atomic.Pointer[string], keeper *keeper.Keeper) {
	want := func() (why string) {
		generation := store.Generation() // before it is read: that may find more
		containers, locked, err := store.Readable()
		unread := ""
		for _, name := range slices.Sorted(maps.Keys(locked)) {
			unread += "; project " + name + " does not run: apply or remove it: " + locked[name].Error()
		}
		unread = strings.TrimPrefix(unread, "; ")
		if err == nil && len(locked) > 0 {
			var found []workload.Found
			if found, err = list(ctx); err == nil && runsOf(found, locked) {
				err = errors.New(unread)
			}
		}
		if err == nil {
			err = keeper.Want(containers, generation)
		}
		switch {
		case err == nil && unread == "":
			refused.Store(nil)
			return ""
		case err == nil:
			refused.Store(&unread)
			log.Print("agent: " + unread)
			return ""
		}
		why = wanted.Refused + nodeconfig.Public(err)
		refused.Store(&why)
		log.Print("agent: " + why)
		return why
	}
	changed := func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-store.Changed():
		}
	}
	// Until something is wanted for sure the keeper would take away what runs.
	for why := want(); why != ""; why = want() {
		parent.tell("READY=1")
		busy(parent, why, func() { changed(ctx) })
		if ctx.Err() != nil {
			return
		}
	}
	defer alongside(ctx, func(ctx context.Context) {
		for changed(ctx); ctx.Err() == nil; changed(ctx) {
			want()
		}
	})()
	keeper.Run(ctx)
}

// runsOf says whether a container of one of the projects runs.
func runsOf(found []workload.Found, projects map[string]error) bool {
	return slices.ContainsFunc(found, func(f workload.Found) bool {
		project, _, of := strings.Cut(f.ID, ".")
		_, one := projects[project]
		return of && one && f.Task != workload.Absent && f.Task != workload.Over && f.Task != workload.Exited
	})
}

// upstream are the node's own name servers, as they are now.
func upstream(run string) []netip.Addr {
	text, err := os.ReadFile(resolvConf(run))
	if err != nil {
		return nil // a node without a network has none
	}
	return nameserver.ReadServers(string(text))
}

// serversOf are the servers that the network names to the node.
func serversOf(run string) (all []netip.Addr) {
	network, err := control.ReadNetwork(run)
	if err != nil {
		return nil // not up yet
	}
	all = slices.Concat(network.DNS, network.NTP)
	for _, i := range network.Interfaces {
		if i.Lease != nil {
			all = append(all, i.Lease.Server)
		}
	}
	return all
}

// reread returns what reads the settings as they are by now, since the agent starts anew for
// some of them alone. A file that cannot be read leaves them as they were.
func reread(config string, settings nodeconfig.Config) func() nodeconfig.Config {
	var mu sync.Mutex // guards settings and of
	var of fs.FileInfo
	return func() nodeconfig.Config {
		mu.Lock()
		defer mu.Unlock()
		is, err := os.Stat(config)
		if err != nil || of != nil && os.SameFile(is, of) && is.Size() == of.Size() && is.ModTime().Equal(of.ModTime()) {
			return settings
		}
		if now, err := nodeconfig.ReadFile(config); err == nil {
			settings, of = now, is
		}
		return settings
	}
}

// namedServers are the servers that people name to the node by an address: time servers,
// registries, where releases are, and the machines that a release has to reach. The checks of
// a boot and the dns: of containers may name a container of this node, whose network would
// move away from them: an update would make the node sick.
func namedServers(settings nodeconfig.Config, registries registry.Registries, containers []workload.Container) (all []netip.Addr) {
	names := slices.Concat(settings.Time.Servers, settings.Assess.Peers, []string{settings.Update.Source})
	for _, c := range containers {
		names = append(names, c.Image) // its registry comes first
	}
	for _, name := range slices.Sorted(maps.Keys(registries)) {
		names = append(names, name)
		for _, mirror := range registries[name].Mirrors {
			names = append(names, mirror.URL)
		}
	}
	for _, name := range names {
		if a, ok := addressIn(name); ok {
			all = append(all, a)
		}
	}
	return all
}

// addressIn is the address in a server's name, which may have a scheme and a user before it,
// and a port and a path behind it; false: it is called by a name.
func addressIn(server string) (netip.Addr, bool) {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	if end := strings.IndexAny(server, "/?#"); end >= 0 {
		server = server[:end]
	}
	server = server[strings.LastIndexByte(server, '@')+1:]
	if host, _, err := net.SplitHostPort(server); err == nil {
		server = host
	}
	a, err := netip.ParseAddr(strings.Trim(server, "[]"))
	return a, err == nil
}

// routed are the links between which node.yaml has the node route.
func routed(run string) (links []string) {
	network, err := control.ReadNetwork(run)
	if err != nil {
		return nil // not up yet
	}
	for _, i := range network.Interfaces {
		if i.Forward {
			links = append(links, i.Name)
		}
	}
	return links
}

func resolvConf(run string) string { return filepath.Join(run, "etc", "resolv.conf") }

// stopLimit is below what PID 1 grants a service that stops.
const stopLimit = 20 * time.Second

// ownContainers reads the settings, and the workloads out of them.
func ownContainers(config string) ([]workload.Container, nodeconfig.Config, error) {
	settings, err := nodeconfig.ReadFile(config)
	if err != nil {
		return nil, settings, err
	}
	w := settings.Workloads
	own, warnings, err := compose.ParseTaken("", w.File, w.Text)
	for _, warning := range warnings {
		log.Printf("agent: %s", nodeconfig.Public(warning))
	}
	return own, settings, err
}

// connect waits for containerd to listen; a dial that fails would only start a
// pause that grows. It returns nil when ctx ends.
func connect(ctx context.Context, at paths, parent *supervisor) (*engine.Engine, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("boot id: %w", err)
	}
	socket := filepath.Join(at.run, "containerd.sock")
	busy(parent, "waiting for containerd", func() {
		for ctx.Err() == nil {
			if c, err := net.Dial("unix", socket); err == nil {
				c.Close()
				return
			}
			pause(ctx, 50*time.Millisecond)
		}
	})
	if ctx.Err() != nil {
		return nil, nil
	}
	return engine.Connect(engine.Paths{
		Most:       at.most(),
		Socket:     socket,
		Runc:       filepath.Join(at.bin, "runc"),
		Init:       filepath.Join(at.bin, "containerd-shim-runc-v2"),
		State:      filepath.Join(at.run, "runc"),
		Logs:       filepath.Join(at.run, "log"),
		Files:      filepath.Join(at.run, "workload"),
		Volumes:    filepath.Join(at.state, "volumes"),
		Data:       filepath.Join(at.state, "data"),
		Binds:      filepath.Join(at.run, "binds"),
		Resolv:     resolvConf(at.run),
		Registries: at.registries,
		Images:     at.state,
		ShimCgroup: at.shims,
		Cgroup:     at.cgroup,
		Cgroups:    at.cgroups,
		Remove:     trees.By,
	}, strings.TrimSpace(string(boot)))
}

// preload imports what lies in folder. A bad file is a line in the log: the
// workload that wants its image will say so too, and the others go on.
func preload(ctx context.Context, containerd *engine.Engine, folder string) {
	began := time.Now()
	names, err := containerd.Preload(ctx, folder)
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Printf("agent: %v", err)
	}
	if len(names) > 0 {
		log.Printf("agent: imported %s in %s", strings.Join(names, ", "), time.Since(began).Round(time.Millisecond))
	}
}

// endExecs takes away what operators ran inside containers by an agent that was killed.
func endExecs(ctx context.Context, containerd *engine.Engine) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := containerd.EndExecs(ctx); err != nil && ctx.Err() == nil {
		log.Printf("agent: %v", err) // they end with their containers
	}
}

// busy runs work beside the main loop, which goes on to feed the watchdog.
func busy(parent *supervisor, what string, work func()) {
	parent.tell("STATUS=" + what)
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	beat := time.NewTicker(tick(parent.watchdog))
	defer beat.Stop()
	for {
		select {
		case <-done:
			return
		case <-beat.C:
			parent.tell("WATCHDOG=1")
		}
	}
}

// alive is for a node with nothing to do but to say why.
func alive(ctx context.Context, parent *supervisor, why string) error {
	log.Printf("agent: %s", why)
	parent.tell("READY=1", "STATUS="+why)
	rest()
	busy(parent, why, func() { <-ctx.Done() })
	return nil
}

// reporter tells PID 1 what the keeper reports, and why a later set is refused; READY once
// every container had its first start. What a busy PID 1 did not take it hears with the
// next report.
func reporter(parent *supervisor, refused *atomic.Pointer[string]) func(workload.Status) {
	ready, last := false, ""
	return func(s workload.Status) {
		parent.tell("WATCHDOG=1")
		text := s.String()
		if why := refused.Load(); why != nil {
			text = *why + "; " + text
		}
		if text != last && parent.tell("STATUS="+text) {
			last = text
		}
		if s.Settled && !ready && parent.tell("READY=1") {
			ready = true
			log.Printf("agent: ready: %s", text)
			rest()
		}
	}
}

// tick is how often the main loop shows that it is alive: often enough for a
// watchdog, and else so seldom that an idle node sleeps.
func tick(watchdog time.Duration) time.Duration {
	const idle = 5 * time.Second
	if watchdog > 0 {
		return min(idle, watchdog/3)
	}
	return idle
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
