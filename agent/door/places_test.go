package door

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

// TestPlaces tells who gets a place and who loses one, as places decides it.
func TestPlaces(t *testing.T) {
	var out strings.Builder
	for _, story := range []struct {
		name string
		tell func(*stage)
	}{
		{"one comes", func(s *stage) { s.come("a", 1); s.fill() }},
		{"one address has its share, another comes", func(s *stage) {
			s.come("a", maxOfAddress+2)
			s.come("b", 1)
			s.fill()
		}},
		{"a share that stays silent", func(s *stage) {
			s.come("a", maxOfAddress+2)
			s.fill()
			s.pass(strangerGrace)
			s.fill()
		}},
		{"strangers of two addresses, then a third", func(s *stage) {
			s.come("a", maxOfAddress)
			s.come("b", maxOfAddress)
			s.fill()
			s.come("c", 1)
			s.fill()
			s.pass(strangerGrace)
			s.fill()
		}},
		{"known ones have all places and are idle", func(s *stage) {
			s.known("a", MaxConnections, false)
			s.come("b", 2)
			s.fill()
			s.pass(idleGrace)
			s.fill()
		}},
		{"known ones have all places and are busy", func(s *stage) {
			s.known("a", MaxConnections, true)
			s.come("b", 1)
			s.fill()
			s.pass(time.Hour)
			s.fill()
		}},
		{"strangers yield before those who are known", func(s *stage) {
			s.known("a", MaxConnections-1, false)
			s.come("b", 1)
			s.fill()
			s.pass(strangerGrace)
			s.come("c", 1)
			s.fill()
		}},
		{"turns", func(s *stage) {
			s.known("k", MaxConnections, true)
			s.come("a", 3)
			s.come("b", 1)
			for range 3 {
				s.places.Leave(s.places.held[0])
				s.fill()
			}
		}},
		{"one certificate has its share, and is busy", func(s *stage) {
			s.known("k", maxOfKey, true)
			s.come("a", 2)
			s.fill()
			s.know("a", "k")
			s.know("a", "other")
			s.pass(strangerGrace)
			s.come("a", maxOfAddress)
			s.fill()
		}},
		{"one certificate has its share, and the second is idle", func(s *stage) {
			s.known("k", maxOfKey, true)
			s.places.held[1].busy = false
			s.come("a", 2)
			s.fill()
			s.know("a", "k")
			s.know("a", "k")
		}},
		{"a familiar one while strangers have all places", func(s *stage) {
			s.come("a", maxOfAddress)
			s.come("b", maxOfAddress)
			s.come("c", 1)
			s.fill()
			s.places.remember(s.of("k", 1)[0].from.host)
			s.come("k", 2)
			s.come("c", 1)
			s.fill()
		}},
		{"a familiar address is no better than any beyond its share", func(s *stage) {
			s.places.remember(s.of("a", 1)[0].from.host)
			s.come("a", maxOfAddress+1)
			s.fill()
		}},
		{"readers have all places that they may, and are busy; an admin comes", func(s *stage) {
			for i := range maxCommon / maxOfKey {
				s.known(string('d'+rune(i)), maxOfKey, true)
			}
			s.known("c", maxCommon%maxOfKey, true)
			s.come("a", 1)
			s.come("b", 1)
			s.fill()
			s.know("a", "reader")
			s.admin = true
			s.know("b", "admin")
		}},
		{"an IPv6 network in which one floods, and another", func(s *stage) {
			s.come("va", maxOfAddress+40)
			s.come("vb", 1)
			s.come("va", 40)
			s.fill()
			s.pass(strangerGrace)
			s.fill()
		}},
		{"one of many hosts of an IPv6 network", func(s *stage) {
			s.known("k", MaxConnections-4, true)
			for range 3 {
				for _, host := range []string{"va", "vb", "vc", "vd"} {
					s.come(host, 2)
				}
			}
			s.fill()
			s.come("ve", 1)
			s.come("b", 1)
			for range 3 {
				s.places.Leave(s.places.held[0])
				s.fill()
			}
		}},
		{"a familiar IPv6 address, and its neighbour who floods", func(s *stage) {
			s.places.remember(s.of("vk", 1)[0].from.host)
			s.come("va", maxOfAddress+40)
			s.fill()
			s.come("vk", 1)
			s.come("va", 40)
			s.fill()
		}},
		{"a full waiting room of one IPv6 network", func(s *stage) {
			s.known("k", MaxConnections, true)
			s.come("vb", 1)
			s.come("va", maxWaiting-1)
			s.come("vb", 1)
		}},
		{"nobody waits, and they do nothing", func(s *stage) {
			s.known("k", 2, false)
			s.known("busy", 1, true)
			s.come("a", 1)
			s.fill()
			s.pass(idleLimit - time.Second)
			s.come("b", 1)
			s.fill()
			s.tidy()
			s.pass(time.Second)
			s.tidy()
			s.pass(idleLimit)
			s.tidy()
		}},
		{"a full waiting room", func(s *stage) {
			s.known("k", MaxConnections, true)
			s.come("b", 1)
			s.come("a", maxWaiting-1)
			s.come("b", 1)
		}},
	} {
		fmt.Fprintf(&out, "%s\n", story.name)
		story.tell(&stage{out: &out})
	}
	golden.Compare(t, "places.txt", out.String())
}

