package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/etcd"
	"kogge.example/agent/etcd/membership"
	"kogge.example/agent/identity"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/roster"
)

// runEtcd is the role etcd: this node's part in the fleet's etcd, until told to stop. PID 1
// starts it on demand, see [memberOnDemand].
func runEtcd(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	state := flags.String("state", "/state", "`folder` that outlives a boot")
	run := flags.String("run", control.RunDir, "`folder` that does not")
	listen := flags.String("listen", fmt.Sprintf(":%d", api.MemberPort), "`address` where other members come in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	limitMemory(6, 48<<20, 256<<20)
	parent, err := newSupervisor()
	if err != nil {
		return err
	}
	p := participant{state: *state, run: *run}
	if err := p.open(); err != nil {
		return err
	}
	// What is told of etcd is told by a process that runs it.
	forget := func() {
		if err := os.Remove(filepath.Join(*run, control.EtcdFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Printf("etcd: %v", err)
		}
	}
	forget()
	defer forget()
	parent.tell("READY=1")
	rest()
	var spoken atomic.Int64 // when the member said something last, since begun
	begun := time.Now()
	defer alongside(ctx, func(ctx context.Context) {
		for parent.watchdog > 0 && ctx.Err() == nil {
			// The longest that a member does without a word is to begin anew from a snapshot.
			if time.Since(begun)-time.Duration(spoken.Load()) < 6*time.Minute {
				parent.tell("WATCHDOG=1")
			}
			pause(ctx, parent.watchdog/3)
		}
	})()
	var last control.Etcd
	err = etcd.Run(ctx, etcd.Config{
		Dir: dataOf(*state), Run: filepath.Join(*run, "etcd"), Seat: p.seat, Listen: *listen,
		Certificate: func() (tls.Certificate, error) { return p.node.Certificate(), nil },
		VerifyPeer:  p.verify,
		Facts:       p.facts,
		Log:         func(line string) { log.Print("etcd: " + line) },
		Said: func(s etcd.Status) {
			spoken.Store(int64(time.Since(begun)))
			now := factOf(s)
			if fmt.Sprint(now) == fmt.Sprint(last) {
				return
			}
			last = now
			text := now.Doing
			if now.Problem != "" {
				text = now.Problem
			}
			parent.tell("STATUS=" + text)
			if err := now.Write(*run); err != nil {
				log.Printf("etcd: %v", err)
			}
		},
	})
	parent.tell("STOPPING=1")
	return err
}

// participant is this node, as far as etcd has to know it.
type participant struct {
	state, run string
	node       *identity.Node
	seat       int

	// What the ledger said, and when: of the goroutine that asks for facts.
	taken *pinned.Ledger
	stamp time.Time // of its folder
	at    time.Time
	known etcd.Facts
	wrong error

	mu     sync.Mutex // guards what follows
	roster roster.Roster
}

// open finds out which seat is this node's.
func (p *participant) open() (err error) {
	if p.node, err = identity.OpenNode(filepath.Join(p.state, "identity")); err != nil {
		return err
	}
	if !p.node.Adopted() {
		return cmp.Or(p.node.Problem(), errors.New("this node is in no fleet"))
	}
	own, err := identity.OpenSeat(filepath.Join(p.state, "identity"))
	if err != nil {
		return err
	}
	if _, err := p.facts(); err != nil {
		return err
	}
	seat, ok := p.roster.ByKey(own.Key)
	if !ok {
		return fmt.Errorf("seat key %s has no seat in the fleet's ledger", own.Key.ID().Short())
	}
	p.seat = seat.Number
	return nil
}

// readAgain is after how long a ledger that cannot be relied on is looked at again, though
// nothing has come: what its disk did not give it may give.
const readAgain = time.Minute

// facts is what the ledger and the agent say now. It is asked in one goroutine, every few
// seconds: of the ledger it reads what is new.
func (p *participant) facts() (etcd.Facts, error) {
	dir := ledgerOf(p.state)
	info, err := os.Stat(dir) // its files are replaced, so it changes with each record
	if err != nil {
		return etcd.Facts{}, fmt.Errorf("the fleet's ledger: %w", err)
	}
	if stamp := info.ModTime(); !stamp.Equal(p.stamp) || p.wrong != nil && time.Since(p.at) >= readAgain {
		p.read(dir)
		if p.stamp = stamp; p.at.Sub(stamp).Abs() < time.Second { // another record may come within the same tick
			p.stamp = time.Time{}
		}
	}
	if p.wrong != nil {
		return etcd.Facts{}, p.wrong
	}
	seats, err := control.ReadSeats(p.run)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return etcd.Facts{}, err
	}
	return withSeats(p.known, p.roster, seats), nil
}

// read takes note of the ledger as it is now. What it said before stays where it cannot be
// relied on any more.
func (p *participant) read(dir string) {
	p.at = time.Now()
	if p.taken == nil {
		p.taken = pinned.Open(dir, p.node.Genesis())
	} else {
		p.taken.Reread()
	}
	if p.wrong = p.taken.Problem(); p.wrong != nil {
		return
	}
	known, r, err := factsOf(p.taken)
	if p.wrong = err; err != nil {
		return
	}
	p.known = known
	p.mu.Lock()
	defer p.mu.Unlock()
	p.roster = r
}

func ledgerOf(state string) string { return filepath.Join(state, "kogge", "ledger") }

func dataOf(state string) string { return filepath.Join(state, "etcd") }

// factsOf is what a ledger says about etcd.
func factsOf(taken *pinned.Ledger) (etcd.Facts, roster.Roster, error) {
	state := taken.State()
	first, err := taken.Entry(1)
	if err != nil {
		return etcd.Facts{}, roster.Roster{}, fmt.Errorf("the fleet is not founded: %w", err)
	}
	value, err := ledger.ParseValue(first.Value)
	if err != nil {
		return etcd.Facts{}, roster.Roster{}, err
	}
	record, err := ledger.ParseRecord(first.Record)
	if err != nil {
		return etcd.Facts{}, roster.Roster{}, err
	}
	// A fleet for trying things out may have less: one answer that is lost is no member lost.
	grace := max(time.Duration(state.Policy.Grace), 10*time.Second)
	f := etcd.Facts{Fleet: state.Fleet(), Trial: state.Policy.Trial, First: record.Hash(), Grace: grace, Addresses: make(map[int][]netip.AddrPort), Away: make(map[int]bool)}
	for _, a := range value.Founding.Cluster {
		f.Founders = append(f.Founders, a.Seat)
		f.Addresses[a.Seat] = []netip.AddrPort{a.Address}
	}
	for _, s := range state.Roster.Seats {
		if s.Member || s.Spare {
			f.Seats = append(f.Seats, membership.Seat{Number: s.Number, Name: s.Name, Spare: s.Spare, Domain: s.DomainOf()})
		}
	}
	return f, state.Roster, nil
}

// withSeats is what the ledger says, with what the agent knows of the nodes.
func withSeats(f etcd.Facts, r roster.Roster, seats control.Seats) etcd.Facts {
	addresses := make(map[int][]netip.AddrPort)
	for seat, all := range f.Addresses {
		addresses[seat] = all
	}
	f.Ordered = seats.Ordered
	f.Away, f.Yields = make(map[int]bool), make(map[int]bool)
	for _, s := range seats.Seats {
		all := slices.Clone(s.Addresses)
		for _, founded := range f.Addresses[s.Number] {
			if !slices.Contains(all, founded) {
				all = append(all, founded)
			}
		}
		addresses[s.Number], f.Away[s.Number], f.Yields[s.Number] = all, s.Away, s.Yields
		if seat, ok := seatOf(r, s); ok && !seat.Member && !seat.Spare {
			f.Leaving = append(f.Leaving, s.Number)
		}
	}
	f.Addresses = addresses
	return f
}

// seatOf is the seat that the agent speaks of, if its node still has it.
func seatOf(r roster.Roster, s control.Seat) (roster.Seat, bool) {
	seat, ok := r.Seat(s.Number)
	return seat, ok && seat.Key.ID().String() == s.Key
}

// verify says which seats may be at the other end of a connection. A certificate makes no member: its
// key has to be the one that the seat's own key has signed, and nobody but the seat itself says that it
// has it. How long the certificate is good for, and which CA
// says so, does not matter then. The agent knows the keys of those that may run etcd, and names
// none that is revoked; a node that has no seat any more is nobody at once.
func (p *participant) verify(state tls.ConnectionState) (all []int, err error) {
	if len(state.PeerCertificates) == 0 {
		return nil, errors.New("no certificate")
	}
	key := fleet.KeyID(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	seats, err := control.ReadSeats(p.run)
	if err != nil {
		return nil, fmt.Errorf("keys of the seats: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range seats.Seats {
		if s.TLSKey == "" || s.TLSKey != key {
			continue
		}
		if _, ok := seatOf(p.roster, s); ok {
			all = append(all, s.Number)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("key %s is of no seat that may run etcd", fleet.Short(key))
	}
	return all, nil
}

// factOf is a member's status as other programs of the node are told. What changes without being
// news is left out.
func factOf(s etcd.Status) control.Etcd {
	e := control.Etcd{
		PID: os.Getpid(), Seat: s.Seat, Running: s.Running, Leader: s.Leader, Doing: s.Doing, Problem: s.Problem, Generation: s.Generation,
		Revision: s.Revision, Bytes: s.Size, Quota: s.Quota, Full: s.Full, Corrupt: s.Corrupt, Snapshots: len(s.Snapshots),
	}
	for _, m := range s.Members {
		if m.Learner {
			e.Learners = append(e.Learners, m.Seat)
		} else {
			e.Members = append(e.Members, m.Seat)
		}
	}
	if s.Probe.Writes > 0 {
		e.Fsync = s.Probe.P99.String()
	}
	if n := len(s.Snapshots); n > 0 {
		e.Newest = s.Snapshots[n-1].Revision
	}
	return e
}

// standing is what a node has to do with its fleet's etcd.
type standing string

const (
	outsider standing = "outsider" // nothing
	insider  standing = "insider"  // the roster has it run etcd
	// leaving: the roster does not, and the data of etcd is here. It runs until the leader has let
	// it go: others may need it for their quorum until then, and nobody else may have the data.
	leaving standing = "leaving"
)

// standingOf is by the ledger what this node is; known is false where that cannot be said, and
// what runs goes on.
func standingOf(at paths, now *parts) (s standing, known bool) {
	if _, err := os.Stat(ledgerOf(at.state)); err != nil { // no record was ever taken
		return outsider, errors.Is(err, fs.ErrNotExist)
	}
	own := now.part.Load()
	if own == nil {
		return outsider, false
	}
	key, taken, err := own.Whole()
	if err != nil || taken.Problem() != nil {
		return outsider, false
	}
	seat, ok := taken.State().Roster.ByKey(key.Key)
	return standingAs(seat, ok, etcd.Holds(dataOf(at.state))), true
}

// standingAs is that of a node with a seat, or without, and with data or without.
func standingAs(seat roster.Seat, seated, data bool) standing {
	switch {
	case seated && (seat.Member || seat.Spare):
		return insider
	case seated && data:
		return leaving
	}
	return outsider
}

// leaver is a node that is leaving. Who was let go while he was off is not told: nobody lets him
// in. So he who finds no leader for a while rests, and tries again later; the data stays.
type leaver struct{ led, rests time.Time }

const (
	leaderless = 10 * time.Minute
	restsFor   = time.Hour
)

// runs says whether it runs etcd now; led says whether that has a leader.
func (l *leaver) runs(led bool, now time.Time) bool {
	switch {
	case now.Before(l.rests):
		return false
	case led || l.led.IsZero():
		l.led = now
	case now.Sub(l.led) >= leaderless:
		l.led, l.rests = time.Time{}, now.Add(restsFor)
		return false
	}
	return true
}

// memberOnDemand has PID 1 run the service etcd while the ledger has this node run it, and not
// otherwise. What an agent has ordered that ran before this one, PID 1 knows.
func memberOnDemand(ctx context.Context, at paths, now *parts) {
	const every, again = 5 * time.Second, time.Minute
	var asked, told, knows bool // what PID 1 was asked, whether a failure was told, and whether asked is known
	var when time.Time
	var leaves leaver
	for ; ctx.Err() == nil; pause(ctx, every) {
		stands, known := standingOf(at, now)
		if !known {
			continue
		}
		want := stands == insider
		if stands == leaving {
			own, err := control.ReadEtcd(at.run)
			want = leaves.runs(err == nil && own.Running && own.Leader != 0, time.Now())
		}
		if !knows {
			services, err := askServices(ctx, pid1Of(at.run))
			if err != nil {
				continue
			}
			_, asked = etcdService(services)
			knows = true
		}
		if want == asked && (!want || time.Since(when) < again) {
			continue
		}
		order := (*control.Client).Stop
		if want {
			order = (*control.Client).Start
		}
		err := orderEtcd(ctx, pid1Of(at.run), lookEvery, order)
		if err == nil {
			asked, when, told = want, time.Now(), false
		} else if !told && ctx.Err() == nil {
			log.Printf("agent: service etcd: %v", err)
			told = true
		}
	}
}

// restartLimit is how long PID 1 may take to stop the service etcd and start it anew.
const restartLimit = 10 * time.Second

// orderEtcd has PID 1 do something with the service etcd.
func orderEtcd(ctx context.Context, pid1 string, limit time.Duration, order func(*control.Client, context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := control.Dial(ctx, pid1)
	if err != nil {
		return err
	}
	defer c.Close()
	return order(c, ctx, "etcd")
}

// etcdService is the service etcd; false: PID 1 does not run it.
func etcdService(s *control.Status) (control.Service, bool) {
	i := slices.IndexFunc(s.Services, func(one control.Service) bool { return one.Name == "etcd" })
	if i < 0 {
		return control.Service{}, false
	}
	return s.Services[i], true
}

// etcdNow is what the service etcd says of itself. The error wraps [fs.ErrNotExist] where this
// node does not run it.
func etcdNow(ctx context.Context, run string) (control.Etcd, error) {
	services, err := askServices(ctx, pid1Of(run))
	if err != nil {
		return control.Etcd{Problem: err.Error()}, nil
	}
	service, runs := etcdService(services)
	if !runs {
		return control.Etcd{}, fmt.Errorf("service etcd: %w", fs.ErrNotExist)
	}
	said, err := control.ReadEtcd(run)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return control.Etcd{}, err
	}
	if err == nil && said.PID == service.PID {
		return said, nil
	}
	// It has not said a word yet, or what it said was said by one that has died.
	now := control.Etcd{Doing: "the service is " + service.State}
	if service.Failing || service.PID == 0 {
		now.Problem = fmt.Sprintf("the service is %s after %d exits: %s", service.State, service.Exits, service.LastExit)
	}
	return now, nil
}

// pid1Of is PID 1's socket.
func pid1Of(run string) string { return filepath.Join(run, filepath.Base(control.Path)) }
