package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"log"
	"net/netip"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"kogge.example/agent/api"
	"kogge.example/agent/api/kogge/v1"
	"kogge.example/agent/door"
	"kogge.example/agent/enrol"
	"kogge.example/agent/events"
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/mdns"
	"kogge.example/agent/peers"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/records"
	"kogge.example/agent/speaker"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/order"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// talk is the node's part in the gossip of its fleet, for as long as it has a seat there.
type talk struct {
	part    *part
	machine machine.Machine
	changed chan struct{}   // the ledger has grown
	news    chan struct{}   // a seat has another key or address
	papered chan struct{}   // there are other papers
	shares  identity.Shares // the goroutine's of run
	clock   clock
	// reach is where a seat may answer, and find looks for it where nobody has said that it is.
	reach func(*gossip.Engine, *pinned.Ledger, roster.Seat) []netip.AddrPort
	find  func(context.Context, roster.Seat) []netip.AddrPort
	// happened hears what becomes of seats by order.
	happened func(...events.Event)

	session atomic.Pointer[talking]
}

// talking is it from when the node has a seat on.
type talking struct {
	ctx    context.Context
	engine *gossip.Engine
	peers  *gossip.TLS
	member *enrol.Member // for nodes that come
	taken  *pinned.Ledger
	board  *notices
}

// factsEvery is how often the node looks at itself for what it tells others, and wordsLast how
// long it calls a fault by the same words, though a number in them changes.
const (
	factsEvery = time.Minute
	wordsLast  = 15 * time.Minute
)

func newTalk(p *part, m machine.Machine) *talk {
	t := &talk{
		part: p, machine: m, changed: make(chan struct{}, 1), news: make(chan struct{}, 1), papered: make(chan struct{}, 1), reach: addressesFor,
		shares: make(identity.Shares), clock: clock{m.ClockSure, m.ClockFloor}, happened: func(...events.Event) {},
	}
	t.find = t.findOnLinks
	return t
}

// enrol takes the connection of a node that comes, or visits.
func (t *talk) enrol(conn *tls.Conn) {
	if now := t.session.Load(); now != nil {
		now.member.Serve(now.ctx, conn, func() { door.LetGo(conn.NetConn()) })
	}
}

// refused is how often this node has refused what was brought to it besides the ledger.
func (t *talk) refused() map[string]uint64 {
	now := t.session.Load()
	if now == nil {
		return nil
	}
	return now.member.Refused()
}

// look has run look at the ledger.
func (t *talk) look() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// serve takes the session of a peer.
func (t *talk) serve(conn *tls.Conn) {
	now := t.session.Load()
	if now == nil {
		return // the node has no seat yet
	}
	// Who is refused is told by the end of it; strangers would fill the log.
	_ = now.peers.Serve(now.ctx, conn, func() { door.LetGo(conn.NetConn()) })
}

// serveBoard takes the session of a node that wants to reach etcd.
func (t *talk) serveBoard(conn *tls.Conn) {
	if now := t.session.Load(); now != nil {
		now.board.serve(now.ctx, conn)
	}
}

// board is what the node knows of the others.
func (t *talk) board() (records.Board, error) {
	now := t.session.Load()
	if now == nil {
		return records.Board{}, errors.New("the node has no seat in a founded fleet: it hears of no others")
	}
	return now.board.board(), nil
}

// run talks whenever the node has a seat, until ctx ends. What keeps it from knowing that may be
// over later, and nobody tells of it.
func (t *talk) run(ctx context.Context, port int) {
	const first, longest = 5 * time.Second, 15 * time.Minute
	wait := first
	for ctx.Err() == nil {
		seat, taken, err := t.seated()
		if seat != nil {
			t.talk(ctx, seat, taken, port)
			wait = first
			continue
		}
		var again <-chan time.Time
		if err != nil {
			log.Printf("agent: %v; next try in %s", err, wait)
			again = time.After(wait)
			wait = min(2*wait, longest)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-t.changed:
			t.part.tell()
		}
	}
}

// seated is the key of the node's seat and the ledger that lists it; nil: it has none. The error
// says why that cannot be said. No key is made for that.
func (t *talk) seated() (*identity.Seat, *pinned.Ledger, error) {
	taken, err := t.part.ledger()
	if err != nil || taken.State().Height == 0 {
		return nil, nil, nil
	}
	if !identity.HasSeat(filepath.Join(t.part.state, "identity")) {
		return nil, nil, nil
	}
	seat, taken, err := t.part.whole()
	if err != nil {
		return nil, nil, err
	}
	if _, listed := taken.State().Roster.ByKey(seat.Key); !listed {
		return nil, nil, nil
	}
	return seat, taken, nil
}