// stage is where a story is told.
type stage struct {
	out    *strings.Builder
	places places
	names  map[*place]string
	admin  bool // whose certificate is shown
	now    time.Time
}

func (s *stage) of(address string, n int) []*place {
	var all []*place
	for range n {
		from := netip.AddrFrom4([4]byte{192, 0, 2, address[0]})
		if len(address) > 1 { // "va" and "vb" are of one IPv6 network
			from = netip.AddrFrom16([16]byte{0xfd, address[0], 15: address[1]})
		}
		p := &place{familiar: s.places.Familiar(from), since: s.now}
		p.from = originOf(from, p.familiar)
		if s.names == nil {
			s.names = map[*place]string{}
		}
		s.names[p] = fmt.Sprintf("%s%d", address, len(s.names)+1)
		all = append(all, p)
	}
	return all
}

func (s *stage) come(address string, n int) {
	for _, p := range s.of(address, n) {
		if out := s.places.Arrive(p); out != nil {
			fmt.Fprintf(s.out, "    %s comes, %s has to leave\n", s.names[p], s.names[out])
			s.places.Leave(out)
		}
	}
}

// known are connections that have their places.
func (s *stage) known(address string, n int, busy bool) {
	for _, p := range s.of(address, n) {
		p.key, p.known, p.busy = address, true, busy
		s.places.held = append(s.places.held, p)
	}
}

// know has the oldest stranger of an address show a certificate, and call.
func (s *stage) know(address, key string) {
	for _, p := range s.places.held {
		if p.known || !strings.HasPrefix(s.names[p], address) {
			continue
		}
		p.busy = true
		switch yield, ok := s.places.Know(p, key, s.admin, s.now); {
		case !ok:
			fmt.Fprintf(s.out, "    %s shows %s, and is refused\n", s.names[p], key)
			p.busy = false
		case yield != nil:
			fmt.Fprintf(s.out, "    %s shows %s, %s has to leave\n", s.names[p], key, s.names[yield])
		default:
			fmt.Fprintf(s.out, "    %s shows %s\n", s.names[p], key)
		}
		return
	}
}

// tidy has those leave who have done nothing for long.
func (s *stage) tidy() {
	fmt.Fprint(s.out, "    have to leave:")
	for _, p := range s.places.Done(s.now) {
		fmt.Fprintf(s.out, " %s", s.names[p])
		s.places.Leave(p)
	}
	fmt.Fprintln(s.out)
}

func (s *stage) pass(d time.Duration) { s.now = s.now.Add(d) }

// fill gives away the places that can be had now.
func (s *stage) fill() {
	var got []string
	for {
		next, yield, again := s.places.Next(s.now)
		if next == nil {
			text := strings.Join(got, " ")
			if len(got) > 8 {
				text = fmt.Sprintf("%s … %s (%d)", strings.Join(got[:2], " "), strings.Join(got[len(got)-2:], " "), len(got))
			}
			when := "all are served"
			switch {
			case len(s.places.waiting) > 0 && again.IsZero():
				when = fmt.Sprintf("%d wait until one leaves", len(s.places.waiting))
			case len(s.places.waiting) > 0:
				when = fmt.Sprintf("%d wait for %s", len(s.places.waiting), again.Sub(s.now))
			}
			fmt.Fprintf(s.out, "    served: %s; %s\n", text, when)
			return
		}
		name := s.names[next]
		if yield != nil {
			name += " for " + s.names[yield]
		}
		got = append(got, name)
	}
}

