package mdns

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Link is one of the node's own links, with its addresses.
type Link struct {
	Name      string
	Addresses []netip.Prefix
}

// Config says what a node announces, and where. Both are asked again every few
// seconds; an announcement without a host name is none.
type Config struct {
	Links        func() []Link
	Announcement func() Announcement
	Twin         *Twin // hears of other machines with the announcement's key; nil: nobody does
}

const (
	refreshEvery = 5 * time.Second
	maxPackets   = 16 // that wait to be looked at: what comes beyond is lost, and sent again
	maxDelayed   = 16 // answers that wait for their moment
)

// Run answers until ctx ends, and then says goodbye. A link on which it cannot be done
// is a line in the log, and tried again.
func Run(ctx context.Context, c Config) {
	r := &responder{Config: c, links: make(map[string]*link), failed: make(map[string]string), packets: make(chan packet, maxPackets)}
	defer r.close()
	again := time.NewTicker(refreshEvery)
	defer again.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	r.refresh(time.Now())
	for {
		next.Reset(r.due(time.Now()))
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			r.refresh(time.Now())
		case <-next.C:
		case p := <-r.packets:
			r.hear(p, time.Now())
		}
		r.work(time.Now())
	}
}

// responder is the node on all its links. One goroutine owns it.
type responder struct {
	Config
	links   map[string]*link
	failed  map[string]string // links that cannot be listened to, and why, once logged
	said    Announcement
	packets chan packet
}

// packet is a message that came by a link.
type packet struct {
	link   *link
	socket *socket
	from   netip.AddrPort
	m      *dns.Msg
}

// link is the node on one link.
type link struct {
	Link
	networks atomic.Pointer[[]netip.Prefix] // of its addresses, for those who read
	index    int                            // of the kernel's: a link that goes and comes is another one
	sockets  []*socket
	readers  sync.WaitGroup
	claim    Claim
	records  []dns.RR
	recent   recent
	delayed  []delayed
	problem  string // once logged
}

// delayed is an answer for all that waits a little, since others answer too.
type delayed struct {
	m  *dns.Msg
	at time.Time
}

// refresh looks at what the node has to say now, and where.
func (r *responder) refresh(now time.Time) {
	before, said := r.said, r.Announcement()
	r.said = said
	wanted := make(map[string]Link)
	for _, l := range r.Links() {
		if len(l.Addresses) > 0 && said.Host != "" {
			wanted[l.Name] = l
		}
	}
	for name, l := range r.links {
		index, ok := 0, false
		if _, ok = wanted[name]; ok {
			index, ok = indexOf(name)
		}
		if !ok || index != l.index {
			l.close()
			delete(r.links, name)
		}
	}
	for name, want := range wanted {
		l := r.links[name]
		switch {
		case l == nil:
			l = &link{recent: make(recent)}
			l.set(want)
			if err := l.open(r.packets); err != nil {
				if err.Error() != r.failed[name] {
					log.Printf("mdns: %s: %v", name, err)
				}
				r.failed[name] = err.Error()
				continue
			}
			delete(r.failed, name)
			l.claim = NewClaim(now, rand.N(probePause))
			r.links[name] = l
		case said.Host != before.Host:
			l.goodbye()
			l.set(want)
			l.claim = NewClaim(now, rand.N(probePause))
		case said != before || !slices.Equal(want.Addresses, l.Addresses):
			l.set(want)
			l.records = r.records(l, l.claim.Number)
			r.step(l, Changed, now)
			continue
		}
		l.records = r.records(l, l.claim.Number)
	}
}

// records are what the node says on a link under the name of that number.
func (r *responder) records(l *link, number int) []dns.RR {
	return records(label(r.said.Host, number), r.said, l.ips())
}

// indexOf is the kernel's number of a link, if it is there.
func indexOf(name string) (int, bool) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, false
	}
	return i.Index, true
}

// open begins to listen.
func (l *link) open(packets chan<- packet) error {
	index, there := indexOf(l.Name)
	if !there {
		return errors.New("the link does not exist")
	}
	var err error
	if l.sockets, err = open(l.Name, Port); err != nil {
		return err
	}
	l.index = index
	for _, s := range l.sockets {
		l.readers.Go(func() {
			var heard budget
			wanted := func(from netip.Addr) bool { return l.near(from.WithZone("")) && heard.take(time.Now()) }
			s.read(wanted, func(from netip.AddrPort, m *dns.Msg) {
				select {
				case packets <- packet{l, s, from, m}:
				default: // more than can be looked at
				}
			})
		})
	}
	return nil
}

func (l *link) ips() []netip.Addr {
	var all []netip.Addr
	for _, p := range l.Addresses {
		all = append(all, p.Addr())
	}
	return all
}

// close ends what is said on the link.
func (l *link) close() {
	l.goodbye()
	for _, s := range l.sockets {
		s.Close()
	}
	l.readers.Wait()
}

func (r *responder) close() {
	for _, l := range r.links {
		l.close()
	}
}

func (l *link) goodbye() {
	if l.claim.State != Probing {
		l.toAll(goodbye(l.records))
	}
}

