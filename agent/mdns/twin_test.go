package mdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestTwin: who says that he is this node, and who only seems to.
func TestTwin(t *testing.T) {
	other := example
	other.Key = "000000000000"
	said := func(host string, a Announcement, ip ...string) *dns.Msg {
		return announcement(records(host, a, ips(ip...)))
	}
	for name, c := range map[string]struct {
		m    *dns.Msg
		want string
	}{
		"a copy under the next name":        {said("n1-2", example, "192.0.2.9"), "192.0.2.9"},
		"a copy under another name":         {said("web", example, "2001:db8::9"), "2001:db8::9"},
		"another node of the same name":     {said("n1", other, "192.0.2.9"), ""},
		"a repeater's copy of our own":      {said("n1", example, "192.0.2.7", "198.51.100.7"), ""},
		"a goodbye":                         {goodbye(records("n1-2", example, ips("192.0.2.9"))), ""},
		"one that has no key to tell it by": {said("n1-2", Announcement{Host: "n1"}, "192.0.2.9"), ""},
	} {
		mine := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.7") }
		got, ok := twin(c.m, "eth0", example.Key, mine)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s: %s, %v", name, got, ok)
		}
	}
	if _, ok := twin(said("n2", Announcement{Host: "n2"}, "192.0.2.9"), "eth0", "", func(netip.Addr) bool { return false }); ok {
		t.Error("a node without a key has a twin")
	}
}

// TestTwinTold: it is told once it was heard twice, asked for every minute, and forgotten
// minutes after it was heard the last time: who forged its packets and went leaves nothing.
func TestTwinTold(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.10")
	var twin Twin
	tells := func(now time.Time, want string) {
		t.Helper()
		err := twin.Problem(now)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), "the machine at "+want+" says that it is this node") {
			t.Errorf("told: %v, want %q", err, want)
		}
	}
	tells(t0, "")
	twin.hear(a, t0)
	twin.hear(a, t0.Add(time.Millisecond))
	tells(t0.Add(time.Second), "")
	twin.hear(a, t0.Add(time.Second))
	tells(t0.Add(time.Second), "192.0.2.9")
	twin.hear(b, t0.Add(2*time.Second)) // somebody makes addresses up
	twin.hear(b, t0.Add(4*time.Second))
	tells(t0.Add(4*time.Second), "192.0.2.9")
	asked := 0
	for s := range 3600 {
		if now := t0.Add(time.Duration(s) * time.Second); twin.ask(now) {
			if asked++; asked < 30 {
				twin.hear(a, now)
			}
			tells(now, "192.0.2.9")
		}
	}
	if asked < 30 || asked > 30+int(twinFor/twinRepeat) {
		t.Errorf("asked %d times", asked)
	}
	later := t0.Add(time.Hour)
	tells(later, "")
	twin.hear(b, later)
	tells(later, "")
	twin.hear(b, later.Add(time.Second))
	tells(later.Add(time.Second), "192.0.2.10")
	tells(later.Add(6*time.Minute), "")
}

// TestCopiedCard has a node and a copy of its card on one network: both notice.
func TestCopiedCard(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home := newLAN(t, "home")
	said := example
	said.Host = "pi"
	operator := newMachine(t).plug(home, "192.0.2.1/24")
	var twins [2]Twin
	for i, address := range []string{"192.0.2.7/24", "192.0.2.8/24"} {
		if i == 1 {
			operator.find("pi 7443 hanse [192.0.2.7]")
		}
		m := newMachine(t).plug(home, address)
		m.run(Config{
			Links: func() []Link { return m.links }, Announcement: func() Announcement { return said }, Twin: &twins[i],
		})
	}
	end := time.Now().Add(limit)
	for {
		operator.find("pi 7443 hanse [192.0.2.7]", "pi-2 7443 hanse [192.0.2.8]")
		var all []string
		for i := range twins {
			if err := twins[i].Problem(time.Now()); err != nil {
				all = append(all, err.Error())
			}
		}
		if len(all) == 2 {
			slices.Sort(all)
			if !strings.Contains(all[0], "at 192.0.2.7 says") || !strings.Contains(all[1], "at 192.0.2.8 says") {
				t.Errorf("told: %q", all)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("told: %q", all)
		}
	}
}

// TestTwinAnswers has a node that heard of a twin a minute ago ask, and the twin answer. Else
// that would have nothing to say.
func TestTwinAnswers(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	home := newLAN(t, "home")
	newMachine(t).plug(home, "192.0.2.7/24").node("pi")
	newMachine(t).plug(home, "192.0.2.1/24").find("pi 7443 hanse [192.0.2.7]")
	var twin Twin
	began := time.Now()
	for _, ago := range []time.Duration{twinAsk + time.Second, twinAsk} {
		twin.hear(netip.MustParseAddr("192.0.2.7"), began.Add(-ago))
	}
	m := newMachine(t).plug(home, "192.0.2.8/24")
	said := example
	said.Host, said.Key = "web", fmt.Sprintf("%012d", len("pi"))
	m.run(Config{Links: func() []Link { return m.links }, Announcement: func() Announcement { return said }, Twin: &twin})
	for twin.Problem(began.Add(twinFor)) == nil {
		if time.Since(began) > limit {
			t.Fatal("it was not heard again")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
