package network

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/network/claim"
)

// This file finds links that lead to different networks of the same addresses.

// Twins says, for people and by link, which networks and addresses a link has that another has
// as well, though it leads elsewhere. What begins on the node goes to one of them only. apart
// says whether two links are known to lead to different networks.
func Twins(links []Uplink, apart func(a, b int) bool) map[int]string {
	all := make(map[int]string)
	for _, u := range links {
		networks, addresses := make(map[netip.Prefix][]string), make(map[netip.Addr][]string) // with the others' names
		for _, o := range links {
			if o.Link == u.Link || !apart(u.Link, o.Link) {
				continue
			}
			for _, n := range common(u, o) {
				networks[n] = append(networks[n], o.Name)
			}
			for _, a := range u.Addresses {
				if !a.IsLinkLocalUnicast() && slices.Contains(o.Addresses, a) {
					addresses[a] = append(addresses[a], o.Name)
				}
			}
		}
		var text []string
		for _, n := range slices.SortedFunc(maps.Keys(networks), netip.Prefix.Compare) {
			text = append(text, fmt.Sprintf("%s is on %s, too, but as another network", n, strings.Join(networks[n], ", ")))
		}
		for _, a := range slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare) {
			text = append(text, fmt.Sprintf("%s is an address of %s, too, and answers from it leave by one link only", a, strings.Join(addresses[a], ", ")))
		}
		if len(text) > 0 {
			all[u.Link] = strings.Join(text[:min(len(text), mostShared)], "; ") + ": what begins on the node reaches one of the networks only: change the addresses of the others"
		}
	}
	return all
}

// common are the networks in which both links have an address.
func common(u, o Uplink) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range u.Networks[:min(len(u.Networks), mostNear)] {
		for _, m := range o.Networks[:min(len(o.Networks), mostNear)] {
			if n.Overlaps(m) {
				all = appendNew(all, []netip.Prefix{longer(n, m)})
			}
		}
	}
	return all
}

// pair is two links, the lower number first.
type pair struct{ a, b int }

func pairOf(a, b int) pair { return pair{min(a, b), max(a, b)} }

// neighbours has it known that two links lead to one network: the one with that MAC address has
// been heard by the other. It says whether that is new.
func (m *manager) neighbours(event claim.Heard) (news bool) {
	mac := event.Packet.SenderMAC.String()
	if !m.own[mac] {
		return false
	}
	for index, l := range m.links {
		if p := pairOf(index, event.Link); index != event.Link && l.facts.MAC == mac {
			news = news || !m.one[p]
			m.one[p] = true
		}
	}
	return news
}

// moved forgets that a link leads to the same network as another: it has lost its cable, or is
// gone.
func (m *manager) moved(link int) {
	maps.DeleteFunc(m.one, func(p pair, _ bool) bool { return p.a == link || p.b == link })
}

// tell finds twins, and names them in the links' problems once it is sure.
func (m *manager) tell(links []Uplink) {
	now := time.Now()
	texts := Twins(links, func(a, b int) bool {
		return !m.one[pairOf(a, b)] && m.links[a].settled(now) && m.links[b].settled(now)
	})
	for _, u := range links {
		l := m.links[u.Link]
		if l.twins != texts[u.Link] && texts[u.Link] != "" {
			log.Printf("network: %s: %s", l.facts.Name, texts[u.Link])
		}
		l.twins, l.overhears = texts[u.Link], nil
		for _, o := range links {
			if o.Link != u.Link && !m.one[pairOf(o.Link, u.Link)] {
				l.overhears = append(l.overhears, overheard(u, o)...)
			}
		}
	}
}

// overheard are the addresses of o that u may hear of if both lead to one network: those that
// are near for one of the two, or the same.
func overheard(u, o Uplink) []netip.Addr {
	var all []netip.Addr
	for _, a := range o.Addresses {
		near := func(n netip.Prefix) bool { return n.Contains(a) && slices.ContainsFunc(u.Addresses, n.Contains) }
		if slices.Contains(u.Addresses, a) || slices.ContainsFunc(u.Networks, near) || slices.ContainsFunc(o.Networks, near) {
			all = append(all, a)
		}
	}
	return all
}

// twinsAfter is how long a link has to have a carrier before it is named: a switch that looks for
// loops first passes nothing on for half a minute. Tests are in a hurry.
var twinsAfter = time.Minute

// asks is how often a link asks for the addresses of others shortly before.
const asks = 3

// asksNext is when the next of these questions is due, or after the last one the naming; zero:
// there is nothing to ask for.
func (l *link) asksNext() time.Time {
	if !l.facts.Carrier || len(l.overhears) == 0 || l.asked > asks {
		return time.Time{}
	}
	return l.plugged.Add(twinsAfter - twinsAfter/20*time.Duration(asks-l.asked))
}

// askOthers asks for the addresses of other links, if that is due: another one of the same
// network hears it. over says that twins may be named from now on.
func (l *link) askOthers(now time.Time) (over bool) {
	due := false
	for at := l.asksNext(); !at.IsZero() && !now.Before(at); at = l.asksNext() {
		due, over = l.asked < asks, l.asked == asks
		l.asked++
	}
	if !due || l.voice == nil {
		return over
	}
	for _, a := range l.overhears {
		if err := l.voice.Send(claim.Probe, a); err != nil && !errors.Is(err, unix.ENOBUFS) { // the cable is out
			log.Printf("network: %s: %v", l.facts.Name, err)
		}
	}
	return over
}

// settled says whether the link has had a carrier for a while and has told its addresses to all
// that are there, also to those of our links.
func (l *link) settled(now time.Time) bool {
	for _, c := range l.claims {
		if c.State != claim.Held && c.State != claim.Taken {
			return false
		}
	}
	return l.facts.Carrier && now.Sub(l.plugged) >= twinsAfter
}