// TestOrigin: a machine has many IPv6 addresses, and one turn with all of its network, unless
// it is a familiar one.
func TestOrigin(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7":        "192.0.2.7/32 of 192.0.0.0/16 192.0.2.0/24 192.0.2.7/32",
		"::ffff:192.0.2.7": "192.0.2.7/32 of 192.0.0.0/16 192.0.2.0/24 192.0.2.7/32",
		"2001:db8:1:2::7":  "2001:db8:1:2::/64 of 2001:db8::/32 2001:db8::/40 2001:db8:1::/48 2001:db8:1::/56 2001:db8:1:2::/64 2001:db8:1:2::7/128",
		"fe80::1%eth0":     "fe80::/64%eth0 of fe80::/32%eth0 fe80::/40%eth0 fe80::/48%eth0 fe80::/56%eth0 fe80::/64%eth0 fe80::1/128%eth0",
	} {
		a := netip.MustParseAddr(text)
		show := func(n network) string {
			if n.link != "" {
				return n.String() + "%" + n.link
			}
			return n.String()
		}
		o := originOf(a, false)
		got := show(o.net) + " of"
		for _, n := range o.all {
			got += " " + show(n)
		}
		if got != want || o.host != a.Unmap() {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if o := originOf(a, true); o.net.Addr() != a.Unmap().WithZone("") || !o.net.IsSingleIP() || len(o.all) != 1 || o.all[0] != o.net {
			t.Errorf("%s, which is familiar: %v", text, o)
		}
	}
	if o := originOf(netip.Addr{}, false); o.net.IsValid() || o.host.IsValid() {
		t.Errorf("no address: %v", o)
	}
}

// BenchmarkNext has a full waiting room of hosts of one IPv6 network, whose places are all taken.
func BenchmarkNext(b *testing.B) {
	var s places
	now := time.Unix(1_800_000_000, 0)
	for i := range maxWaiting + maxOfAddress {
		a := netip.AddrFrom16([16]byte{0xfd, 1, 14: byte(i >> 8), 15: byte(i)})
		if s.Arrive(&place{from: originOf(a, false)}); i < maxOfAddress {
			s.Next(now)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if next, _, _ := s.Next(now); next != nil {
			b.Fatal("one beyond the network's share has a place")
		}
	}
}

// FuzzPlaces does anything in any order: nobody is served twice, and no limit breaks.
func FuzzPlaces(f *testing.F) {
	f.Add([]byte("aaaabbbb\x00\x01\x02\x03zzzz"))
	f.Fuzz(func(t *testing.T, deeds []byte) {
		var s places
		var now time.Time
		all := map[*place]bool{}
		for _, d := range deeds {
			switch {
			case d < 100:
				for range d {
					from := netip.AddrFrom16([16]byte{0xfd, d % 3, 15: d % 7})
					p := &place{familiar: s.Familiar(from)}
					p.from = originOf(from, p.familiar)
					if out := s.Arrive(p); out != nil {
						s.Leave(out)
					}
				}
			case d < 150:
				for next, yield, _ := s.Next(now); next != nil; next, yield, _ = s.Next(now) {
					if all[next] || yield == next {
						t.Fatal("served twice")
					}
					all[next] = true
				}
			case d < 180 && len(s.held) > 0:
				p := s.held[int(d)%len(s.held)]
				if p.busy = d%2 == 0; !p.known {
					s.Know(p, string('a'+rune(d%9)), d%3 == 0, now)
				}
			case d < 200 && len(s.held) > 0:
				s.Leave(s.held[int(d)%len(s.held)])
			default:
				now = now.Add(time.Duration(d) * 10 * time.Millisecond)
			}
			strangers := slices.DeleteFunc(slices.Clone(s.held), func(p *place) bool { return p.known })
			unknown, common := 0, 0
			for _, p := range s.held {
				if !p.known && !p.familiar {
					unknown++
				}
				if p.known && !p.admin {
					common++
				}
			}
			if unknown > maxStrangers || common > maxCommon {
				t.Fatalf("%d places of strangers, %d of readers and operators", unknown, common)
			}
			of := map[string]int{}
			for _, p := range s.held {
				if of[p.key]++; p.known && of[p.key] > maxOfKey {
					t.Fatalf("more than %d places of certificate %s", maxOfKey, p.key)
				}
			}
			if len(s.held) > MaxConnections || len(strangers) > maxStrangers+maxFamiliar || len(s.waiting) > maxWaiting {
				t.Fatalf("%d places, %d strangers, %d wait", len(s.held), len(strangers), len(s.waiting))
			}
		}
	})
}
