// Package part is what this node is in its fleet, and what it says and does there.
//
// In come the node's identity, the folders of STATE and of this boot, and what operators and other
// nodes bring: records of the ledger, papers, orders, words of seats. Out goes what the API answers
// about the fleet, what PID 1, the console and the service etcd are told (how many votes decide,
// control.Fleet, control.Seats), the log of the node's deeds, and, while the node has a seat, a session
// of gossip and one with the gateway of a member of etcd. It leaves alone slots, containers and the
// service etcd, but for the order to begin anew that an owner has permitted.
package part

import (
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kogge.example/agent/deeds"
	"kogge.example/agent/docket"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/orders"
	"kogge.example/agent/papers"
	"kogge.example/agent/pinned"
	"kogge.example/init/control"
	"kogge.example/update/bootloader"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/deed"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/memory"
)

// Part is what the node is in its fleet: the ledger as it has taken it, and the key of its
// seat. Each is opened once, when it is asked for and the node is adopted; the key is made
// then, so only what needs it asks.
type Part struct {
	node  *identity.Node
	state string // the folder of STATE
	run   string // the folder that does not outlive a boot
	show  func() // has PID 1 look at the facts in it, for the console

	opening sync.Mutex // guards store and waiting, and comes before mu
	store   *papers.Store
	waiting *docket.Store

	mu    sync.Mutex // guards what follows
	told  control.Fleet
	seat  *identity.Seat
	taken *pinned.Ledger
	held  *identity.Custody
	waits string // why the node has not come in yet
	done  *deeds.Log
	// orders are those about seats; nil: nobody has asked for them.
	orders *orders.Book

	// outcasts are the callers whose seats are isolated, and shun the seats of [shunned] by their TLS keys.
	outcasts atomic.Pointer[orders.Outcasts]
	shun     atomic.Pointer[map[string]roster.Seat]
}

// New is that of a node with the folder of STATE, and the one that does not outlive a boot. show has
// PID 1 look at the facts in that one.
func New(node *identity.Node, state, run string, show func()) *Part {
	return &Part{node: node, state: state, run: run, show: show}
}

// wait notes why the node has not come into its fleet yet, for people to see.
func (p *Part) wait(why error) {
	p.mu.Lock()
	p.waits = notice.Text(why.Error())
	p.mu.Unlock()
	p.Tell()
}

// Ledger is the fleet's; the error says that the node belongs to none.
func (p *Part) Ledger() (*pinned.Ledger, error) {
	if !p.node.Adopted() {
		return nil, errors.New("the node is not adopted: it belongs to no fleet")
	}
	return p.opened(), nil
}

// opened is the ledger of the fleet that the node belongs to, or that it wants to come into.
func (p *Part) opened() *pinned.Ledger {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.node.Genesis(); p.taken == nil || p.taken.State().Genesis != g { // of version 1 before
		p.taken = pinned.Open(filepath.Join(p.state, "kogge", "ledger"), g)
		p.taken.Before(p.votes)
		if err := errors.Join(p.taken.Problem(), p.taken.Mend()); err != nil {
			log.Printf("agent: %v", err)
		}
	}
	return p.taken
}

// trusted is a ledger's state as the node acts by it: without operators whose keys were revoked here.
func (p *Part) trusted(taken *pinned.Ledger) ledger.State {
	return taken.State().Without(p.node.Revoked)
}

// Whole is the key of the seat, and the ledger.
func (p *Part) Whole() (*identity.Seat, *pinned.Ledger, error) {
	if _, err := p.Ledger(); err != nil {
		return nil, nil, err
	}
	return p.before()
}

// before is [part.Whole] of a node that knows its fleet, and may not be in it yet.
func (p *Part) before() (*identity.Seat, *pinned.Ledger, error) {
	taken := p.opened()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seat == nil {
		seat, err := identity.OpenSeat(filepath.Join(p.state, "identity"))
		if err != nil {
			return nil, nil, err
		}
		p.seat = seat
	}
	return p.seat, taken, nil
}

// Docket is what waits to be decided by the fleet; nil: the node belongs to none.
func (p *Part) Docket() *docket.Store {
	if taken, err := p.Ledger(); err != nil || taken.State().Height == 0 {
		return nil
	}
	return p.docket()
}

// docket is Docket of a node in a fleet. It is opened once.
func (p *Part) docket() *docket.Store {
	p.opening.Lock()
	defer p.opening.Unlock()
	if p.waiting == nil {
		p.waiting = docket.Open(filepath.Join(p.state, "kogge", "docket"), func() ledger.State { return p.trusted(p.opened()) })
	}
	return p.waiting
}

