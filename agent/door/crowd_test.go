package door

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet"
)

// floods are those of somebody who has a wide network: his nth address in it.
var floods = map[string]func(n int) netip.Addr{
	"a /48 of IPv6":            func(n int) netip.Addr { return six(0x1, n) },
	"a /56 of IPv6":            func(n int) netip.Addr { return six(0x1, n%256) },
	"the /56 beside another's": func(n int) netip.Addr { return six(0x9, n%256) },
	"a /40 of IPv6":            func(n int) netip.Addr { return six(0x200+n%256, n/256) },
	"a /32 of IPv6":            func(n int) netip.Addr { return six(0x1000+n, n) },
	"a /64 of IPv6": func(n int) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(n >> 8), 15: byte(n)})
	},
	"a /16 of IPv4":            func(n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)}) },
	"one address of IPv4":      func(int) netip.Addr { return netip.MustParseAddr("100.64.0.1") },
	"machines all over IPv4":   func(n int) netip.Addr { return netip.AddrFrom4([4]byte{byte(n >> 8), byte(n), 1, 1}) },
	"machines all over IPv6":   func(n int) netip.Addr { return netip.AddrFrom16([16]byte{0x2a, byte(n >> 8), byte(n), 15: 1}) },
	"the /24 beside another's": func(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n >> 8 & 63), byte(n)}) },
}

// six is an address in the network 2001:db8:SITE:NET::/64.
func six(site, net int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(site >> 8), byte(site), byte(net >> 8), byte(net), 15: 1})
}

// door is places with somebody who comes.
type door struct {
	places
	now time.Time
}

// come lets a connection come, and says whether it was put out at once. All who can be are served.
func (d *door) come(a netip.Addr) (p *place, out bool) {
	p = &place{familiar: d.Familiar(a)}
	p.from = originOf(a, p.familiar)
	if last := d.Arrive(p); last != nil {
		d.Leave(last)
		out = last == p
	}
	d.fill()
	return p, out
}

func (d *door) fill() {
	for next, _, _ := d.Next(d.now); next != nil; next, _, _ = d.Next(d.now) {
	}
}

// speaks says whether p has a place.
func (d *door) speaks(p *place) bool {
	for _, q := range d.held {
		if p == q {
			return true
		}
	}
	return false
}

// TestFloods has strangers with many networks come all the time, 500 in a second. A familiar
// caller is never put out, and served at once or by the next second; nor is a new one, who
// has his turn beside the networks of the flood, except where these are as many as the
// connections themselves.
func TestFloods(t *testing.T) {
	for name, flood := range floods {
		d := &door{now: time.Unix(1_800_000_000, 0)}
		familiar := []netip.Addr{netip.MustParseAddr("192.0.2.7"), six(0x1, 0x77), six(0x9, 0x177)}
		for _, a := range familiar {
			d.remember(a)
		}
		news := []netip.Addr{netip.MustParseAddr("198.51.100.9"), six(0x9, 0x100), netip.MustParseAddr("203.0.113.7")}
		waits := map[*place]int{}
		n, late, costly := 0, 0, 0
		for ms := range 5_000 {
			d.now = d.now.Add(time.Millisecond)
			if ms%2 == 0 {
				_, known := d.blocked[kind{}]
				was := d.full
				d.come(flood(n))
				if n++; known && d.now.Before(was) && d.full.IsZero() && len(d.waiting) > maxWaiting/2 {
					costly++
				}
			}
			d.fill()
			if ms > 2600 && ms%300 == 1 {
				for _, a := range append(familiar, news...) {
					p, out := d.come(a)
					if out {
						t.Errorf("%s: %s was put out as it came", name, a)
					}
					waits[p] = ms
				}
			}
			for p, since := range waits {
				if d.speaks(p) || strings.Contains(name, "all over") && !p.familiar {
					d.Leave(p)
					delete(waits, p)
				} else if ms-since > int(strangerGrace/time.Millisecond) {
					late++
					t.Errorf("%s: %s waits for more than a second", name, p.from.host)
					delete(waits, p)
				}
			}
			if len(d.waiting) > maxWaiting {
				t.Fatalf("%s: %d wait", name, len(d.waiting))
			}
		}
		if len(d.waits) > len(sizes6)*maxWaiting || len(d.strangers) > len(sizes6)*(maxStrangers+maxFamiliar) {
			t.Errorf("%s: %d and %d networks are remembered", name, len(d.waits), len(d.strangers))
		}
		if costly > 0 {
			t.Errorf("%s: for %d of %d connections all who wait were looked through, though no place was to be had", name, costly, n)
		}
	}
}

// TestFamiliarFlood: a stranger behind a familiar address does not drive the others out.
func TestFamiliarFlood(t *testing.T) {
	d := &door{now: time.Unix(1_800_000_000, 0)}
	a, b, c := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("198.51.100.9")
	d.remember(a)
	d.remember(b)
	for range 2 * maxWaiting {
		d.come(a)
	}
	for _, from := range []netip.Addr{b, c} {
		if p, out := d.come(from); out || !d.speaks(p) {
			t.Errorf("%s: put out %v", from, out)
		}
	}
	// Where all are strangers, and all networks have as much, it is the one that waits the longest.
	d = &door{now: d.now}
	for n := range maxWaiting + maxStrangers {
		d.come(floods["machines all over IPv4"](n))
	}
	first := d.waiting[0]
	if last := d.Arrive(&place{from: originOf(c, false)}); last != first {
		t.Errorf("%s has to leave, want %s", last.from.host, first.from.host)
	}
}

// TestCrowdedDoor: a thousand addresses keep connections open and come back, and a familiar
// admin calls.
func TestCrowdedDoor(t *testing.T) {
	ring := newFleet(t, "hanse")
	n := newNode(t, ring)
	adoptNode(t, ring, n, "n1")
	address, _ := doorOf(t, NewGuard(n, func() bool { return true }), n.Certificate(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	admin := operator(t, ring, fleet.RoleAdmin, now)
	call := func() error {
		c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{admin}}}}
		answer, err := c.Post("https://"+address+"/kogge.v1.NodeService/Status", "application/json", strings.NewReader("{}"))
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	if err := call(); err != nil {
		t.Fatal(err) // and 127.0.0.1 is familiar from now on
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	come := func(i int) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
		if c, err := d.DialContext(ctx, "tcp", address); err == nil {
			context.AfterFunc(ctx, func() { c.Close() })
		}
	}
	i := 0
	for ; i < maxWaiting+MaxConnections; i++ {
		come(i)
	}
	for range 8 {
		for range 32 {
			come(i)
			i++
		}
		if err := call(); err != nil {
			t.Error(err)
		}
	}
}
