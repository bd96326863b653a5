package network

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kogge.example/init/network/claim"
)

// declined are the leases of one version of DHCP that were given back.
type declined struct {
	inARow int
	last   string // in words, until there is another lease
}

// declined are those of a's version.
func (l *link) declined(a netip.Addr) *declined {
	if a.Is6() {
		return &l.v6
	}
	return &l.v4
}

// settle brings the claims in line with the wanted addresses and with those that the kernel
// made up. It returns the wanted ones that may not be used, or not yet, and those of the
// kernel that are to come back, and those that are to leave. A link where nobody can be heard
// uses all.
func (l *link) settle(wanted []netip.Prefix, actual State) (without []netip.Addr, back []Made, leave []netip.Prefix) {
	if l.voice == nil {
		return nil, l.refused, nil
	}
	cares := []netip.Addr{}
	inUse := func(a netip.Addr, leased, used bool, failures int) bool {
		cares = append(cares, a)
		if c, ok := l.claims[a]; !ok || c.Leased != leased {
			l.claims[a] = claim.Begin(leased, used, l.facts.Carrier, failures, time.Now())
		}
		return l.claims[a].InUse()
	}
	for _, p := range wanted {
		a, failures := p.Addr(), 0
		leased := !slices.Contains(l.entry.Addresses, p)
		if leased {
			failures = l.declined(a).inARow
		}
		used := slices.ContainsFunc(actual.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
		if !inUse(a, leased, used, failures) {
			without = append(without, a)
		}
	}
	for _, m := range l.refused {
		a := m.Prefix.Addr()
		if slices.Contains(cares, a) {
			continue
		}
		if _, ok := l.claims[a]; !ok {
			log.Printf("network: %s: somebody says that %s is his: asking again", l.facts.Name, a)
		}
		if inUse(a, false, false, 1) {
			back = append(back, m)
		}
	}
	for _, m := range actual.Made {
		a := m.Prefix.Addr()
		if m.Tentative {
			continue // the kernel does not use it yet either
		}
		if !slices.Contains(cares, a) {
			inUse(a, false, true, 0)
		}
		if !l.claims[a].InUse() && !slices.Contains(actual.Addresses, m.Prefix) {
			leave = append(leave, m.Prefix)
		}
	}
	maps.DeleteFunc(l.claims, func(a netip.Addr, _ claim.Claim) bool { return !slices.Contains(cares, a) })
	l.voice.Care(cares, l.overhears...)
	return without, back, leave
}

// step has event e befall the claim on a, and does what follows. changed says whether the claim
// stands elsewhere now, or is disputed in other words.
func (l *link) step(a netip.Addr, e claim.Event, by string, now time.Time) (changed bool) {
	before := l.claims[a]
	c, action := before.Step(e, by, now)
	l.claims[a] = c
	declined := l.declined(a)
	if c.Leased {
		declined.inARow = c.Failures
		if c.InUse() {
			declined.last = ""
		}
	}
	switch action {
	case claim.Probe, claim.Announce:
		if err := l.voice.Send(action, a); err != nil && !errors.Is(err, unix.ENOBUFS) { // the cable is out
			log.Printf("network: %s: %v", l.facts.Name, err)
		}
	case claim.GiveUp:
		log.Printf("network: %s: %s", l.facts.Name, c.Dispute(a))
		if c.Leased {
			declined.last = fmt.Sprintf("the lease of %s was declined: %s has the address", a, by)
			if a.Is6() {
				l.dhcp6.TellTaken(a)
			} else {
				l.dhcp.TellTaken(a)
			}
		}
	}
	return c.State != before.State || c.Failures != before.Failures || c.Dispute(a) != before.Dispute(a)
}

// share has a link decline a lease of what another link has: their routers may come from one
// shop, and may have other addresses. Of two that come at once, the link that is preferred uses
// it.
func (m *manager) share(now time.Time) {
	for _, l := range m.links {
		for a, c := range l.claims {
			if !c.Leased || c.Ours || c.State != claim.Probing && !c.InUse() {
				continue
			}
			for _, o := range m.links {
				theirs := o.claims[a]
				if o.facts.MAC == l.facts.MAC || !o.facts.Carrier || !theirs.InUse() {
					continue
				}
				if c.State == claim.Probing || theirs.Ours || !theirs.Leased || o.facts.Rank < l.facts.Rank {
					l.step(a, claim.Conflict, o.facts.Name, now)
					break
				}
			}
		}
	}
}