// toAll says something to everybody on the link.
func (l *link) toAll(m *dns.Msg) {
	var failed []string
	for _, s := range l.sockets {
		if err := s.send(m, s.group); err != nil {
			failed = append(failed, err.Error())
		}
	}
	// A link without an address of one family cannot say it there.
	if problem := strings.Join(failed, "; "); len(failed) == len(l.sockets) && problem != l.problem {
		log.Printf("mdns: %s: %s", l.Name, problem)
		l.problem = problem
	}
}

// due is how long nothing has to be done.
func (r *responder) due(now time.Time) time.Duration {
	wait := refreshEvery
	sooner := func(at time.Time) {
		if !at.IsZero() {
			wait = min(wait, max(0, at.Sub(now)))
		}
	}
	for _, l := range r.links {
		sooner(l.claim.Next)
		for _, d := range l.delayed {
			sooner(d.at)
		}
	}
	return wait
}

// work does what is due.
func (r *responder) work(now time.Time) {
	again := r.Twin != nil && len(r.links) > 0 && r.Twin.ask(now) // else nobody would hear it
	for _, l := range r.links {
		if again {
			l.toAll(question([]string{service}, []uint16{dns.TypePTR}, Port))
		}
		if !l.claim.Next.IsZero() && !now.Before(l.claim.Next) {
			r.step(l, Timer, now)
		}
		l.delayed = slices.DeleteFunc(l.delayed, func(d delayed) bool {
			if now.Before(d.at) {
				return false
			}
			l.toAll(d.m)
			return true
		})
	}
}

// step takes the link's claim on.
func (r *responder) step(l *link, e Event, now time.Time) {
	before, action := l.claim, Wait
	l.claim, action = l.claim.Step(e, now)
	switch {
	case l.claim.Number < before.Number:
		l.toAll(goodbye(l.records))
		l.records = r.records(l, l.claim.Number)
	case l.claim.Number > before.Number:
		log.Printf("mdns: %s: another machine is %s", l.Name, name(r.said.Host, before.Number))
		l.records = r.records(l, l.claim.Number)
	}
	switch action {
	case Probe:
		asked := l.records
		if l.claim.State == Regaining {
			asked = r.records(l, l.claim.Try)
		}
		l.toAll(probe(asked))
	case Announce:
		if before.State == Probing || l.claim.Number != before.Number {
			log.Printf("mdns: %s: this node is %s", l.Name, name(r.said.Host, l.claim.Number))
		}
		l.toAll(announcement(l.records))
	}
}

// name is what people type: "n1.local".
func name(host string, number int) string {
	return strings.TrimSuffix(hostName(label(host, number)), ".")
}

// mine says whether an address is this node's, on any of its links.
func (r *responder) mine(a netip.Addr) bool {
	for _, l := range r.links {
		if slices.Contains(l.ips(), a) {
			return true
		}
	}
	return false
}

// near says whether an address is one of the link's own network.
func (l *link) near(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(*l.networks.Load(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// set takes over what is known of the link.
func (l *link) set(to Link) {
	l.Link = to
	l.networks.Store(&to.Addresses)
}

// hear takes a message in. What comes from this node itself, by whichever of its links,
// says nothing new; who is not on the link any more is not answered (section 11).
func (r *responder) hear(p packet, now time.Time) {
	l, from := p.link, p.from.Addr().WithZone("")
	if r.links[l.Name] != l || r.mine(from) || !l.near(from) {
		return
	}
	if at, ok := twin(p.m, l.Name, r.said.Key, r.mine); ok && r.Twin != nil {
		r.Twin.hear(at, now)
	}
	switch {
	case conflicts(p.m, l.records, r.mine):
		r.step(l, Conflict, now)
	case l.claim.State == Probing && loses(p.m, l.records), l.claim.State == Regaining && loses(p.m, r.records(l, l.claim.Try)):
		r.step(l, Lost, now)
	case l.claim.State == Regaining && conflicts(p.m, r.records(l, l.claim.Try), r.mine):
		r.step(l, Taken, now)
	case l.claim.State != Probing:
		l.reply(p, now)
	}
}

// reply answers a message that asks for something of the node's.
func (l *link) reply(p packet, now time.Time) {
	all, alone := answer(p.m, p.from.Port(), l.records)
	if alone != nil && l.recent.pass(asked(p), now, repeatGap) {
		_ = p.socket.send(alone, p.from) // who has gone is told nothing
	}
	if all == nil {
		return
	}
	gap := repeatGap
	if len(p.m.Ns) > 0 {
		gap = probeGap
	}
	all.Answer = slices.DeleteFunc(all.Answer, func(rr dns.RR) bool {
		return !l.recent.pass(rr.Header().Name+" "+string(data(rr)), now, gap)
	})
	switch {
	case len(all.Answer) == 0:
	case slices.ContainsFunc(all.Answer, func(rr dns.RR) bool { return !isOwn(rr) }) && len(l.delayed) < maxDelayed:
		l.delayed = append(l.delayed, delayed{all, now.Add(20*time.Millisecond + rand.N(100*time.Millisecond))}) // section 6
	default:
		l.toAll(all)
	}
}

// asked names what somebody asks.
func asked(p packet) string {
	var b strings.Builder
	fmt.Fprint(&b, p.from)
	for _, q := range p.m.Question {
		fmt.Fprintf(&b, " %s/%d", strings.ToLower(q.Name), q.Qtype)
	}
	return b.String()
}
