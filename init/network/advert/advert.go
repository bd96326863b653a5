// Package advert is what routers advertise: the networks at a link, and the resolvers and
// search domains to use there.
//
// In come messages of the kernel and packets of routers, who may be strangers; out come what
// they name, and of what they have named what is still good. Who listens to which link is
// init/network's to know.
package advert

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"kogge.example/init/network/dhcp"
)

// Named is the resolvers or the search domains that a router named, and for how
// long. A lifetime of zero takes them back.
type Named struct {
	Link      int // its index
	Lifetime  time.Duration
	Resolvers []netip.Addr
	Domains   []string
}

// ParseNamed reads the RDNSS and DNSSL options of one RTM_NEWNDUSEROPT message.
// What is cut short or of another kind is left out.
//
// Sources: struct nduseroptmsg in include/uapi/linux/rtnetlink.h; RFC 8106, 5.1 and 5.2.
func ParseNamed(data []byte) []Named {
	const header, rdnssOption, dnsslOption = 16, 25, 31
	if len(data) < header {
		return nil
	}
	length := int(binary.NativeEndian.Uint16(data[2:]))
	index := int(int32(binary.NativeEndian.Uint32(data[4:])))
	options := data[header:]
	if length > len(options) {
		return nil
	}
	options = options[:length]
	var all []Named
	for len(options) >= 8 {
		size := int(options[1]) * 8
		if size == 0 || size > len(options) {
			break
		}
		one := options[:size]
		options = options[size:]
		a := Named{Link: index, Lifetime: time.Duration(binary.BigEndian.Uint32(one[4:])) * time.Second}
		switch one[0] {
		case rdnssOption:
			for rest := one[8:]; len(rest) >= 16; rest = rest[16:] {
				if addr, _ := netip.AddrFromSlice(rest[:16]); dhcp.Usable(addr.Unmap()) && addr.Unmap().Is6() {
					a.Resolvers = append(a.Resolvers, addr)
				}
			}
		case dnsslOption:
			a.Domains = domains(one[8:])
		}
		if len(a.Resolvers)+len(a.Domains) > 0 {
			all = append(all, a)
		}
	}
	return all
}

// domains reads names in the form of DNS, one after the other, to the padding behind the
// last. A name that is no domain's is left out.
func domains(data []byte) []string {
	var all []string
	for len(data) > 0 && data[0] != 0 {
		var labels []string
		for len(data) > 0 && data[0] != 0 {
			n := int(data[0])
			if n > 63 || n >= len(data) { // a pointer, or cut short
				return all
			}
			labels = append(labels, string(data[1:1+n]))
			data = data[1+n:]
		}
		if len(data) == 0 {
			return all
		}
		data = data[1:]
		if name := strings.ToLower(strings.Join(labels, ".")); dhcp.IsDomain(name) {
			all = append(all, name)
		}
	}
	return all
}

// ParseNetworks reads the networks of an advertisement, from its ICMPv6 header on. What
// is cut short or of another kind is none.
//
// Source: RFC 4861, sections 4.2 and 4.6.2.
func ParseNetworks(data []byte) (prefixes []netip.Prefix, ok bool) {
	const kind, header, option, size = 134, 16, 3, 32
	if len(data) < header || data[0] != kind || data[1] != 0 {
		return nil, false
	}
	for rest := data[header:]; len(rest) > 0; {
		if len(rest) < 2 || rest[1] == 0 || int(rest[1])*8 > len(rest) {
			return nil, false // the kernel takes nothing of it either
		}
		one := rest[:int(rest[1])*8]
		rest = rest[len(one):]
		if one[0] != option || len(one) != size || binary.BigEndian.Uint32(one[4:]) == 0 {
			continue
		}
		if p, err := netip.AddrFrom16([16]byte(one[16:])).Prefix(int(one[2])); err == nil && len(prefixes) < MaxNetworks {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, true
}

// Known is what the routers of one link have named.
type Known struct {
	resolvers dated[netip.Addr]
	domains   dated[string]
}

// Bounds of what a hostile router can have us keep.
const (
	MaxNetworks  = 64 // of one packet, and of one link
	maxResolvers = 16
	maxDomains   = 6
)

func (r *Known) Add(a Named, now time.Time) {
	r.resolvers.add(a.Resolvers, a.Lifetime, maxResolvers, now)
	r.domains.add(a.Domains, a.Lifetime, maxDomains, now)
}

// Next is when the next of it after now ends; zero: nothing does.
func (r *Known) Next(now time.Time) time.Time {
	a, b := r.resolvers.next(now), r.domains.next(now)
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Until ends what would be good for longer, unless a router names it again.
func (r *Known) Until(end time.Time) {
	r.resolvers.until(end)
	r.domains.until(end)
}

// Resolvers are those that are good now, what its router has not repeated for long last.
func (r *Known) Resolvers(now time.Time) []netip.Addr { return r.resolvers.current(now) }

// Domains are those that are good now, in the same order.
func (r *Known) Domains(now time.Time) []string { return r.domains.current(now) }

// dated are values with the times when they were heard and that they are good until, in the
// order in which they came.
type dated[T comparable] struct {
	all []value[T]
}

type value[T comparable] struct {
	is    T
	heard time.Time // the last time
	until time.Time
}

const (
	// longestNamed is how long anything is good for that is not named again, whatever its
	// router says: it may have been no router.
	longestNamed = 24 * time.Hour
	// interval is the longest between two advertisements of a router (RFC 4861, 6.2.1).
	interval = 30 * time.Minute
)

// add takes in what is named now. Where there is no room, what was heard longest ago makes it.
func (d *dated[T]) add(more []T, lifetime time.Duration, most int, now time.Time) {
	lifetime = min(lifetime, longestNamed)
	d.all = slices.DeleteFunc(d.all, func(v value[T]) bool { return !now.Before(v.until) })
	for _, one := range more {
		i := slices.IndexFunc(d.all, func(v value[T]) bool { return v.is == one })
		switch {
		case i >= 0 && lifetime == 0:
			d.all = slices.Delete(d.all, i, i+1)
		case i >= 0:
			d.all[i].heard, d.all[i].until = now, now.Add(lifetime)
		case lifetime > 0:
			if len(d.all) == most {
				oldest := 0
				for i, v := range d.all {
					if v.heard.Before(d.all[oldest].heard) {
						oldest = i
					}
				}
				if !d.all[oldest].heard.Before(now) {
					continue // of one advertisement, the first count
				}
				d.all = slices.Delete(d.all, oldest, oldest+1)
			}
			d.all = append(d.all, value[T]{one, now, now.Add(lifetime)})
		}
	}
}

// until ends what would be good for longer.
func (d *dated[T]) until(end time.Time) {
	for i, v := range d.all {
		if v.until.After(end) {
			d.all[i].until = end
		}
	}
}

// next is when the next of them ends; zero: none does.
func (d *dated[T]) next(now time.Time) time.Time {
	var next time.Time
	for _, v := range d.all {
		if now.Before(v.until) && (next.IsZero() || v.until.Before(next)) {
			next = v.until
		}
	}
	return next
}

// current returns what is good now, what its router has not repeated for long behind the rest.
func (d *dated[T]) current(now time.Time) []T {
	var good, silent []T
	for _, v := range d.all {
		switch {
		case !now.Before(v.until):
		case now.Sub(v.heard) > interval+interval/2:
			silent = append(silent, v.is)
		default:
			good = append(good, v.is)
		}
	}
	return append(good, silent...)
}
