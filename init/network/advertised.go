package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"kogge.example/init/network/dhcp"
)

// advertisement is the resolvers or the search domains that a router named, and for how
// long. A lifetime of zero takes them back.
type advertisement struct {
	index     int
	lifetime  time.Duration
	resolvers []netip.Addr
	domains   []string
}

// parseAdvertisement reads the RDNSS and DNSSL options of one RTM_NEWNDUSEROPT message.
// What is cut short or of another kind is left out.
//
// Sources: struct nduseroptmsg in include/uapi/linux/rtnetlink.h; RFC 8106, 5.1 and 5.2.
func parseAdvertisement(data []byte) []advertisement {
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
	var all []advertisement
	for len(options) >= 8 {
		size := int(options[1]) * 8
		if size == 0 || size > len(options) {
			break
		}
		one := options[:size]
		options = options[size:]
		a := advertisement{index: index, lifetime: time.Duration(binary.BigEndian.Uint32(one[4:])) * time.Second}
		switch one[0] {
		case rdnssOption:
			for rest := one[8:]; len(rest) >= 16; rest = rest[16:] {
				if addr := addrOf(rest[:16]); dhcp.Usable(addr) && addr.Is6() {
					a.resolvers = append(a.resolvers, addr)
				}
			}
		case dnsslOption:
			a.domains = domains(one[8:])
		}
		if len(a.resolvers)+len(a.domains) > 0 {
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

// advertised is what the routers of one link have named.
type advertised struct {
	resolvers dated[netip.Addr]
	domains   dated[string]
}

// Bounds of what a hostile router can have us keep.
const (
	maxResolvers = 16
	maxDomains   = 6
)

func (r *advertised) add(a advertisement, now time.Time) {
	r.resolvers.add(a.resolvers, a.lifetime, maxResolvers, now)
	r.domains.add(a.domains, a.lifetime, maxDomains, now)
}

// next is when the next of it ends; zero: nothing does.
func (r *advertised) next(now time.Time) time.Time {
	a, b := r.resolvers.next(now), r.domains.next(now)
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// doubt lets all end soon unless a router names it again: the cable has been out, and may
// be in another network.
func (r *advertised) doubt(now time.Time) {
	r.resolvers.until(now.Add(soon))
	r.domains.until(now.Add(soon))
}

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
