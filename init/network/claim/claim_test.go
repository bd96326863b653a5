package claim

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"kogge.example/update/golden"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const stranger = "02:00:00:00:00:99"

// TestStep shows the answer of a claim to every event in every state, of a lease and
// of an address from node.yaml, before and after it became ours.
func TestStep(t *testing.T) {
	var out strings.Builder
	for _, leased := range []bool{false, true} {
		for _, s := range []Standing{Waiting, Probing, Fresh, Held, Checking, Taken} {
			for _, ours := range []bool{false, true} {
				if s == Held && !ours {
					continue // there is none
				}
				fmt.Fprintf(&out, "%s, %s%s\n", s, map[bool]string{false: "from node.yaml", true: "leased"}[leased], map[bool]string{true: ", ours"}[ours])
				before := Claim{State: s, Leased: leased, Ours: ours, Next: t0}
				for _, e := range []Event{Timer, Conflict, Asked, CarrierUp, CarrierDown} {
					got, action := before.Step(e, stranger, t0)
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", e, action, shown(got))
				}
				if !ours || s == Waiting || s == Probing || s == Taken {
					continue
				}
				disputed, _ := before.Step(Conflict, stranger, t0)
				for _, after := range []time.Duration{9 * time.Second, 11 * time.Second} {
					got, action := disputed.Step(Conflict, stranger, t0.Add(after))
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", fmt.Sprintf("again, %s", after), action, shown(got))
				}
				if s == Held {
					asked, action := disputed.Step(Timer, "", disputed.Next)
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", "then timer", action, shown(asked))
					got, action := asked.Step(Conflict, stranger, asked.Next)
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", "… conflict", action, shown(got))
					got, action = asked.Step(Timer, "", asked.Next)
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", "… timer", action, shown(got))
				}
			}
		}
	}
	golden.Compare(t, "step.txt", out.String())
}

func shown(c Claim) string {
	next := "-"
	if !c.Next.IsZero() {
		next = c.Next.Sub(t0).String()
	}
	return fmt.Sprintf("%-9s next %-6s %s", c.State, next, c.By)
}

// TestTimes walks a claim whose address nobody else has to its rest.
func TestTimes(t *testing.T) {
	var got []string
	c, now := Begin(false, false, true, 0, t0), t0
	for i := 0; !c.Next.IsZero() && i < 100; i++ {
		var action Action
		now = c.Next
		if c, action = c.Step(Timer, "", now); action != Wait {
			got = append(got, fmt.Sprintf("%s %s %v", now.Sub(t0), action, c.InUse()))
		}
	}
	want := []string{"0s probe false", "60ms probe false", "120ms probe false", "200ms announce true", "1.2s probe true", "2.2s announce true", "4.2s probe true"}
	if c.State != Held || !slices.Equal(got, want) || now.Sub(t0) < 7*time.Second {
		t.Errorf("%s after %s: %q, want %q", c.State, now.Sub(t0), got, want)
	}
}

// attack is what somebody does to a node for five minutes, and what is to become of it.
type attack struct {
	name      string
	leased    bool
	every     time.Duration  // packets that say that the address is his
	answers   func(int) bool // questions for the address, of which lease; nil: none
	until     time.Duration  // and then he is gone; 0: never
	refused   int            // how often the kernel found it taken, before it is claimed
	plugged   time.Duration  // the cable goes out and in at this time
	restarted time.Duration  // the service does
	steady    time.Duration  // from here on the address is never away again
}

