package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kogge.example/init/control"
	"kogge.example/init/nodeconfig"
)

// publish writes resolv.conf and the status file if they say something new.
func (m *manager) publish(v view) error {
	status := control.Network{Problem: m.entries}
	var sources []source
	now := time.Now()
	for _, index := range slices.Sorted(maps.Keys(m.links)) {
		l := m.links[index]
		i, err := v.describe(l.facts)
		if err != nil {
			log.Printf("network: %s: %v", l.facts.Name, err)
		}
		i.Match, i.Lease, i.Lease6, i.Problem, i.FirstMTU = l.entry.Match, l.leases.V4, l.leases.V6, l.problem, l.facts.MTU
		if l.twins != "" {
			i.Problem = strings.TrimPrefix(i.Problem+"; "+l.twins, "; ")
		}
		i.MDNS, i.Forward = l.entry.MDNS, l.entry.Forward
		i.Foreign, i.Own = foreign(l.entry, l.facts), l.own
		i.Resolvers, i.Domains = l.routers.Resolvers(now), l.routers.Domains(now)
		status.Interfaces = append(status.Interfaces, i)
		sources = append(sources, source{
			link: l.facts.Name, carrier: l.facts.Carrier, entry: l.entry, leases: l.leases,
			advertised: i.Resolvers, search: i.Domains,
		})
	}
	merge(&status, sources)
	if m.last == nil || !equal(status, *m.last) {
		if err := writeResolvConf(m.paths.Etc, status); err != nil {
			return err
		}
		if err := status.Write(m.paths.Run); err != nil {
			return err
		}
		m.last = &status
	}
	// Now the console looks at the file.
	address, ok := status.FirstAddress()
	text := "no address yet, continuing without one"
	if ok {
		text = "address " + address.String()
	}
	if status.Problem != "" {
		text += "; " + status.Problem
	}
	if ok || m.late {
		m.tellReady(text)
	}
	return nil
}

// source is what one link says about resolvers, domains and time servers.
type source struct {
	link       string // its name
	carrier    bool
	entry      nodeconfig.Interface
	leases     Leases
	advertised []netip.Addr // resolvers of routers
	search     []string     // domains of routers
}

// merge puts together what the links say. What the file sets replaces what the network
// says. Links without a carrier come last: their servers may be reached by another link,
// and a question first asked of a dead one takes seconds.
func merge(s *control.Network, all []source) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b source) int { return btoi(b.carrier) - btoi(a.carrier) })
	for _, one := range all {
		e, dns, search := one.entry, one.entry.DNS, one.entry.Search
		for _, lease := range []*control.Lease{one.leases.V4, one.leases.V6} {
			if lease == nil {
				continue
			}
			s.NTP = appendNew(s.NTP, zoned(lease.NTP, one.link))
			if len(e.DNS) == 0 {
				dns = slices.Concat(dns, lease.DNS)
			}
			if len(e.Search) == 0 {
				search = slices.Concat(search, lease.Search)
			}
		}
		if len(e.DNS) == 0 {
			dns = slices.Concat(dns, one.advertised)
		}
		if len(e.Search) == 0 {
			search = slices.Concat(search, one.search)
		}
		s.DNS = appendNew(s.DNS, zoned(dns, one.link))
		s.Search = appendNew(s.Search, search)
	}
}

// zoned gives the link-local ones among addresses the link that they are valid on, as
// fe80::1%eth0: without it nobody can send to them. One that has a zone keeps it.
func zoned(all []netip.Addr, link string) []netip.Addr {
	all = slices.Clone(all)
	for i, a := range all {
		if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
			all[i] = a.WithZone(link)
		}
	}
	return all
}

func appendNew[T comparable](all, more []T) []T {
	for _, v := range more {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

func equal(a, b control.Network) bool {
	textA, errA := json.Marshal(a)
	textB, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(textA, textB)
}

// writeResolvConf names the three resolvers that a resolver library reads. Where several are
// named, a dead one is waited for as long as the containers' name server does, and not 5
// seconds. Over a satellite one second could be too short.
func writeResolvConf(etc string, s control.Network) error {
	return writeFile(filepath.Join(etc, "resolv.conf"), []byte(resolvConf(s)))
}

func resolvConf(s control.Network) string {
	var b strings.Builder
	if len(s.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s.Search, " "))
	}
	for i, a := range s.DNS {
		if i < 3 {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	if len(s.DNS) > 1 {
		b.WriteString("options timeout:2\n")
	}
	return b.String()
}

// writeNames writes hostname and hosts. Without a name in the settings the one
// that PID 1 gave the kernel is taken.
func writeNames(etc, name string) error {
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("read host name: %w", err)
		}
	}
	if err := writeFile(filepath.Join(etc, "hostname"), []byte(name+"\n")); err != nil {
		return err
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n", name)
	return writeFile(filepath.Join(etc, "hosts"), []byte(hosts))
}

// writeFile replaces a file: readers see the old text or the new, never a part.
// It is for tmpfs and does not sync.
func writeFile(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	temp := file + ".new"
	if err := os.WriteFile(temp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
