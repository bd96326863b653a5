package mdns

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestModerate: what is unpacked, and what is too much to be.
func TestModerate(t *testing.T) {
	pack := func(m *dns.Msg) []byte {
		raw, err := m.Pack()
		must(t, err)
		return raw
	}
	own := records("n1", example, ips("192.0.2.7", "fe80::1"))
	bomb := pack(query(dns.ClassINET, nil, service, dns.TypePTR))
	name := len(bomb)
	for len(bomb)+6 <= maxMessage {
		bomb = append(bomb, 0xc0, 12, 0, 12, 0, 1)
	}
	binary.BigEndian.PutUint16(bomb[4:], uint16(1+(len(bomb)-name)/6))
	many := func(n int) []byte {
		m := announcement(nil)
		for range n {
			m.Answer = append(m.Answer, own[0])
		}
		return pack(m)
	}
	for name, c := range map[string]struct {
		raw  []byte
		want bool
	}{
		"an announcement":      {pack(announcement(own)), true},
		"a probe":              {pack(probe(own)), true},
		"as many as there are": {many(maxRecords), true},
		"one more":             {many(maxRecords + 1), false},
		"a thousand questions": {bomb, false},
		"half a header":        {bomb[:11], false},
		"nothing":              {nil, false},
	} {
		if got := moderate(c.raw); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestBudget: a flood is looked at a hundred times a second, and a burst after a rest.
func TestBudget(t *testing.T) {
	var b budget
	taken := func(from, to time.Duration) (n int) {
		for at := from; at < to; at += time.Millisecond {
			if b.take(t0.Add(at)) {
				n++
			}
		}
		return n
	}
	if n := taken(0, time.Second); n < budgetOnce || n > budgetOnce+budgetRate+1 {
		t.Errorf("in the first second %d", n)
	}
	if n := taken(time.Second, 11*time.Second); n < 10*budgetRate-10 || n > 10*budgetRate+10 {
		t.Errorf("in ten seconds of a flood %d", n)
	}
	if n := taken(time.Minute, time.Minute+100*time.Millisecond); n != 100 {
		t.Errorf("of a burst of 100 after a rest %d", n)
	}
	if b.take(t0) && b.left > budgetOnce { // a clock that was set back
		t.Errorf("%v are left", b.left)
	}
}

// TestNear: whose messages are looked at.
func TestNear(t *testing.T) {
	var l link
	l.set(Link{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}})
	for text, want := range map[string]bool{"192.0.2.9": true, "fe80::9": true, "203.0.113.9": false, "2001:db8::9": false} {
		if got := l.near(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
