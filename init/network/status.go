package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kogge.example/init/nodeconfig"
)

// Status is what /run/kogge/network.json says: the network as it is.
type Status struct {
	Interfaces []Interface  `json:"interfaces"`
	DNS        []netip.Addr `json:"dns,omitempty"`    // in use, best first
	Search     []string     `json:"search,omitempty"` // domains tried behind short names
	NTP        []netip.Addr `json:"ntp,omitempty"`    // time servers that DHCP named
}

// Interface is one link that the settings match.
type Interface struct {
	Name      string         `json:"name"`
	MAC       string         `json:"mac"`
	Match     string         `json:"match"` // the entry that counts
	Carrier   bool           `json:"carrier"`
	MTU       int            `json:"mtu"` // bytes
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateway   []netip.Addr   `json:"gateway,omitempty"`
	Lease     *Lease         `json:"lease,omitempty"`
	Problem   string         `json:"problem,omitempty"`  // the change that did not work
	MDNS      bool           `json:"mdns"`               // the node may say its name there
	FirstMTU  int            `json:"firstMTU,omitempty"` // as the driver had it, for the next run
}

// ReadStatus reads a status file.
func ReadStatus(file string) (Status, error) {
	var s Status
	data, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return Status{}, fmt.Errorf("read %s: %w", file, err)
	}
	return s, nil
}

// FirstAddress returns an address at which others can reach the node, IPv4 before
// IPv6.
func (s Status) FirstAddress() (netip.Addr, bool) {
	var best netip.Addr
	for _, i := range s.Interfaces {
		for _, p := range i.Addresses {
			a := p.Addr()
			if !a.IsLinkLocalUnicast() && (!best.IsValid() || best.Is6() && a.Is4()) {
				best = a
			}
		}
	}
	return best, best.IsValid()
}

// merge adds what one link says about resolvers, domains and time servers. What
// the file sets replaces what the network says.
func (s *Status) merge(e nodeconfig.Interface, lease *Lease, advertised []netip.Addr) {
	dns, search := e.DNS, e.Search
	if e.DHCP && lease != nil {
		s.NTP = appendNew(s.NTP, lease.NTP)
		if len(e.DNS) == 0 {
			dns = lease.DNS
		}
		if len(e.Search) == 0 {
			search = lease.Search
		}
	}
	if len(e.DNS) == 0 {
		dns = slices.Concat(dns, advertised)
	}
	s.DNS = appendNew(s.DNS, dns)
	s.Search = appendNew(s.Search, search)
}

func appendNew[T comparable](all, more []T) []T {
	for _, v := range more {
		if !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

func (s Status) equal(o Status) bool {
	a, errA := json.Marshal(s)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func writeStatus(file string, s Status) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return writeFile(file, append(data, '\n'))
}

// writeResolvConf names the three resolvers that a resolver library reads.
func writeResolvConf(etc string, s Status) error {
	return writeFile(filepath.Join(etc, "resolv.conf"), []byte(resolvConf(s)))
}

func resolvConf(s Status) string {
	var b strings.Builder
	if len(s.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s.Search, " "))
	}
	for i, a := range s.DNS {
		if i < 3 {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
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
