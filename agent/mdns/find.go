package mdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Found is what somebody on one of this computer's links says to be: a node. None of
// it is proved.
type Found struct {
	Announcement
	Addresses []netip.Addr // IPv4 before IPv6; a link-local one with its link
}

// What one computer believes at most.
const (
	maxFound     = 10_000
	maxAddresses = 16
)

// askAgain are the pauses between the times that a question is sent: packets get lost.
// Nobody answers the same within a second.
var askAgain = []time.Duration{1200 * time.Millisecond, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// Find asks for nodes on all links of this computer until ctx ends, and returns them in
// alphabetical order.
func Find(ctx context.Context) ([]Found, error) {
	var mu sync.Mutex // guards all
	all := make(map[string]Found)
	err := ask(ctx, []string{service}, []uint16{dns.TypePTR}, func(link string, m *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range nodes(m, link) {
			key := strings.ToLower(f.Host) + " " + f.Key
			before, known := all[key]
			if !known && len(all) >= maxFound {
				continue
			}
			f.Addresses = merge(before.Addresses, f.Addresses)
			all[key] = f
		}
	})
	mu.Lock()
	defer mu.Unlock()
	return slices.SortedFunc(maps.Values(all), func(a, b Found) int { return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Key, b.Key)) }), err
}

// ErrNobody says that a name is nobody's.
var ErrNobody = errors.New("no machine on this computer's networks has the name")

// Lookup asks for the addresses of HOST.local until somebody answers, or ctx ends.
func Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	full := strings.TrimSuffix(host, ".") + "."
	ctx, answered := context.WithCancel(ctx)
	defer answered()
	var mu sync.Mutex // guards found
	var found []netip.Addr
	err := ask(ctx, []string{full}, []uint16{dns.TypeA, dns.TypeAAAA}, func(link string, m *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if found = merge(found, addresses(m, full, link)); len(found) > 0 {
			answered()
		}
	})
	mu.Lock()
	defer mu.Unlock()
	switch {
	case len(found) > 0:
		return found, nil
	case err != nil:
		return nil, fmt.Errorf("look for %s: %w", host, err)
	}
	return nil, fmt.Errorf("look for %s: %w", host, ErrNobody)
}

// merge adds addresses to those that there are, the best first.
func merge(all, more []netip.Addr) []netip.Addr {
	for _, a := range more {
		if !slices.Contains(all, a) && len(all) < maxAddresses {
			all = append(all, a)
		}
	}
	rank := func(a netip.Addr) int {
		switch {
		case a.Is4() && !a.IsLinkLocalUnicast():
			return 0
		case !a.IsLinkLocalUnicast():
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b netip.Addr) int { return cmp.Or(rank(a)-rank(b), a.Compare(b)) })
	return all
}

// nodes reads the nodes out of a response.
func nodes(m *dns.Msg, link string) []Found {
	if !m.Response {
		return nil
	}
	all := slices.Concat(m.Answer, m.Extra)
	var found []Found
	for _, rr := range all {
		srv, ok := rr.(*dns.SRV)
		if !ok || srv.Hdr.Ttl == 0 || srv.Port == 0 {
			continue
		}
		host, ok := strings.CutSuffix(strings.ToLower(srv.Target), "."+domain)
		if !ok || !isLabel(host) || !sameName(srv.Hdr.Name, instanceName(host)) {
			continue
		}
		f := Found{Addresses: addresses(m, srv.Target, link)}
		for _, rr := range all {
			if txt, ok := rr.(*dns.TXT); ok && sameName(txt.Hdr.Name, srv.Hdr.Name) {
				f.Announcement = parseText(txt.Txt)
			}
		}
		f.Host, f.Port = host, int(srv.Port)
		if len(f.Addresses) > 0 {
			found = append(found, f)
		}
	}
	return found
}

// isLabel says whether a machine of ours may be called so.
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// addresses are those that a response has for a name. One that leads nowhere, or only
// back to this computer, is left out.
func addresses(m *dns.Msg, name, link string) []netip.Addr {
	if !m.Response {
		return nil
	}
	var all []netip.Addr
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		a, ok := address(rr)
		if !ok || rr.Header().Ttl == 0 || !sameName(rr.Header().Name, name) || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			continue
		}
		if a.IsLinkLocalUnicast() && a.Is6() {
			a = a.WithZone(link)
		}
		all = append(all, a)
	}
	return merge(nil, all)
}

// ask sends questions on all links until ctx ends; got is called for each message that
// comes, from several goroutines.
func ask(ctx context.Context, names []string, kinds []uint16, got func(link string, m *dns.Msg)) error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("links of this computer: %w", err)
	}
	var asking sync.WaitGroup
	var failed []error
	asked := 0
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagMulticast == 0 || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, port := range []uint16{0, Port} {
			sockets, err := open(l.Name, port)
			if err != nil && port == 0 {
				failed = append(failed, fmt.Errorf("%s: %w", l.Name, err))
			}
			for _, s := range sockets {
				asked++
				asking.Go(func() { s.read(nil, func(_ netip.AddrPort, m *dns.Msg) { got(l.Name, m) }) })
				asking.Go(func() {
					defer s.Close() // which ends the reader
					s.repeat(ctx, question(names, kinds, port))
				})
			}
		}
	}
	asking.Wait()
	if asked == 0 {
		return errors.Join(failed...)
	}
	return nil
}

// question asks for every kind of record of every name. From a port of its own the
// asker wants the answer for itself: from [Port], where others listen too, for all.
func question(names []string, kinds []uint16, port uint16) *dns.Msg {
	m := new(dns.Msg)
	for _, name := range names {
		for _, kind := range kinds {
			q := dns.Question{Name: name, Qtype: kind, Qclass: dns.ClassINET}
			if port != Port {
				q.Qclass |= top
			}
			m.Question = append(m.Question, q)
		}
	}
	return m
}

// repeat sends a question now and then.
func (s *socket) repeat(ctx context.Context, m *dns.Msg) {
	for _, pause := range append(slices.Clone(askAgain), time.Hour) {
		_ = s.send(m, s.group) // a link without an address of this family
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
