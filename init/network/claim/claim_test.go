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
// of an address from node.yaml.
func TestStep(t *testing.T) {
	var out strings.Builder
	for _, leased := range []bool{false, true} {
		for _, s := range []Standing{Waiting, Probing, Fresh, Held, Checking, Taken} {
			fmt.Fprintf(&out, "%s, %s\n", s, map[bool]string{false: "from node.yaml", true: "leased"}[leased])
			for _, e := range []Event{Timer, Conflict, Asked, CarrierUp, CarrierDown} {
				got, action := Claim{State: s, Leased: leased, Next: t0}.Step(e, stranger, t0)
				fmt.Fprintf(&out, "  %-12s → %-8s %s\n", e, action, shown(got))
			}
			for _, after := range []time.Duration{9 * time.Second, 11 * time.Second} {
				if s == Held {
					got, action := Claim{State: s, Leased: leased, By: stranger, Conflict: t0}.Step(Conflict, stranger, t0.Add(after))
					fmt.Fprintf(&out, "  %-12s → %-8s %s\n", fmt.Sprintf("again, %s", after), action, shown(got))
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
	c, now := Begin(false, false, true, t0), t0
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
