package claim

import (
	"bytes"
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
	c := Begin(a.leased, false, true, 0, t0)
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

func FuzzARP(f *testing.F) {
	mac, _ := net.ParseMAC(stranger)
	whole := Packet{true, mac, netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.1")}.bytes()
	f.Add(whole)
	f.Add(whole[:27])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := Parse(data)
		if !ok {
			return
		}
		if len(p.SenderMAC) != 6 || !p.Sender.Is4() || !p.Target.Is4() {
			t.Errorf("%+v", p)
		}
		again, ok := Parse(p.bytes())
		if !ok || !bytes.Equal(again.SenderMAC, p.SenderMAC) || again.Sender != p.Sender || again.Target != p.Target || !again.Request {
			t.Errorf("%+v became %+v", p, again)
		}
	})
}
