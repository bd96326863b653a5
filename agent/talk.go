package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
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
	"kogge.example/agent/gossip"
	"kogge.example/agent/identity"
	"kogge.example/agent/machine"
	"kogge.example/agent/pinned"
	"kogge.example/agent/serve/records"
	"kogge.example/agent/speaker"
	"kogge.example/init/control"
	"kogge.example/update/fleet/document"
	"kogge.example/update/fleet/ledger"
	"kogge.example/update/fleet/notice"
	"kogge.example/update/fleet/roster"
	"kogge.example/update/fleet/signed"
)

// talk is the node's part in the gossip of its fleet, for as long as it has a seat there.
type talk struct {
	part    *part
	machine machine.Machine
	changed chan struct{} // the ledger has grown
	news    chan struct{} // a seat has another key or address
	// reach is where a seat may answer.
	reach func(*gossip.Engine, *pinned.Ledger, roster.Seat) []netip.AddrPort

	session atomic.Pointer[talking]
}

// talking is it from when the node has a seat on.
type talking struct {
	ctx    context.Context
	engine *gossip.Engine
	peers  *gossip.TLS
	board  *notices
}

// factsEvery is how often the node looks at itself for what it tells others, and wordsLast how
// long it calls a fault by the same words, though a number in them changes.
const (
	factsEvery = time.Minute
	wordsLast  = 15 * time.Minute
)

func newTalk(p *part, m machine.Machine) *talk {
	return &talk{part: p, machine: m, changed: make(chan struct{}, 1), news: make(chan struct{}, 1), reach: addressesFor}
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

// run talks whenever the node has a seat, until ctx ends.
func (t *talk) run(ctx context.Context, port int) {
	for ctx.Err() == nil {
		if seat, taken := t.seated(); seat != nil {
			t.talk(ctx, seat, taken, port)
			continue
		}
		select {
		case <-ctx.Done():
		case <-t.changed:
			t.part.tell()
		}
	}
}

// seated is the key of the node's seat and the ledger that lists it; nil: it has none. No key
// is made for that.
func (t *talk) seated() (*identity.Seat, *pinned.Ledger) {
	taken, err := t.part.ledger()
	if err != nil || taken.State().Height == 0 {
		return nil, nil
	}
	if !identity.HasSeat(filepath.Join(t.part.state, "identity")) {
		return nil, nil
	}
	seat, taken, err := t.part.whole()
	if err != nil {
		log.Printf("agent: %v", err)
		return nil, nil
	}
	if _, listed := taken.State().Roster.ByKey(seat.Key); !listed {
		return nil, nil
	}
	return seat, taken
}

// talk gossips until ctx ends, or the node has another ledger, or no seat.
func (t *talk) talk(ctx context.Context, seat *identity.Seat, taken *pinned.Ledger, port int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	numbers := identity.OpenNumbers(filepath.Join(t.part.state, "identity"))
	says := speaker.New(seat.Key, numbers, func(kind string, number uint64, body []byte) (signed.Envelope, error) {
		return seat.Seal(kind, taken.State().Fleet(), number, body)
	})
	peers := &gossip.TLS{Certificate: t.part.node.Certificate}
	var board *notices
	engine := gossip.New(gossip.Config{Self: seat.Key, Ledger: taken, Kinds: notice.Kinds(), Transport: peers, Grown: t.look, News: func(object signed.Envelope) {
		says.Heard(object)
		board.heard(object)
		if object.Kind == notice.TLSKeyKind || object.Kind == notice.NodeKind {
			select {
			case t.news <- struct{}{}:
			default:
			}
		}
	}})
	peers.Admit = engine.Admit
	peers.Word = func() (signed.Envelope, error) { return word(engine, seat.Key) }
	peers.Addresses = func(s roster.Seat) []netip.AddrPort { return t.reach(engine, taken, s) }
	board = newNotices(t.part, engine, taken, seat.Key, peers, t.look)
	t.session.Store(&talking{ctx, engine, peers, board})
	defer t.session.Store(nil)
	defer alongside(ctx, engine.Run, func(ctx context.Context) { says.Run(ctx, board) }, board.client.Run, board.runGateway)()
	log.Printf("agent: the node talks to its fleet as seat key %s", seat.Key.ID().Short())
	var words spoken
	var seats control.Seats
	for {
		t.say(ctx, says, engine, taken, seat.Key, port, &words, numbers.Problem())
		t.tellSeats(seatsOf(engine, taken.State().Roster), &seats)
		select {
		case <-ctx.Done():
			return
		case <-t.news:
		case <-t.changed:
			t.part.tell()
			if _, now := t.seated(); now != taken {
				return
			}
			engine.Advanced()
			board.gateway.Advanced()
		case <-time.After(factsEvery):
		}
	}
}

// seatsOf is what the service etcd has to know of the seats that may run it: which TLS key each
// calls its own, and where it may be.
func seatsOf(engine *gossip.Engine, r roster.Roster) (all control.Seats) {
	for _, seat := range r.Seats {
		if !seat.Member && !seat.Spare {
			continue
		}
		s := control.Seat{Number: seat.Number}
		if object, ok := engine.Object(notice.TLSKeyKind, seat.Key); ok {
			if k, err := notice.OpenTLSKey(object); err == nil && k.Seat == seat.Number {
				s.TLSKey = k.Key.String()
			}
		}
		if object, ok := engine.Object(notice.NodeKind, seat.Key); ok {
			if n, err := notice.OpenNode(object); err == nil {
				for _, a := range n.Addresses {
					s.Addresses = append(s.Addresses, netip.AddrPortFrom(a.Addr(), memberPort))
				}
			}
		}
		all.Seats = append(all.Seats, s)
	}
	return all
}

// tellSeats writes the seats for the service etcd when they are others than before. A key that
// was revoked on this node is none.
func (t *talk) tellSeats(now control.Seats, last *control.Seats) {
	for i, s := range now.Seats {
		if s.TLSKey != "" && t.part.node.Revoked(s.TLSKey) {
			now.Seats[i].TLSKey = ""
		}
	}
	if reflect.DeepEqual(now, *last) {
		return
	}
	if err := now.Write(t.part.run); err != nil {
		log.Printf("agent: %v", err)
		return
	}
	*last = now
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
	record := recordOf(seat.Name, facts, boot, roster.OwnAddresses(addressesOf(t.machine.Folder())), port).Encode()
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

// addressesFor are where a seat may answer: by its own word, and where it was founded.
func addressesFor(engine *gossip.Engine, taken *pinned.Ledger, seat roster.Seat) (all []netip.AddrPort) {
	if object, ok := engine.Object(notice.NodeKind, seat.Key); ok {
		if n, err := notice.OpenNode(object); err == nil {
			all = n.Addresses
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
