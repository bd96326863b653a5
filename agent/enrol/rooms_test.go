package enrol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kogge.example/update/fleet/ledger/ledgertest"
	"kogge.example/update/golden"
)

// TestRooms shows who gets a place, and who has to go for it: a caller is a network and a number.
func TestRooms(t *testing.T) {
	var out strings.Builder
	begun := time.Unix(0, 0)
	for _, c := range []struct {
		what  string
		keyed bool
		comes string // at second 0, but for what has @SECOND behind it
	}{
		{"there is room", false, "a1 b1 c1"},
		{"one network has two places", false, "a1 a2 a3"},
		{"and others after they have had their time", false, "a1 a2 a3@4 a4@5 a5@5 a6@6"},
		{"two networks take all, a third one comes, and a fourth", false, "a1 a2 b1 b2 c1 d1 e1"},
		{"four networks take all", false, "a1 b1 c1 d1 e1@4 f1@5 g1@5"},
		{"the network that has most is the one that comes", false, "a1 a2 b1 c1 a3@1 a3@9"},
		{"nodes that are in, by their keys", true, "a1 b1 a2 c1 d1 e1@4 e1@5"},
	} {
		r := room{most: 4, ofOne: 2, keyed: c.keyed}
		if c.keyed {
			r.ofOne = 1
		}
		names := make(map[*place]string)
		fmt.Fprintf(&out, "%s\n", c.what)
		for _, one := range strings.Fields(c.comes) {
			name, at, _ := strings.Cut(one, "@")
			var second int
			fmt.Sscan(at, &second)
			p := &place{of: name[:1]}
			names[p] = name
			gone, ok := r.enter(p, begun.Add(time.Duration(second)*time.Second))
			said := "comes in"
			if !ok {
				said = "is refused"
			}
			if gone != nil {
				said += ", and " + names[gone] + " goes"
			}
			fmt.Fprintf(&out, "    %2ds %s %s\n", second, name, said)
			if len(r.here) > r.most {
				t.Errorf("%s: %d are here", c.what, len(r.here))
			}
		}
	}
	golden.Compare(t, "rooms.txt", out.String())
}

// TestNets: one machine is one caller, however many addresses of its link it calls from.
func TestNets(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.9:1": "192.0.2.9", "[::ffff:192.0.2.9]:1": "192.0.2.9", "[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64%",
		"[fe80::1%eth0]:5": "fe80::/64%eth0", "a pipe": "a pipe",
	} {
		if got := netOf(address(from)); got != want {
			t.Errorf("%s: %q, want %q", from, got, want)
		}
	}
}

// TestEntered: a node that is in waits for none of those who want in.
func TestEntered(t *testing.T) {
	m, _, _ := member0(t)
	in, ended := 0, 0
	for i := range 40 {
		if _, ok := m.enter(&guest{}, fmt.Sprint(i), func() { ended++ }); ok {
			in++
		}
	}
	if in != maxGuests || ended != 0 {
		t.Errorf("%d came in, %d had to go", in, ended)
	}
	leave, ok := m.enter(&guest{key: ledgertest.Key(t, "n1"), name: "n1"}, "0", func() { ended++ })
	if !ok {
		t.Error("a node that is in is kept out")
	}
	if _, ok := m.enter(&guest{key: ledgertest.Key(t, "n1"), name: "n1"}, "0", func() {}); !ok || ended != 1 {
		t.Error("its last connection keeps it out")
	}
	leave() // of one that had to go
	if len(m.visitors.here) != 1 {
		t.Errorf("%d are here", len(m.visitors.here))
	}
}