// papers are what operators and nodes of the fleet have signed besides the ledger. They are
// opened once; where the disk gives none, the node begins with none, and says so.
func (p *Part) papers() *papers.Store {
	p.opening.Lock()
	defer p.opening.Unlock()
	if p.store == nil {
		store, err := papers.Open(filepath.Join(p.state, "kogge", "papers"), func() ledger.State { return p.trusted(p.opened()) })
		if err != nil {
			log.Printf("agent: %v", err)
		}
		if wrong := store.Problem(); wrong != nil {
			log.Printf("agent: %v", wrong)
		}
		p.store = store
	}
	return p.store
}

// custody is what the node holds of its fleet's secrets. It is for who has a seat, or gets one.
func (p *Part) custody() (*identity.Custody, error) {
	seat, taken, err := p.Whole()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held, err = identity.OpenCustody(filepath.Join(p.state, "identity"), taken.State().Fleet(), seat.Key)
		if err == nil && p.held.Problem() != nil {
			log.Printf("agent: %v", p.held.Problem())
		}
	}
	return p.held, err
}

// number is that of the node's seat; 0: it has none. No key is made for that.
func (p *Part) number() int {
	if !identity.HasSeat(filepath.Join(p.state, "identity")) {
		return 0
	}
	own, taken, err := p.Whole()
	if err != nil {
		return 0
	}
	seat, _ := taken.State().Roster.ByKey(own.Key)
	return seat.Number
}

// accepted says whether an operator has accepted the node. No key is made for that.
func (p *Part) accepted() bool {
	if !identity.HasSeat(filepath.Join(p.state, "identity")) {
		return false
	}
	own, _, err := p.Whole()
	if err != nil {
		return false // seatless says so
	}
	_, _, ok := p.papers().Accepted(own.Key)
	return ok
}

// seatless says why the key of the node's seat cannot be read; nil: it can, or there is none. No
// key is made for that.
func (p *Part) seatless() error {
	if !p.node.Adopted() || !identity.HasSeat(filepath.Join(p.state, "identity")) {
		return nil
	}
	_, _, err := p.Whole()
	return err
}

// isNew says whether the node came by a token, and has neither been accepted nor got a seat.
func (p *Part) isNew() bool {
	return p.node.Came() && p.number() == 0 && !p.accepted()
}

// deeds is the node's log of what it does to its own system; nil: it is in no founded fleet.
func (p *Part) deeds() *deeds.Log {
	taken, err := p.Ledger()
	if err != nil || taken.State().Height == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = deeds.Open(filepath.Join(p.state, "kogge", "deeds"))
		if err := p.done.Problem(); err != nil {
			log.Printf("agent: %v", err)
		}
	}
	return p.done
}

// Arming notes that a slot is armed, or that this has failed. A log that takes no more is in
// the way of no update: the node says so in its status.
func (p *Part) Arming(slot bootloader.Slot, r memory.Staged, by string, failed bool) {
	own := p.deeds()
	if own == nil {
		return
	}
	hash, _, _ := strings.Cut(r.Verity, ":")
	root, err := document.ParseHash(hash)
	if err == nil {
		kind := deed.Armed
		if failed {
			kind = deed.Failed
		}
		taken, _ := p.Ledger() // there is a log, so there is one
		err = own.Note(deed.Deed{
			Time: time.Now().Unix(), Boot: bootID(), Kind: kind, Slot: string(slot), Release: r.Release, Root: root, By: by, Height: taken.State().Height,
		})
	}
	if err != nil {
		log.Printf("agent: %v", err)
	}
}

// settle notes what became of what was armed, and is the head of the log after that.
func (p *Part) settle(boot control.Boot, assessment string) (head notice.Deeds, err error) {
	own := p.deeds()
	if own == nil {
		return notice.Deeds{}, nil
	}
	if root, bad := document.ParseHash(boot.RootHash); bad == nil {
		taken, _ := p.Ledger() // there is a log, so there is one
		trial := boot.Trial && assessment != "good"
		err = own.Settle(deed.Now{Boot: bootID(), Slot: boot.Slot, Root: root, Trial: trial}, time.Now().Unix(), taken.State().Height)
	}
	head.Size, head.Root = own.Head()
	return head, errors.Join(err, own.Problem())
}

// bootID is the kernel's id of this boot.
func bootID() string { return machine.ReadLine("/proc/sys/kernel/random/boot_id") }

