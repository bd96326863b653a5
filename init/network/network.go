// Package network brings the node's wired links up and keeps them so.
//
// In come the settings of node.yaml and what the kernel tells about links; out go
// addresses, routes and MTUs in the kernel, resolv.conf, hosts and hostname in
// /run/kogge/etc, and [control.Network] in /run/kogge for the console, the clock and the
// agent.
//
// A link that an earlier run of the same boot set up, and that no entry of the
// settings matches any more, is put back as it was found: down and without addresses.
// The package leaves alone every other link that no entry matches (containers' links
// and bridges are the agent's), routes that others made, IP forwarding, and
// the kernel's host name, which PID 1 sets. It speaks DHCPv4 itself; addresses and
// routes of IPv6 router advertisements are the kernel's work, and resolvers and search
// domains from them (RFC 8106) are taken over.
//
// A link without a carrier keeps what it has. The kernel passes over its routes, and its
// resolvers are asked last, until the cable is back.
package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// Paths says where Run writes.
type Paths struct {
	Etc string // folder for resolv.conf, hosts and hostname
	Run string // folder for control.Network
}

// NodePaths are the paths on a node.
var NodePaths = Paths{Etc: control.RunDir + "/etc", Run: control.RunDir}

// readyAfter is how long a boot waits for a first address before it goes on.
const readyAfter = 10 * time.Second

// resync is how often the kernel's state is compared with the wanted one even if
// no message came: netlink may drop some.
const resync = time.Minute

// Run keeps the network as cfg says until ctx ends, and then leaves it as it is:
// containers go on serving while this service restarts. A lease that an earlier
// run of the same boot wrote to the status file is kept. Run tells the supervisor
// READY once there is an address, or after ten seconds. The error is about the
// machinery (no netlink, nowhere to write); a link without network is none.
func Run(ctx context.Context, cfg nodeconfig.Config, paths Paths) error {
	ctx, cancel := context.WithCancel(ctx)
	k, err := openKernel(ctx)
	if err != nil {
		cancel()
		return err
	}
	m := &manager{
		cfg: cfg, paths: paths, kernel: k,
		links: make(map[int]*link), leases: make(chan leaseEvent),
	}
	// The kernel's messages end with ctx; the clients are waited for.
	defer func() {
		cancel()
		for _, l := range m.links {
			l.stop()
		}
	}()
	if old, err := control.ReadNetwork(paths.Run); err == nil {
		m.before = old.Interfaces
	}
	if err := k.loopbackUp(); err != nil {
		return err
	}
	if err := writeNames(paths.Etc, cfg.Hostname); err != nil {
		return err
	}
	return m.loop(ctx)
}

// manager is the state of the service. One goroutine owns it.
type manager struct {
	cfg    nodeconfig.Config
	paths  Paths
	kernel *kernel
	links  map[int]*link // those that an entry matches, by index
	leases chan leaseEvent
	before []control.Interface // from the status file of an earlier run
	ready  bool
	told   string           // status, as the supervisor knows it
	last   *control.Network // as written; nil: not yet
}

// link is one link that the settings are about.
type link struct {
	facts   Facts
	entry   nodeconfig.Interface
	lease   *control.Lease
	routers advertised
	problem string // the last operation that did not work, once logged
	carrier chan bool
	cancel  context.CancelFunc // ends the DHCP client; nil without one
	done    chan struct{}
}

// leaseEvent says that link index now has this lease, or none.
type leaseEvent struct {
	index int
	lease *control.Lease
}

func (l *link) stop() {
	if l.cancel != nil {
		l.cancel()
		<-l.done
		l.cancel = nil
	}
}

func (m *manager) loop(ctx context.Context) error {
	late := time.NewTimer(readyAfter)
	defer late.Stop()
	again := time.NewTicker(resync)
	defer again.Stop()
	alive, stop := watchdogTicks()
	defer stop()
	for {
		if err := m.sync(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.kernel.changed:
		case advert := <-m.kernel.resolvers:
			if l := m.links[advert.index]; l != nil && l.entry.IPv6 == nodeconfig.IPv6Auto {
				l.routers.add(advert, time.Now())
			}
		case event := <-m.leases:
			if l := m.links[event.index]; l != nil {
				l.lease = event.lease
			}
		case err := <-m.kernel.failed:
			if ctx.Err() != nil {
				return nil // the end of ctx ended the messages
			}
			return fmt.Errorf("listen to the kernel's network messages: %w", err)
		case <-late.C:
			if !m.ready {
				m.tellReady("no address yet, continuing without one")
			}
		case <-again.C:
		case <-alive:
			if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
				log.Printf("network: ping supervisor: %v", err)
			}
		}
	}
}

// watchdogTicks returns a channel that ticks as often as the supervisor wants to
// hear from us, or never.
func watchdogTicks() (<-chan time.Time, func()) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(every / 2)
	return t.C, t.Stop
}

// tellReady tells the supervisor how we stand, when that has changed; the first
// time says as well that we are ready.
func (m *manager) tellReady(status string) {
	if status == m.told {
		return
	}
	m.told = status
	state := "STATUS=" + status
	if !m.ready {
		m.ready = true
		state = daemon.SdNotifyReady + "\n" + state
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Printf("network: tell supervisor: %v", err)
	}
}

