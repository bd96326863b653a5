package advert

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// message is a message with one RDNSS option for two resolvers, and a DNSSL before.
func message(lifetime byte) []byte {
	m := []byte{10, 0, 40 + 16, 0, 7, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0}
	m = append(m, 31, 2, 0, 0, 0, 0, 0, 9, 1, 'x', 0, 0, 0, 0, 0, 0)
	m = append(m, 25, 5, 0, 0, 0, 0, 0, lifetime)
	for _, a := range []string{"2001:db8::53", "fe80::53"} {
		b := netip.MustParseAddr(a).As16()
		m = append(m, b[:]...)
	}
	return m
}

func TestNamed(t *testing.T) {
	got := ParseNamed(message(60))
	if len(got) != 2 || got[0].Link != 7 || !slices.Equal(got[0].Domains, []string{"x"}) || got[0].Lifetime != 9*time.Second ||
		got[1].Link != 7 || got[1].Lifetime != time.Minute || len(got[1].Resolvers) != 2 {
		t.Fatalf("parsed %+v", got)
	}
	var r Known
	for _, a := range got {
		r.Add(a, t0)
	}
	counts := func(at time.Time) [2]int { return [2]int{len(r.Resolvers(at)), len(r.Domains(at))} }
	if n := counts(t0.Add(8 * time.Second)); n != [2]int{2, 1} {
		t.Errorf("%d resolvers and domains within their lifetimes", n)
	}
	if n := counts(t0.Add(time.Minute)); n != [2]int{} {
		t.Errorf("%d resolvers and domains after their lifetimes", n)
	}
	for _, a := range ParseNamed(message(0)) {
		r.Add(a, t0)
	}
	if n := counts(t0); n != [2]int{0, 1} {
		t.Errorf("%d resolvers and domains after the resolvers were taken back", n)
	}
	r.Add(got[1], t0)
	r.Until(t0.Add(7 * time.Second))
	if n := counts(t0.Add(8 * time.Second)); n != [2]int{} {
		t.Errorf("%d resolvers and domains 8 s after a cable was out", n)
	}
}

// TestFullOfResolvers has a stranger name all the resolvers that there is room for, and as many
// domains, for ever: those of a router that goes on speaking get in, and are asked first.
func TestFullOfResolvers(t *testing.T) {
	var r Known
	rogue := Named{Lifetime: 0xffffffff * time.Second}
	for i := range byte(maxResolvers + 4) {
		rogue.Resolvers = append(rogue.Resolvers, netip.AddrFrom16([16]byte{0xfd, 15: i + 1}))
		rogue.Domains = append(rogue.Domains, fmt.Sprintf("rogue%d.test", i))
	}
	good := Named{Lifetime: 30 * time.Minute, Resolvers: []netip.Addr{netip.MustParseAddr("2001:db8::53")}, Domains: []string{"good.test"}}
	now := t0
	r.Add(rogue, now)
	if got := r.Resolvers(now); !slices.Equal(got, rogue.Resolvers[:maxResolvers]) {
		t.Errorf("of one advertisement, the first are kept: %v", got)
	}
	now = now.Add(time.Minute)
	r.Add(good, now)
	if got := r.Resolvers(now); len(got) != maxResolvers || !slices.Contains(got, good.Resolvers[0]) {
		t.Errorf("the resolvers of who came later: %v", got)
	}
	if got := r.Domains(now); len(got) != maxDomains || !slices.Contains(got, "good.test") {
		t.Errorf("the domains of who came later: %v", got)
	}
	for range 6 {
		now = now.Add(10 * time.Minute)
		r.Add(good, now)
	}
	if got := r.Resolvers(now); got[0] != good.Resolvers[0] {
		t.Errorf("who has been silent for an hour is asked first: %v", got)
	}
	for now = now.Add(30 * time.Minute); now.Before(t0.Add(longestNamed)); now = now.Add(10 * time.Minute) {
		r.Add(good, now)
	}
	if got := r.Resolvers(now); !slices.Equal(got, good.Resolvers) {
		t.Errorf("what was named once, for ever: %v", got)
	}
}

func FuzzNamed(f *testing.F) {
	f.Add(message(60))
	f.Add(message(0)[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Known
		for _, a := range ParseNamed(data) {
			r.Add(a, t0)
		}
		if len(r.resolvers.all) > maxResolvers || len(r.domains.all) > maxDomains {
			t.Errorf("%d resolvers and %d domains kept", len(r.resolvers.all), len(r.domains.all))
		}
	})
}

// packet is an advertisement with two networks, one of which is taken back.
func packet() []byte {
	m := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, one := range []struct {
		prefix string
		valid  byte
	}{{"2001:db8:1::/64", 60}, {"2001:db8:2::/64", 0}} {
		p := netip.MustParsePrefix(one.prefix)
		b := p.Addr().As16()
		m = append(m, 3, 4, byte(p.Bits()), 0xc0, 0, 0, 0, one.valid, 0, 0, 0, 0, 0, 0, 0, 0)
		m = append(m, b[:]...)
	}
	return m
}

func TestNetworks(t *testing.T) {
	whole := packet()
	got, ok := ParseNetworks(whole)
	if !ok || !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64")}) {
		t.Errorf("parsed %v, %v", got, ok)
	}
	if _, ok := ParseNetworks(whole[:len(whole)-1]); ok {
		t.Error("half an option is read")
	}
	if _, ok := ParseNetworks(append([]byte{133}, whole[1:]...)); ok {
		t.Error("a solicitation is read")
	}
}

func FuzzNetworks(f *testing.F) {
	f.Add(packet())
	f.Add(packet()[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		networks, _ := ParseNetworks(data)
		if len(networks) > MaxNetworks {
			t.Errorf("%d networks", len(networks))
		}
		for _, p := range networks {
			if !p.IsValid() || p != p.Masked() {
				t.Errorf("network %s", p)
			}
		}
	})
}
