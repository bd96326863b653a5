package mdns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestNameComesBack has a node ask for the name that another machine has, while it is there
// and once it is gone. The node's time goes as fast as its neighbours answer.
func TestNameComesBack(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home := newLAN(t, "home")
	operator := newMachine(t).plug(home, "192.0.2.1/24")
	leave := newMachine(t).plug(home, "192.0.2.7/24").node("pi")
	operator.find("pi 7443 hanse [192.0.2.7]")
	said := make(chan string, 1000)
	for _, s := range operator.raw(Port) {
		go s.read(nil, func(from netip.AddrPort, m *dns.Msg) {
			for _, rr := range m.Answer {
				if a, ok := address(rr); ok && m.Response {
					said <- fmt.Sprint(rr.Header().Name, " ", a, map[bool]string{true: " no more"}[rr.Header().Ttl == 0])
				}
			}
		})
	}
	m := newMachine(t).plug(home, "192.0.2.8/24")
	announcement := example
	announcement.Host = "pi"
	r := &responder{links: make(map[string]*link), failed: make(map[string]string), packets: make(chan packet, maxPackets), Config: Config{
		Links: func() []Link { return m.links }, Announcement: func() Announcement { return announcement },
	}}
	now := time.Now()
	must(t, m.in(func() error {
		r.refresh(now)
		return nil
	}))
	defer r.close()
	l := r.links["eth0"]
	end := time.Now().Add(limit)
	until := func(what string, answered bool, is func(Claim) bool) {
		t.Helper()
		for !is(l.claim) {
			asks := answered && l.claim.Sent > 0 && (l.claim.State == Probing && l.claim.Number == 1 || l.claim.State == Regaining)
			pause := time.Millisecond
			if asks {
				pause = 2 * probeGap
			}
			select {
			case p := <-r.packets:
				r.hear(p, now)
			case <-time.After(pause):
				if !asks {
					now = now.Add(r.due(now))
					break
				}
				l.toAll(probe(r.records(l, 1))) // again: nobody answers twice at once
			}
			if !asks {
				r.work(now)
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %s", what, show(l.claim))
			}
		}
	}
	second := func(c Claim) bool { return c.State == Holding && c.Number == 2 }
	until("pi-2", true, second)
	until("asks for pi", true, func(c Claim) bool { return c.State == Regaining })
	until("pi-2 as before", true, second)
	if l.claim.Tries != 1 {
		t.Errorf("%s", show(l.claim))
	}
	leave()
	until("pi", false, func(c Claim) bool { return c.State == Holding && c.Number == 1 })
	for _, want := range []string{"pi-2.local. 192.0.2.8", "pi-2.local. 192.0.2.8 no more", "pi.local. 192.0.2.8"} {
		for heard := ""; heard != want; {
			select {
			case heard = <-said:
			case <-time.After(time.Until(end)):
				t.Fatalf("not heard: %s", want)
			}
		}
	}
}