// sync reads the links, brings each to its wanted state and writes what came of it.
func (m *manager) sync(ctx context.Context) error {
	all, err := m.kernel.links()
	if err != nil {
		return err
	}
	seen := make(map[int]bool)
	for _, facts := range all {
		entry, ok := Match(m.cfg.Interfaces(), facts)
		if !ok {
			m.leave(facts)
			continue
		}
		seen[facts.Index] = true
		l := m.links[facts.Index]
		if l != nil && (l.facts.Name != facts.Name || l.facts.MAC != facts.MAC) {
			l.stop() // another link under an old number
			l = nil
		}
		if l != nil {
			facts.MTU = l.facts.MTU
		} else {
			l = &link{entry: entry, carrier: make(chan bool, 1)}
			if old := m.earlier(facts); old != nil {
				if entry.DHCP && old.Lease != nil && time.Now().Before(old.Lease.Expires()) {
					l.lease = old.Lease
				}
				facts.MTU = cmp.Or(old.FirstMTU, facts.MTU)
			}
			m.links[facts.Index] = l
			log.Printf("network: %s: %s, matches %q", facts.Name, facts.MAC, entry.Match)
		}
		if facts.Carrier && !l.facts.Carrier {
			l.routers.doubt(time.Now())
		}
		l.facts = facts
		m.apply(l)
		if l.entry.DHCP && l.cancel == nil {
			m.startDHCP(ctx, l)
		}
		if l.entry.DHCP {
			select { // the newest fact is what counts
			case <-l.carrier:
			default:
			}
			l.carrier <- facts.Carrier
		}
	}
	for index, l := range m.links {
		if !seen[index] {
			log.Printf("network: %s is gone", l.facts.Name)
			l.stop()
			delete(m.links, index)
		}
	}
	return m.publish()
}

// earlier is what an earlier run of this service left of a link; nil: it was not one
// of its links.
func (m *manager) earlier(facts Facts) *control.Interface {
	i := slices.IndexFunc(m.before, func(i control.Interface) bool { return i.Name == facts.Name && i.MAC == facts.MAC })
	if i < 0 {
		return nil
	}
	return &m.before[i]
}

// leave puts back a link that an earlier run set up and that is none of ours now.
func (m *manager) leave(facts Facts) {
	old := m.earlier(facts)
	if old == nil {
		return
	}
	actual, err := m.kernel.read(facts)
	if err == nil {
		err = m.change(facts, State{MTU: old.FirstMTU, IPv6: actual.IPv6}, actual)
	}
	if err != nil {
		log.Printf("network: give up %s: %v", facts.Name, err)
		return // once more at the next change
	}
	log.Printf("network: %s is no longer configured", facts.Name)
	m.before = slices.DeleteFunc(m.before, func(i control.Interface) bool { return i.Name == facts.Name && i.MAC == facts.MAC })
}

// change brings a link from its actual to its wanted state, as far as it can.
func (m *manager) change(facts Facts, want, actual State) error {
	var all []error
	for _, op := range Diff(want, actual) {
		if err := m.kernel.do(facts, op); err != nil {
			all = append(all, fmt.Errorf("%s: %w", op, err))
		}
	}
	return errors.Join(all...)
}

// apply brings a link to its wanted state. An operation that fails is logged once
// and tried again at the next change, or within a minute.
func (m *manager) apply(l *link) {
	actual, err := m.kernel.read(l.facts)
	if err == nil {
		err = m.change(l.facts, Want(l.entry, l.facts, l.lease), actual)
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != l.problem {
		log.Printf("network: %s: %s", l.facts.Name, problem)
	}
	l.problem = problem
}

func (m *manager) startDHCP(ctx context.Context, l *link) {
	ctx, l.cancel = context.WithCancel(ctx)
	l.done = make(chan struct{})
	index, client := l.facts.Index, newClient(l.facts, m.cfg.Hostname)
	machine := Client{State: Selecting}
	if l.lease != nil {
		machine = Client{State: Confirming, Lease: l.lease}
	}
	go func(done chan struct{}, carrier <-chan bool) {
		defer close(done)
		runDHCP(ctx, client, machine, carrier, func(lease *control.Lease) {
			select {
			case m.leases <- leaseEvent{index, lease}:
			case <-ctx.Done():
			}
		})
	}(l.done, l.carrier)
}

// publish writes resolv.conf and the status file if they say something new.
func (m *manager) publish() error {
	status := control.Network{}
	var sources []source
	now := time.Now()
	for _, index := range slices.Sorted(maps.Keys(m.links)) {
		l := m.links[index]
		i, err := m.kernel.describe(l.facts)
		if err != nil {
			log.Printf("network: %s: %v", l.facts.Name, err)
		}
		i.Match, i.Lease, i.Problem, i.FirstMTU = l.entry.Match, l.lease, l.problem, l.facts.MTU
		i.MDNS, i.Forward = l.entry.MDNS, l.entry.Forward
		status.Interfaces = append(status.Interfaces, i)
		sources = append(sources, source{
			link: l.facts.Name, carrier: l.facts.Carrier, entry: l.entry, lease: l.lease,
			advertised: l.routers.resolvers.current(now), search: l.routers.domains.current(now),
		})
	}
	merge(&status, sources)
	if address, ok := status.FirstAddress(); ok {
		m.tellReady("address " + address.String())
	}
	if m.last != nil && equal(status, *m.last) {
		return nil
	}
	if err := writeResolvConf(m.paths.Etc, status); err != nil {
		return err
	}
	if err := status.Write(m.paths.Run); err != nil {
		return err
	}
	m.last = &status
	return nil
}

// addrOf turns the kernel's form of an address into ours, IPv4 always as IPv4.
func addrOf(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