// talk gossips until ctx ends, or the node has another ledger, or no seat.
func (t *talk) talk(ctx context.Context, seat *identity.Seat, taken *pinned.Ledger, port int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	numbers := identity.OpenNumbers(filepath.Join(t.part.state, "identity"))
	says := speaker.New(seat.Key, numbers, func(kind string, number uint64, body []byte) (signed.Envelope, error) {
		return seat.Seal(kind, taken.State().Fleet(), number, body)
	})
	held, err := t.part.custody()
	if err != nil {
		log.Printf("agent: %v", err) // a node that could not hold secrets still talks
	}
	store := t.part.papers()
	store.Listen(func() {
		select {
		case t.papered <- struct{}{}:
		default:
		}
	})
	book := t.part.book()
	book.Look(taken.State(), time.Now()) // who is isolated is so from the first session on
	conns := &gossip.TLS{Certificate: t.part.node.Certificate, Find: t.find}
	var board *notices
	var heeded atomic.Pointer[map[signed.Key]bool] // the seats of which the service etcd is told; nil: it was told of none yet
	engine := gossip.New(gossip.Config{
		Self: seat.Key, Ledger: taken, Kinds: slices.Concat(notice.Kinds(), order.Kinds()), Papers: store, Transport: conns, Grown: t.look, Refuse: refuse(book),
		Revoked: func(key document.Hash) bool { return t.part.node.Revoked(key.String()) },
		News: func(object signed.Envelope) {
			says.Heard(object)
			board.heard(object)
			if of := heeded.Load(); object.Kind != notice.StatusKind && (of == nil || (*of)[object.By] || order.Is(object.Kind)) {
				t.wake()
			}
		},
	})
	conns.Admit = engine.Admit
	conns.Word = func() (signed.Envelope, error) { return word(engine, seat.Key) }
	conns.Addresses = func(s roster.Seat) []netip.AddrPort { return t.reach(engine, taken, s) }
	board = newNotices(t.part, engine, taken, seat.Key, conns, t.look)
	t.session.Store(&talking{ctx, engine, conns, memberFor(t.part, t.clock, engine, taken, seat, held), taken, board})
	defer t.session.Store(nil)
	defer alongside(context.WithoutCancel(ctx), engine.Run, func(ctx context.Context) { says.Run(ctx, board) }, board.client.Run, board.runGateway)()
	publish(engine, book)
	log.Printf("agent: the node talks to its fleet as seat key %s", seat.Key.ID().Short())
	memory, err := peers.Open(filepath.Join(t.part.state, "kogge", "peers"))
	if err != nil {
		log.Printf("agent: %v", err)
	}
	for _, word := range memory.Words() {
		_ = engine.Publish(word) // who is not listed any more is refused
	}
	defer func() {
		memory.Note(engine.Object, taken.State().Roster, seat.Key)
		t.keep(memory.Flush)
	}()
	var words spoken
	seats, err := control.ReadSeats(t.part.run) // as the agent knew them that ran before this one
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Printf("agent: %v", err)
	}
	var standing order.Standing
	tick := time.NewTicker(factsEvery)
	defer tick.Stop()
	for look := true; ; {
		standing = t.heed(engine, taken.State(), standing, func(order.Standing) {
			engine.Advanced()
			board.gateway.Advanced()
		})
		t.exclude(engine, standing)
		t.part.tell()
		if look { // which asks PID 1 and the disk
			t.say(ctx, says, engine, taken, seat.Key, port, &words, numbers.Problem())
		}
		t.sayCustody(says, engine, held, taken.State(), seat.Key)
		heeded.Store(t.tellSeats(engine, taken.State().Roster, standing, &seats))
		look = true
		select {
		case <-ctx.Done():
			return
		case <-t.news:
			look = false
		case <-t.papered:
			engine.Papered()
		case <-t.changed:
			t.part.tell()
			if _, now, _ := t.seated(); now != taken {
				return
			}
			engine.Advanced()
			board.gateway.Advanced()
		case <-tick.C:
			engine.Advanced() // a key may have been withdrawn
			memory.Note(engine.Object, taken.State().Roster, seat.Key)
			t.keep(memory.Keep)
		}
	}
}

// keep writes down what is remembered of others, by one of the ways of [peers.Memory].
func (t *talk) keep(write func(time.Time) error) {
	if err := write(time.Now()); err != nil {
		log.Printf("agent: %v", err)
	}
}

// maxLeaving is how many seats the service etcd is told of that the roster does not have run it.
const maxLeaving = 64