// TestAttacks shows what becomes of an address while a stranger, or another machine, says
// that it is his: the node comes back, and no storm comes of it.
func TestAttacks(t *testing.T) {
	all := func(int) bool { return true }
	var out strings.Builder
	for _, a := range []attack{
		{name: "nobody", steady: time.Second},
		{name: "nobody", leased: true, steady: time.Second},
		{name: "a packet each 5 s from the boot on", every: 5 * time.Second, steady: 30 * time.Second},
		{name: "a packet each 5 s from the boot on", leased: true, every: 5 * time.Second, steady: time.Minute},
		{name: "a packet a second from the boot on", every: time.Second, steady: 30 * time.Second},
		{name: "a packet a second from the boot on", leased: true, every: time.Second, steady: time.Minute},
		{name: "a packet a second, and the cable out and in", every: time.Second, plugged: 2 * time.Minute, steady: 30 * time.Second},
		{name: "a packet a second, and the cable out and in", leased: true, every: time.Second, plugged: 2 * time.Minute, steady: time.Minute},
		{name: "a packet a second, and the service again", every: time.Second, restarted: 2 * time.Minute, steady: 30 * time.Second},
		{name: "a packet a second, and the service again", leased: true, every: time.Second, restarted: 2 * time.Minute, steady: time.Minute},
		{name: "a router that answers for everything", answers: all, steady: 30 * time.Second},
		{name: "a router that answers for everything", leased: true, answers: all, steady: time.Minute},
		{name: "a machine that has it, and goes after 3 minutes", answers: all, until: 3 * time.Minute, steady: 30 * time.Second},
		{name: "a machine that has it, until the node asks again", answers: all, until: time.Second, steady: 5 * time.Second},
		{name: "somebody answers the kernel's question alone", refused: 1, steady: time.Second},
		{name: "somebody answers the kernel's question and each of ours", refused: 1, answers: all, steady: 30 * time.Second},
		{name: "a machine that has the first lease", leased: true, answers: func(lease int) bool { return lease == 1 }, steady: 15 * time.Second},
		{name: "machines that have the first two leases", leased: true, answers: func(lease int) bool { return lease <= 2 }, steady: 30 * time.Second},
	} {
		fmt.Fprintf(&out, "%s: %s\n", map[bool]string{false: "from node.yaml", true: "leased"}[a.leased], a.name)
		a.run(t, &out)
	}
	golden.Compare(t, "attacks.txt", out.String())
}

func (a attack) run(t *testing.T, out *strings.Builder) {
	t.Helper()
	const end = 5 * time.Minute
	at := func(d time.Duration) time.Time { return t0.Add(d) }
	// A lease that is declined is followed by the next ten seconds later, see init/network.
	const next = 10 * time.Second
	lease, renewed := 1, time.Time{}
	c := Begin(a.leased, false, true, a.refused, t0)
	line, sent := "", 0
	var defended []time.Duration
	do := func(d time.Duration, e Event) {
		was := c.InUse()
		by := map[bool]string{true: stranger}[e == Conflict]
		var action Action
		c, action = c.Step(e, by, at(d))
		if was && !c.InUse() && d > a.steady {
			t.Errorf("%s: the address is given up after %s", a.name, d)
		}
		switch action {
		case GiveUp:
			if a.leased {
				renewed = at(d).Add(next)
			}
		case Probe, Announce:
			sent++
			if action == Announce && e == Conflict {
				defended = append(defended, d)
			}
		}
	}
	for d := time.Duration(0); d < end; d += 10 * time.Millisecond {
		there := a.until == 0 || d < a.until
		if !renewed.IsZero() && !at(d).Before(renewed) {
			lease++
			renewed = time.Time{}
			c = Begin(true, false, true, c.Failures, at(d))
		}
		if a.plugged != 0 && d == a.plugged {
			do(d, CarrierDown)
			do(d, CarrierUp)
		}
		if a.restarted != 0 && d == a.restarted {
			c = Begin(a.leased, c.InUse(), true, 0, at(d))
		}
		probed := false
		if !c.Next.IsZero() && !at(d).Before(c.Next) {
			was := sent
			do(d, Timer)
			probed = sent > was
		}
		if there && (a.every != 0 && d%a.every == 0 || probed && a.answers != nil && a.answers(lease)) {
			do(d, Conflict)
		}
		state := map[bool]string{false: "not used", true: "used"}[c.InUse()]
		if a.leased {
			state = fmt.Sprintf("lease %d %s", lease, state)
		}
		if c.By != "" {
			state += ", disputed"
		}
		if state != line {
			line = state
			fmt.Fprintf(out, "  %8s %s\n", d, line)
		}
		if d > a.steady && !c.InUse() {
			t.Fatalf("%s: not in use after %s", a.name, d)
		}
		if there && (a.every != 0 || a.answers != nil && a.answers(lease)) && d > a.steady && d != a.plugged && d != a.restarted && c.By == "" {
			t.Fatalf("%s: nobody is told after %s", a.name, d)
		}
	}
	for i := 1; i < len(defended); i++ {
		// The service that begins anew knows nothing of what it did.
		if gap := defended[i] - defended[i-1]; gap < 10*time.Second && defended[i] != a.restarted {
			t.Errorf("%s: defended twice in %s", a.name, gap)
		}
	}
	fmt.Fprintf(out, "           %d packets, %d of them in defence\n", sent, len(defended))
}

