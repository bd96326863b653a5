package enrol

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// room is where those are whom a member serves at the same time. It waits for nothing and reads no
// clock.
//
// Nobody keeps the others out for long: where all places are taken, who comes from a network that
// has fewer of them gets one of the network that has most, and otherwise the place of who has been
// here longest, if that has had its time. Whoever has to go comes again, and goes on where it was.
type room struct {
	most  int  // places
	ofOne int  // of one network, or of one key
	keyed bool // one of the same key takes its own place
	here  []*place
}

// place is one of them.
type place struct {
	of   string // the network, or the key
	came time.Time
	end  func() // ends what goes on there
}

// stay is for how long a place is safe from others who have none.
const stay = 5 * time.Second

// enter gives p a place. out is who has to go for it; false: there is none.
func (r *room) enter(p *place, now time.Time) (out *place, ok bool) {
	counts := make(map[string]int)
	for _, h := range r.here {
		counts[h.of]++
	}
	oldest := func(of string) *place { // they are in the order in which they came
		for _, h := range r.here {
			if of == "" || h.of == of {
				return h
			}
		}
		return nil
	}
	old := func(h *place) bool { return now.Sub(h.came) >= stay }
	switch {
	case counts[p.of] >= r.ofOne:
		if out = oldest(p.of); !r.keyed && !old(out) {
			return nil, false
		}
	case len(r.here) < r.most:
	default:
		out = oldest("")
		for _, h := range r.here {
			if counts[h.of] > counts[out.of] {
				out = oldest(h.of)
			}
		}
		if counts[out.of] <= counts[p.of]+1 {
			if out = oldest(""); !old(out) {
				return nil, false
			}
		}
	}
	if out != nil {
		r.leave(out)
	}
	p.came = now
	r.here = append(r.here, p)
	return out, true
}

// leave frees a place.
func (r *room) leave(p *place) {
	r.here = slices.DeleteFunc(r.here, func(h *place) bool { return h == p })
}

// netOf is the network that counts as one caller: an address of IPv4, a link of IPv6, of which one
// machine may have every address.
func netOf(from net.Addr) string {
	host := from.String()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if a = a.Unmap(); a.Is6() {
		if link, err := a.WithZone("").Prefix(64); err == nil {
			return link.String() + "%" + a.Zone()
		}
	}
	return a.String()
}