// seatsOf is what the service etcd has to know of the seats that run it: which TLS key each calls
// its own, where it may be, and what operators have ordered. Those are the seats that the roster has run etcd, and those that
// it has had or that etcd lists, for as long as they have a seat: they go once etcd has let them.
// What was known before counts until the same seat key says something newer: an engine begins
// with nothing, and may hear the old word first.
func seatsOf(object func(kind string, by signed.Key) (signed.Envelope, bool), r roster.Roster, standing order.Standing, before control.Seats, listed []int) (all control.Seats) {
	all.Ordered = standing.Generation
	leaving := 0
	for _, seat := range r.Seats {
		i := slices.IndexFunc(before.Seats, func(b control.Seat) bool { return b.Number == seat.Number })
		if !seat.Member && !seat.Spare {
			if i < 0 && !slices.Contains(listed, seat.Number) || leaving == maxLeaving {
				continue
			}
			leaving++
		}
		s := control.Seat{Number: seat.Number, Key: seat.Key.ID().String()}
		if i >= 0 && before.Seats[i].Key == s.Key {
			s = before.Seats[i]
		}
		if word, ok := object(notice.TLSKeyKind, seat.Key); ok && word.Sequence >= s.TLSNumber {
			if k, err := notice.OpenTLSKey(word); err == nil && k.Seat == seat.Number {
				s.TLSKey, s.TLSNumber = k.Key.String(), word.Sequence
			}
		}
		absent, _ := standing.Absence(seat.Key)
		s.Away, s.Yields = absent.State == order.Away, absent.State == order.Away || absent.State == order.Drained
		if record, ok := object(notice.NodeKind, seat.Key); ok {
			if n, err := notice.OpenNode(record); err == nil {
				s.Addresses = nil
				for _, a := range n.Addresses {
					s.Addresses = append(s.Addresses, netip.AddrPortFrom(a.Addr(), memberPort))
				}
			}
		}
		all.Seats = append(all.Seats, s)
	}
	return all
}

// tellSeats writes the seats for the service etcd when they are others than the last time, and
// returns which they are. The key of an isolated seat, or one revoked on this node, is none.
func (t *talk) tellSeats(engine *gossip.Engine, r roster.Roster, standing order.Standing, last *control.Seats) *map[signed.Key]bool {
	own, _ := control.ReadEtcd(t.part.run) // none: etcd does not run here
	now := seatsOf(engine.Object, r, standing, *last, slices.Concat(own.Members, own.Learners))
	heeded := make(map[signed.Key]bool)
	for i, s := range now.Seats {
		seat, ok := r.Seat(s.Number)
		if ok {
			heeded[seat.Key] = true
		}
		if _, isolated := standing.Isolates(seat.Key); isolated || s.TLSKey != "" && t.part.node.Revoked(s.TLSKey) {
			now.Seats[i].TLSKey = ""
		}
	}
	if reflect.DeepEqual(now, *last) {
		return &heeded
	}
	if err := now.Write(t.part.run); err != nil {
		log.Printf("agent: %v", err)
		return &heeded
	}
	*last = now
	return &heeded
}

// word is the seat's own word for its TLS key, once it has said it.
func word(engine *gossip.Engine, self signed.Key) (signed.Envelope, error) {
	if own, ok := engine.Object(notice.TLSKeyKind, self); ok {
		return own, nil
	}
	return signed.Envelope{}, gossip.ErrHello
}

// say says how the node is now.
func (t *talk) say(ctx context.Context, says *speaker.Speaker, engine *gossip.Engine, taken *pinned.Ledger, self signed.Key, port int, words *spoken, numbers error) {
	state := taken.State()
	seat, listed := state.Roster.ByKey(self)
	key, err := document.ParseHash(t.part.node.Key())
	if !listed || err != nil {
		return
	}
	says.Say(notice.TLSKeyKind, notice.TLSKey{Version: 1, Seat: seat.Number, Key: key}.Encode())
	facts := t.machine.Status(ctx)
	boot, _ := control.ReadBoot(t.machine.Folder())
	is := recordOf(seat.Name, facts, boot, roster.OwnAddresses(addressesOf(t.machine.Folder())), port)
	if a, _, ok := t.part.papers().Accepted(self); ok {
		is.Attested = a.Attested
	}
	record := is.Encode()
	if _, err := notice.ParseNode(record); err != nil {
		log.Printf("agent: what the node says of itself: %v", err)
	} else {
		says.Say(notice.NodeKind, record)
	}
	wrong := faults(facts)
	for _, err := range []error{numbers, says.Problem()} {
		if err != nil {
			wrong = append(wrong, notice.Fault{What: "gossip", Why: err.Error()})
		}
	}
	done, err := t.part.settle(boot, facts.GetBoot().GetAssessment())
	if err != nil {
		wrong = append(wrong, notice.Fault{What: "deeds", Why: err.Error()})
	}
	status := notice.Status{Version: 1, Height: state.Height, Head: state.Record, Deeds: done, Wrong: words.same(wrong, time.Now())}
	says.Say(notice.StatusKind, status.Fit(engine.Limit(notice.StatusKind)).Encode())
}

