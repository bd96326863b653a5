package network

import (
	"cmp"
	"errors"
	"log"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/network/advert"
	"kogge.example/init/nodeconfig"
)

// inquiry is how a link finds out which routers are at its cable. It begins when the cable
// comes. If the cable has been out, what routers of before said is in doubt until some seconds
// after the first router has spoken: what has not been said again by then is over. It is over,
// too, where none has spoken though all were asked for a minute, but the doubt goes on then.
//
// It sends nothing and reads no clock.
type inquiry struct {
	left     int // how often routers are still to be asked, next at again
	again    time.Time
	doubted  bool
	end      time.Time // when what was said before is over; zero: not known, or it is
	answered bool      // a router has spoken
	routers  []netip.Addr
	prefixes []netip.Prefix // of networks that those routers named
}

const (
	// untilSilent is a minute of questions: a switch with a spanning tree passes nothing on for
	// half of it, and a router that starts with its network gives carrier long before it speaks.
	untilSilent = 6
	untilAsked  = 15 * time.Second // what an earlier run knew is good for
	maxRouters  = 16
)

// soon is how long routers have to say again what was said before. Tests are in a hurry.
var soon = 8 * time.Second

// solicitGaps grow: a switch may take half a minute until it passes packets on (RFC 7559).
// Tests are in a hurry.
var solicitGaps = []time.Duration{time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, 64 * time.Second, 128 * time.Second}

// begin is the inquiry that begins now.
func begin(replugged bool, now time.Time) inquiry {
	return inquiry{left: len(solicitGaps), again: now, doubted: replugged}
}

// spoke says that a router has spoken, and whether what was said before is over soon.
func (q *inquiry) spoke(now time.Time) (doubt bool) {
	first := !q.answered
	q.answered = true
	if !q.doubted {
		q.left = 0
		return false
	}
	if first {
		q.end = now.Add(soon)
	}
	return first
}

// named keeps which router it was, and its networks. A stranger's do not grow without end.
func (q *inquiry) named(a routerAdvert) {
	if q.routers = appendNew(q.routers, []netip.Addr{a.from}); len(q.routers) > maxRouters {
		q.routers = q.routers[:maxRouters]
	}
	if q.prefixes = appendNew(q.prefixes, a.prefixes); len(q.prefixes) > advert.MaxNetworks {
		q.prefixes = q.prefixes[:advert.MaxNetworks]
	}
}

// ask says whether to ask once more, and whether what was said before is over soon.
func (q *inquiry) ask(now time.Time) (ask, doubt bool) {
	if q.left == 0 || now.Before(q.again) {
		return false, false
	}
	q.again = now.Add(solicitGaps[len(solicitGaps)-q.left])
	q.left--
	if doubt = q.doubted && !q.answered && q.left == len(solicitGaps)-untilSilent; doubt {
		q.end = now.Add(soon)
	}
	return true, doubt
}

// over says, once, that what was said before is over.
func (q *inquiry) over(now time.Time) bool {
	if q.end.IsZero() || now.Before(q.end) {
		return false
	}
	q.end = time.Time{}
	if q.answered {
		q.doubted, q.left = false, 0
	}
	return true
}

// next is when something is to be done; zero: nothing is.
func (q *inquiry) next() (next time.Time) {
	if q.left > 0 {
		next = q.again
	}
	if !q.end.IsZero() && (next.IsZero() || q.end.Before(next)) {
		next = q.end
	}
	return next
}

// inquire asks the routers at the link's cable who they are: of what they said to an earlier
// run of this service, this one does not know whether it holds. replugged says that the cable has been out.
func (m *manager) inquire(l *link, replugged bool, now time.Time) {
	if cmp.Or(l.entry.IPv6, nodeconfig.IPv6Auto) != nodeconfig.IPv6Auto {
		return
	}
	if l.inquiry = begin(replugged, now); !replugged {
		return
	}
	if err := m.kernel.doubt(l.facts); err != nil {
		log.Printf("network: %s: %v", l.facts.Name, err)
	}
}

// spoke has a router have spoken on a link.
func (l *link) spoke(now time.Time) {
	if l.inquiry.spoke(now) {
		l.routers.Until(now.Add(soon))
	}
}

// goOn does what is due of a link's inquiry, and of its questions for twins. changed says whether
// it did more than to ask.
func (m *manager) goOn(l *link, now time.Time) (changed bool) {
	changed = l.askOthers(now)
	ask, doubt := l.inquiry.ask(now)
	if doubt {
		l.routers.Until(now.Add(soon))
	}
	if ask {
		// Without an address to ask from, the kernel asks as soon as it has one.
		if err := m.kernel.solicit(l.facts); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			log.Printf("network: %s: %v", l.facts.Name, err)
		}
	}
	over := l.inquiry.over(now)
	if over {
		l.refused = slices.DeleteFunc(l.refused, func(m Made) bool {
			return !m.Prefix.Addr().IsLinkLocalUnicast() && !l.inquiry.names(m.Prefix)
		})
		if err := m.sweep(l, "no router has named them again since the cable is back"); err != nil {
			log.Printf("network: %s: %v", l.facts.Name, err)
		}
	}
	return changed || doubt || over
}

// sweep has a link be without what no router has said in its inquiry; why is for the log.
func (m *manager) sweep(l *link, why string) error {
	n, err := m.kernel.sweep(l.facts, l.inquiry)
	if n > 0 {
		log.Printf("network: %s: %d addresses and routes are gone that a router gave it: %s", l.facts.Name, n, why)
	}
	return err
}

// learned are IPv6 addresses and routes of a link.
type learned struct {
	advertised []netip.Prefix // addresses that the kernel made up for a router's network
	others     []netip.Prefix // all other addresses
	networks   []netip.Prefix // to which the kernel has routes on the link itself
	byRouter   []Route        // that routers advertised: to everything, or to a network
}

// names says whether a router has named p's network.
func (q *inquiry) names(p netip.Prefix) bool { return slices.Contains(q.prefixes, p.Masked()) }

// stale are those of have that no router of q has named. With an address of somebody else's,
// or of node.yaml, stays its network.
func (q *inquiry) stale(have learned) (addresses, networks []netip.Prefix, byRouter []Route) {
	for _, a := range have.advertised {
		if !q.names(a) {
			addresses = append(addresses, a)
		}
	}
	for _, n := range have.networks {
		ours := func(a netip.Prefix) bool { return a.Masked() == n.Masked() }
		if !q.names(n) && !n.Addr().IsLinkLocalUnicast() && !n.Addr().IsMulticast() && !slices.ContainsFunc(have.others, ours) {
			networks = append(networks, n)
		}
	}
	for _, r := range have.byRouter {
		if !slices.Contains(q.routers, r.Via) {
			byRouter = append(byRouter, r)
		}
	}
	return addresses, networks, byRouter
}
