package network

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// advertisement is the resolvers that a router named, and for how long. A lifetime
// of zero takes them back.
type advertisement struct {
	index     int
	lifetime  time.Duration
	resolvers []netip.Addr
}

// parseAdvertisement reads the RDNSS options of one RTM_NEWNDUSEROPT message.
// What is cut short or of another kind is left out.
//
// Sources: struct nduseroptmsg in include/uapi/linux/rtnetlink.h; RFC 8106, 5.1.
func parseAdvertisement(data []byte) []advertisement {
	const header, rdnssOption = 16, 25
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
		if one[0] != rdnssOption {
			continue
		}
		a := advertisement{index: index, lifetime: time.Duration(binary.BigEndian.Uint32(one[4:])) * time.Second}
		for rest := one[8:]; len(rest) >= 16; rest = rest[16:] {
			if addr := addrOf(rest[:16]); usable(addr) && addr.Is6() {
				a.resolvers = append(a.resolvers, addr)
			}
		}
		if len(a.resolvers) > 0 {
			all = append(all, a)
		}
	}
	return all
}

// rdnss are the resolvers of one link with the times they are good until.
type rdnss struct {
	until map[netip.Addr]time.Time
}

// maxResolvers bounds what a hostile router can have us keep.
const maxResolvers = 16

func (r *rdnss) add(a advertisement, now time.Time) {
	if r.until == nil {
		r.until = make(map[netip.Addr]time.Time)
	}
	maps.DeleteFunc(r.until, func(_ netip.Addr, t time.Time) bool { return !now.Before(t) })
	for _, addr := range a.resolvers {
		if a.lifetime == 0 {
			delete(r.until, addr)
		} else if _, known := r.until[addr]; known || len(r.until) < maxResolvers {
			r.until[addr] = now.Add(a.lifetime)
		}
	}
}

// current returns the resolvers that are good now, in a fixed order.
func (r *rdnss) current(now time.Time) []netip.Addr {
	var good []netip.Addr
	for addr, until := range r.until {
		if now.Before(until) {
			good = append(good, addr)
		}
	}
	slices.SortFunc(good, netip.Addr.Compare)
	return good
}