// recordOf is the record of a node with these facts.
func recordOf(name string, s *apiv1.StatusResponse, boot control.Boot, addresses []netip.Addr, port int) notice.Node {
	n := notice.Node{
		Version: 1, Name: name, Arch: runtime.GOARCH, Board: cmp.Or(boot.Board, "unknown"), Model: model(), Kernel: cmp.Or(s.Kernel, "unknown"),
		Capacity: notice.Capacity{CPUs: runtime.NumCPU(), Memory: max(1, int64(s.GetMemory().GetTotal())), Disk: int64(s.GetState().GetTotal())},
	}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.AddrPortFrom(a, uint16(port)))
	}
	if boot.Slot == "A" || boot.Slot == "B" {
		root, _ := document.ParseHash(boot.RootHash) // none: it is not known
		running := notice.Slot{Name: boot.Slot, Release: boot.Version, Root: root, Running: true}
		if a := s.GetBoot().GetAssessment(); a == "good" || a == "bad" || a == "pending" {
			running.Boot = a
		}
		n.Slots = []notice.Slot{running}
	}
	return n
}

// model is the machine's, as its firmware calls it; "": it does not say.
func model() string {
	for _, file := range []string{"/proc/device-tree/model", "/sys/class/dmi/id/product_name"} {
		if text := strings.TrimRight(machine.ReadLine(file), "\x00"); text != "" {
			return notice.Text(text)
		}
	}
	return ""
}

// faults are what is wrong with the node, by its facts.
func faults(s *apiv1.StatusResponse) (all []notice.Fault) {
	for _, d := range s.Degraded {
		all = append(all, notice.Fault{What: d.What, Why: d.Why})
	}
	for _, one := range s.Services {
		if one.Failing {
			all = append(all, notice.Fault{What: "service " + one.Name, Why: cmp.Or(one.LastExit, one.Text, "it fails")})
		}
	}
	return all
}

// spoken are the words by which faults were called.
type spoken struct {
	faults []notice.Fault
	at     time.Time
}

// same is the list as it was called before, if it is about the same things and that was not
// long ago: a number that changes each minute is no news to a fleet.
func (s *spoken) same(now []notice.Fault, at time.Time) []notice.Fault {
	about := func(a, b notice.Fault) bool { return a.What == b.What }
	if !slices.EqualFunc(s.faults, now, about) || at.Sub(s.at) >= wordsLast {
		s.faults, s.at = now, at
	}
	return s.faults
}

// findLimit is how long a seat is looked for on the node's own links.
const findLimit = 3 * time.Second

// findOnLinks asks the machines on the node's own links for a seat, by its name: behind another
// router all of them may have other addresses, and none has told anybody. A node that says its
// own name nowhere asks for none.
func (t *talk) findOnLinks(ctx context.Context, seat roster.Seat) (all []netip.AddrPort) {
	if len(links(t.part.run)) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	found, err := mdns.Lookup(ctx, seat.Name+".local")
	if err != nil {
		return nil // nobody has the name, or there is no link: its session is tried again
	}
	for _, a := range found {
		all = append(all, netip.AddrPortFrom(a, api.Port))
	}
	return all
}

// addressesFor are where a seat may answer: by its own word, and where it was founded.
func addressesFor(engine *gossip.Engine, taken *pinned.Ledger, seat roster.Seat) (all []netip.AddrPort) {
	if engine != nil { // else the node has no seat
		if object, ok := engine.Object(notice.NodeKind, seat.Key); ok {
			if n, err := notice.OpenNode(object); err == nil {
				all = n.Addresses
			}
		}
	}
	first, err := taken.Entry(1)
	if err != nil {
		return all
	}
	v, err := ledger.ParseValue(first.Value)
	if err != nil || v.Founding == nil {
		return all
	}
	for _, a := range v.Founding.Cluster {
		if at := netip.AddrPortFrom(a.Address.Addr(), api.Port); a.Seat == seat.Number && !slices.Contains(all, at) {
			all = append(all, at)
		}
	}
	return all
}
