// Package mdns lets a node be found on its own networks, without any server: by
// multicast DNS (RFC 6762) and service discovery with it (RFC 6763).
//
// In come what a node says about itself and the questions of its neighbours; out go
// answers: HOST.local is the machine, and HOST._kogge._tcp.local its API. On the other
// side, an operator's computer asks and gets what was said ([Find], [Lookup]).
//
// Nobody checks who answers: what is found is a hint where to look, and never who is
// there. That a node proves with its key, when it is called or adopted. The package
// opens a socket on the links that it is given and on no others, answers nobody from
// outside of them, and keeps nothing on disk.
//
// The messages are read and written by miekg/dns. The rest is our own, and not
// brutella/dnssd: that listens with one socket on all links of the machine.
package mdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Port is where multicast DNS is spoken, UDP.
const Port = 5353

// The groups that every speaker is in.
var (
	group4 = netip.MustParseAddr("224.0.0.251")
	group6 = netip.MustParseAddr("ff02::fb")
)

// Names below .local.
const (
	domain   = "local."
	service  = "_kogge._tcp." + domain
	services = "_services._dns-sd._udp." + domain // which services there are at all, RFC 6763, section 9
)

// How long what is said holds, in seconds (RFC 6762, section 10): what hangs on an
// address is asked again after two minutes, the rest after 75.
const (
	hostTTL   = 120
	otherTTL  = 75 * 60
	legacyTTL = 10 // to a plain DNS resolver, section 6.7
)

// top is the highest bit of a class. In a record it says that there is no other of its
// name and type (cache flush, section 10.2), in a question that the answer may come to
// the asker alone (QU, section 5.4).
const top = 1 << 15

// Announcement is what a node says about itself. Nothing of it is secret, and nothing
// proved.
type Announcement struct {
	Host    string // host name, one label: found as HOST.local
	Port    int    // of the API
	Node    string // its name in the fleet; "" until it is adopted
	Fleet   string // name of the fleet that it is in, or waits for; "": of none
	FleetID string // as much of the fleet's id as tells fleets apart
	Release string
	Board   string
	Key     string // as much of its key's fingerprint as tells nodes apart
}

// textVersion is the version of what the TXT record holds.
const textVersion = "1"

// pairs are the TXT record's keys (RFC 6763, section 6), each with its field.
func (a *Announcement) pairs() []pair {
	return []pair{{"node", &a.Node}, {"fleet", &a.Fleet}, {"id", &a.FleetID}, {"release", &a.Release}, {"board", &a.Board}, {"key", &a.Key}}
}

type pair struct {
	key   string
	value *string
}

// maxValue is more than any value of ours has, in bytes.
const maxValue = 128

// text is the TXT record; what is empty is left out.
func (a Announcement) text() []string {
	all := []string{"v=" + textVersion}
	for _, p := range a.pairs() {
		if *p.value != "" && len(*p.value) <= maxValue {
			all = append(all, p.key+"="+*p.value)
		}
	}
	return all
}

// parseText reads a TXT record that anybody may have written. What is unknown is
// passed over, and what is no plain text is left out: it is shown on terminals.
func parseText(text []string) Announcement {
	var a Announcement
	for _, line := range text {
		key, value, _ := strings.Cut(line, "=")
		for _, p := range a.pairs() {
			if strings.EqualFold(key, p.key) && *p.value == "" && isPlain(value) {
				*p.value = value
			}
		}
	}
	return a
}

func isPlain(s string) bool {
	return len(s) <= maxValue && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' })
}

// label is the name that a machine takes when host is taken already number-1 times:
// host, host-2, host-3 …
func label(host string, number int) string {
	if number <= 1 {
		return host
	}
	suffix := fmt.Sprintf("-%d", number)
	return host[:min(len(host), 63-len(suffix))] + suffix
}

func hostName(label string) string     { return label + "." + domain }
func instanceName(label string) string { return label + "." + service }

// records are all that a node called label says on a link where it has these addresses.
// Shared ones, which others have too, come first.
func records(label string, a Announcement, addresses []netip.Addr) []dns.RR {
	host, instance := hostName(label), instanceName(label)
	header := func(name string, kind, class uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: class, Ttl: ttl}
	}
	const shared, own = dns.ClassINET, dns.ClassINET | top
	all := []dns.RR{
		&dns.PTR{Hdr: header(services, dns.TypePTR, shared, otherTTL), Ptr: service},
		&dns.PTR{Hdr: header(service, dns.TypePTR, shared, otherTTL), Ptr: instance},
		&dns.SRV{Hdr: header(instance, dns.TypeSRV, own, hostTTL), Port: uint16(a.Port), Target: host},
		&dns.TXT{Hdr: header(instance, dns.TypeTXT, own, otherTTL), Txt: a.text()},
	}
	var kinds []uint16
	for _, ip := range addresses {
		var rr dns.RR = &dns.AAAA{Hdr: header(host, dns.TypeAAAA, own, hostTTL), AAAA: ip.AsSlice()}
		if ip.Is4() {
			rr = &dns.A{Hdr: header(host, dns.TypeA, own, hostTTL), A: ip.AsSlice()}
		}
		if kind := rr.Header().Rrtype; !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
		all = append(all, rr)
	}
	// What a name does not have, so that who asks for it need not wait (section 6.1).
	slices.Sort(kinds)
	return append(all,
		&dns.NSEC{Hdr: header(instance, dns.TypeNSEC, own, otherTTL), NextDomain: instance, TypeBitMap: []uint16{dns.TypeTXT, dns.TypeSRV}},
		&dns.NSEC{Hdr: header(host, dns.TypeNSEC, own, hostTTL), NextDomain: host, TypeBitMap: kinds})
}

// isOwn says whether a record is the only one of its name and type.
func isOwn(rr dns.RR) bool { return rr.Header().Class&top != 0 }

// sameName compares names as DNS does.
func sameName(a, b string) bool { return strings.EqualFold(a, b) }

// sameData says whether two records say the same, for however long.
func sameData(a, b dns.RR) bool {
	return sameName(a.Header().Name, b.Header().Name) && a.Header().Rrtype == b.Header().Rrtype && slices.Equal(data(a), data(b))
}

// data is what a record says, uncompressed; nil if it cannot be told.
func data(rr dns.RR) []byte {
	packed := make([]byte, dns.Len(rr)+1)
	n, err := dns.PackRR(rr, packed, 0, nil, false)
	if err != nil {
		return nil
	}
	name := make([]byte, 256)
	skip, err := dns.PackDomainName(rr.Header().Name, name, 0, nil, false)
	if err != nil || n < skip+10 {
		return nil
	}
	return packed[skip+10 : n] // type, class, TTL, length
}