// TestMeans: who has the address, who asks, and who is one of us.
func TestMeans(t *testing.T) {
	a, other := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1")
	none := netip.IPv4Unspecified()
	foreign, _ := net.ParseMAC(stranger)
	mine, _ := net.ParseMAC("02:00:00:00:00:01")
	own := map[string]bool{mine.String(): true}
	for _, c := range []struct {
		p    Packet
		want Event
	}{
		{Packet{false, foreign, a, other}, Conflict}, // an answer
		{Packet{true, foreign, a, a}, Conflict},      // an announcement
		{Packet{true, foreign, a, other}, Conflict},  // a question by whoever has it
		{Packet{true, foreign, none, a}, Asked},
		{Packet{true, foreign, other, a}, ""}, // somebody looks for us
		{Packet{true, foreign, none, other}, ""},
		{Packet{false, mine, a, other}, ""},
		{Packet{true, mine, none, a}, ""},
	} {
		if got := c.p.Means(a, own); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}

// TestNames has a conflict ten times a second, each from another MAC address: it is a line in
// the log once in ten seconds, and not ten times a second.
func TestNames(t *testing.T) {
	c, names := Begin(false, true, true, 0, t0), 0
	for i := range byte(200) {
		by := c.By
		c, _ = c.Step(Conflict, net.HardwareAddr{2, 0, 0, 0, 0, i}.String(), t0.Add(time.Duration(i)*100*time.Millisecond))
		if c.By != by {
			names++
		}
	}
	if names != 2 {
		t.Errorf("%d names in 20 seconds", names)
	}
}

// frame is a neighbour discovery message, with a right checksum.
func frame(from, to string, hops byte, said ...byte) []byte {
	a, b := netip.MustParseAddr(from), netip.MustParseAddr(to)
	binary.BigEndian.PutUint16(said[2:], checksum(a, b, said))
	f := []byte{0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x99, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(said)), 58, hops}
	return slices.Concat(f, a.AsSlice(), b.AsSlice(), said)
}

