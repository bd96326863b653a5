package main

import (
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
	listen := flags.String("listen", fmt.Sprintf(":%d", memberPort), "`address` where other members come in")
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
		Dir: filepath.Join(*state, "etcd"), Run: filepath.Join(*run, "etcd"), Seat: p.seat, Listen: *listen,
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

// memberPort is where members answer each other, as founding says.
const memberPort = 7444

// participant is this node, as far as etcd has to know it.
type participant struct {
	state, run string
	node       *identity.Node
	seat       int

	mu     sync.Mutex // guards what follows
	taken  *pinned.Ledger
	stamp  time.Time // of the head that was read
	known  etcd.Facts
	roster roster.Roster
}

// open finds out which seat is this node's.
func (p *participant) open() (err error) {
	if p.node, err = identity.OpenNode(filepath.Join(p.state, "identity")); err != nil {
		return err
	}
	if p.node.Genesis() == nil {
		return errors.New("this node is in no fleet")
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

// facts is what the ledger and the agent say now.
func (p *participant) facts() (etcd.Facts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dir := ledgerOf(p.state)
	info, err := os.Stat(dir) // its files are replaced, so it changes with each record
	if err != nil {
		return etcd.Facts{}, fmt.Errorf("the fleet's ledger: %w", err)
	}
	if p.taken == nil || !info.ModTime().Equal(p.stamp) {
		taken := pinned.Open(dir, p.node.Genesis())
		if err := taken.Problem(); err != nil {
			return etcd.Facts{}, err
		}
		known, roster, err := factsOf(taken)
		if err != nil {
			return etcd.Facts{}, err
		}
		p.taken, p.stamp, p.known, p.roster = taken, info.ModTime(), known, roster
	}
	seats, err := control.ReadSeats(p.run)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return etcd.Facts{}, err
	}
	return withSeats(p.known, seats), nil
}

func ledgerOf(state string) string { return filepath.Join(state, "kogge", "ledger") }

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
	f := etcd.Facts{Fleet: state.Fleet(), First: record.Hash(), Grace: grace, Addresses: make(map[int][]netip.AddrPort), Away: make(map[int]bool)}
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
func withSeats(f etcd.Facts, seats control.Seats) etcd.Facts {
	addresses := make(map[int][]netip.AddrPort)
	for seat, all := range f.Addresses {
		addresses[seat] = all
	}
	f.Away = make(map[int]bool)
	for _, s := range seats.Seats {
		all := slices.Clone(s.Addresses)
		for _, founded := range f.Addresses[s.Number] {
			if !slices.Contains(all, founded) {
				all = append(all, founded)
			}
		}
		addresses[s.Number], f.Away[s.Number] = all, s.Away
	}
	f.Addresses = addresses
	return f
}

// verify says which seat a connection is with. A certificate makes no member: its key has to be
// the one that the seat's own key has signed, of a seat that the roster has run etcd. How long
// the certificate is good for, and which CA says so, does not matter then. The agent knows the
// keys, and names none that is revoked.
func (p *participant) verify(state tls.ConnectionState) (int, error) {
	if len(state.PeerCertificates) == 0 {
		return 0, errors.New("no certificate")
	}
	key := fleet.KeyID(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	seats, err := control.ReadSeats(p.run)
	if err != nil {
		return 0, fmt.Errorf("keys of the seats: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range seats.Seats {
		if s.TLSKey != "" && s.TLSKey == key && slices.ContainsFunc(p.known.Seats, func(m membership.Seat) bool { return m.Number == s.Number }) {
			return s.Number, nil
		}
	}
	return 0, fmt.Errorf("key %s is of no seat that runs etcd", fleet.Short(key))
}

// factOf is a member's status as other programs of the node are told. What changes without being
// news is left out.
func factOf(s etcd.Status) control.Etcd {
	e := control.Etcd{
		Seat: s.Seat, Running: s.Running, Leader: s.Leader, Doing: s.Doing, Problem: s.Problem, Generation: s.Generation,
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

// memberOnDemand has PID 1 run the service etcd while the roster has this node run it, and not
// otherwise. A node that is in no founded fleet is asked nothing.
func memberOnDemand(ctx context.Context, at paths, now *parts) {
	const every, again = 5 * time.Second, time.Minute
	var asked, told bool // what PID 1 was asked, and whether a failure was told
	var when time.Time
	for ; ctx.Err() == nil; pause(ctx, every) {
		want, known := isMember(at, now)
		if !known || want == asked && (!want || time.Since(when) < again) {
			continue
		}
		err := orderEtcd(ctx, want)
		if err == nil {
			asked, when, told = want, time.Now(), false
		} else if !told && ctx.Err() == nil {
			log.Printf("agent: service etcd: %v", err)
			told = true
		}
	}
}

// isMember says whether the ledger has this node run etcd; known is false where that cannot be
// said, and what runs goes on.
func isMember(at paths, now *parts) (is, known bool) {
	if _, err := os.Stat(ledgerOf(at.state)); err != nil { // no record was ever taken
		return false, errors.Is(err, fs.ErrNotExist)
	}
	own := now.part.Load()
	if own == nil {
		return false, false
	}
	seat, taken, err := own.whole()
	if err != nil || taken.Problem() != nil {
		return false, false
	}
	s, ok := taken.State().Roster.ByKey(seat.Key)
	return ok && (s.Member || s.Spare), true
}

func orderEtcd(ctx context.Context, run bool) error {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	c, err := control.Dial(ctx, control.Path)
	if err != nil {
		return err
	}
	defer c.Close()
	if run {
		return c.Start(ctx, "etcd")
	}
	return c.Stop(ctx, "etcd")
}