// Problem says why the ledger, or what the node knows of its fleet besides, is not to be relied on,
// if there is a reason.
func (p *Part) Problem() error {
	if !p.node.Adopted() {
		return nil
	}
	taken, err := p.Ledger()
	if err != nil {
		return err
	}
	return errors.Join(taken.Problem(), p.seatless(), p.book().Problem(), p.papers().Problem(), p.docket().Problem())
}

// place is what people and other programs of the node are told of it. Whether the node has a
// seat is looked up only once the fleet is founded, so that no key is made unasked.
func (p *Part) place() (control.Fleet, bool) {
	g := p.node.Genesis()
	if g == nil {
		return control.Fleet{}, false
	}
	f := control.Fleet{Name: g.Name, ID: g.ID()}
	if !p.node.Adopted() {
		p.mu.Lock()
		defer p.mu.Unlock()
		f.Waits = p.waits
		return f, f.Waits != ""
	}
	taken, err := p.Ledger()
	if err != nil {
		f.Problem = err.Error()
		return f, true
	}
	s := taken.State()
	if f.Height = s.Height; f.Height > 0 {
		f.Votes, f.Quorum = s.Roster.Votes(), s.Roster.Quorum()
		if _, _, err := p.Whole(); err != nil {
			f.Problem = err.Error()
		}
	}
	if err := taken.Problem(); err != nil {
		f.Problem = err.Error()
	}
	f.New = p.isNew()
	standing, unkept := p.book().Standing(), p.book().Problem()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seat != nil {
		if one, is := standing.Isolates(p.seat.Key); is && f.Problem == "" {
			f.Problem = one.String()
		}
		if unkept != nil && f.Problem == "" {
			f.Problem = unkept.Error()
		}
		f.Key = p.seat.Key.ID().Short()
		if seat, ok := s.Roster.ByKey(p.seat.Key); ok {
			f.Seat = seat.Number
		}
	}
	return f, true
}

// votes has PID 1 know how many votes decide, before the record is taken that makes them more: it
// must arm nothing by itself then. That they are fewer it knows from the next start on.
func (p *Part) votes(s ledger.State) error {
	m, votes := p.memory(), memory.Votes(s.Roster.Votes())
	if known, err := memory.ReadVotes(m); err == nil && known >= votes {
		return nil
	}
	return votes.Write(m)
}

// SettleVotes has PID 1 know how many votes decide by what the node has taken, while nobody takes
// more.
func (p *Part) SettleVotes() error {
	if !p.node.Adopted() {
		return nil
	}
	if err := p.arrive(); err != nil {
		log.Printf("agent: %v", err)
	}
	taken, err := p.Ledger()
	if err != nil {
		return err
	}
	s, votes := taken.State(), memory.Votes(1)
	if s.Height > 0 {
		votes = memory.Votes(s.Roster.Votes())
	}
	switch {
	case taken.Problem() == nil:
	case s.Height > 0:
		return p.votes(s)
	default: // there may be any number
		return nil
	}
	if known, err := memory.ReadVotes(p.memory()); err == nil && known == votes {
		return nil
	}
	return votes.Write(p.memory())
}

func (p *Part) memory() memory.Folder { return memory.In(filepath.Join(p.state, "kogge", "update")) }

// Tell writes the node's place for the other programs, and tells of it on the console, when it
// is another than before.
func (p *Part) Tell() {
	f, is := p.place()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !is || f == p.told {
		return
	}
	p.told = f
	log.Printf("agent: fleet %s", f)
	if err := f.Write(p.run); err != nil {
		log.Printf("agent: %v", err)
	}
	p.show()
}

// errForgets is the answer of a node that lets in nobody whose key may have been revoked.
var errForgets = errors.New("this node cannot read any more which keys are revoked, and until the first operator has told it all of them (kogge node adopt ADDRESS --all-revoked) it knows him alone")

// Known is what the ledger makes of a caller. A node that nobody has adopted has none, and
// knows him by his certificate.
func (p *Part) Known(who fleet.Peer) (fleet.Peer, error) {
	if !p.node.Adopted() {
		return who, nil
	}
	if err := p.outcasts.Load().Admit(who); err != nil {
		return who, err
	}
	if p.node.Forgets() && who.Kind == fleet.KindOperator && who.Key != p.node.Genesis().FirstOperatorID() {
		return who, fmt.Errorf("%s: %w", who, errForgets)
	}
	taken, err := p.Ledger()
	if err != nil {
		return who, err
	}
	return taken.Known(who)
}