// TestND shows what is read from frames of neighbour discovery, and what such a packet means
// for a claim on 2001:db8::7.
func TestND(t *testing.T) {
	const node, other, all, group, lost = "2001:db8::7", "2001:db8::1", "ff02::1", "ff02::1:ff00:7", "ff02::1:ff00:8"
	said := func(kind, flags byte, options ...byte) []byte {
		return slices.Concat([]byte{kind, 0, 0, 0, flags, 0, 0, 0}, netip.MustParseAddr(node).AsSlice(), options)
	}
	bent := frame(node, all, 255, said(136, 0x20)...)
	bent[60] ^= 1
	padded := append(frame(node, all, 255, said(136, 0x20)...), 0, 0, 0)
	short := frame(node, all, 255, said(136, 0x20)...)
	var out strings.Builder
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"an announcement", frame(node, all, 255, said(136, 0x20, 2, 1, 2, 0, 0, 0, 0, 0x99)...)},
		{"an answer", frame(other, "2001:db8::2", 255, said(136, 0x60)...)},
		{"an answer to all", frame(other, all, 255, said(136, 0x60)...)},
		{"somebody wants it", frame("::", group, 255, said(135, 0)...)},
		{"… and says a number used once", frame("::", group, 255, said(135, 0, 14, 1, 1, 2, 3, 4, 5, 6)...)},
		{"… in another group", frame("::", lost, 255, said(135, 0)...)},
		{"whoever has it looks for itself", frame(node, group, 255, said(135, 0)...)},
		{"somebody looks for it", frame(other, group, 255, said(135, 0)...)},
		{"from afar", frame(node, all, 254, said(136, 0x20)...)},
		{"another message", frame(node, all, 255, said(134, 0x20)...)},
		{"a bent one", bent},
		{"a padded one", padded},
		{"one cut short", short[:len(short)-1]},
		{"an option of no length", frame(node, all, 255, said(136, 0x20, 2, 0, 0, 0, 0, 0, 0, 0)...)},
		{"an option that goes on behind the end", frame(node, all, 255, said(136, 0x20, 2, 2, 0, 0, 0, 0, 0, 0)...)},
	} {
		p, ok := ParseND(c.frame)
		if !ok {
			fmt.Fprintf(&out, "%s: no\n", c.name)
			continue
		}
		means := p.Means(netip.MustParseAddr(node), nil)
		if means == "" {
			means = "nothing"
		}
		fmt.Fprintf(&out, "%s: request %v of %s %s for %s means %s\n", c.name, p.Request, p.SenderMAC, p.Sender, p.Target, means)
	}
	mac, _ := net.ParseMAC(stranger)
	for _, p := range []Packet{
		{Request: true, SenderMAC: mac, Sender: netip.IPv6Unspecified(), Target: netip.MustParseAddr(node)},
		{SenderMAC: mac, Sender: netip.MustParseAddr(node)},
	} {
		for _, isRouter := range []bool{false, true} {
			fmt.Fprintf(&out, "sent, by a router %v:\n%s", isRouter, hex.Dump(p.nd(isRouter)))
			if again, ok := ParseND(p.nd(isRouter)); !ok || again.Request != p.Request || again.Sender != p.Sender || again.Target != p.Target {
				t.Errorf("%+v became %+v, %v", p, again, ok)
			}
		}
	}
	golden.Compare(t, "nd.txt", out.String())
}

func FuzzND(f *testing.F) {
	mac, _ := net.ParseMAC(stranger)
	for _, p := range []Packet{
		{Request: true, SenderMAC: mac, Sender: netip.IPv6Unspecified(), Target: netip.MustParseAddr("2001:db8::7")},
		{SenderMAC: mac, Sender: netip.MustParseAddr("2001:db8::7")},
	} {
		f.Add(p.nd(false))
		f.Add(p.nd(true)[:50])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := ParseND(data)
		if !ok {
			// A fuzzer does not hit the checksum: it is put right, and the rest is looked at.
			if len(data) < message+messageSize || len(data) > 1500 {
				return
			}
			data = slices.Clone(data)
			said := data[message:]
			binary.BigEndian.PutUint16(data[18:], uint16(len(said)))
			said[2], said[3] = 0, 0
			binary.BigEndian.PutUint16(said[2:], checksum(netip.AddrFrom16([16]byte(data[22:38])), netip.AddrFrom16([16]byte(data[38:54])), said))
			if p, ok = ParseND(data); !ok {
				return
			}
		}
		if len(p.SenderMAC) != 6 || p.Sender.IsMulticast() || p.Target.IsValid() != p.Request || p.Target.IsValid() && p.Target.IsMulticast() {
			t.Errorf("%+v", p)
		}
		for _, a := range []netip.Addr{p.Sender, p.Target} {
			if e := p.Means(a, nil); a.IsValid() && !a.IsUnspecified() && a == p.Sender && e != Conflict {
				t.Errorf("%+v means %q for %s", p, e, a)
			}
		}
	})
}

func FuzzARP(f *testing.F) {
	mac, _ := net.ParseMAC(stranger)
	whole := Packet{true, mac, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1")}.arp()
	f.Add(whole)
	f.Add(whole[:27])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := ParseARP(data)
		if !ok {
			return
		}
		if len(p.SenderMAC) != 6 || !p.Sender.Is4() || !p.Target.Is4() {
			t.Errorf("%+v", p)
		}
		again, ok := ParseARP(p.arp())
		if !ok || !bytes.Equal(again.SenderMAC, p.SenderMAC) || again.Sender != p.Sender || again.Target != p.Target || !again.Request {
			t.Errorf("%+v became %+v", p, again)
		}
	})
}
