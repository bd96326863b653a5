package clock

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// lookUpAt has names be looked up by dial, until the test ends.
func lookUpAt(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	t.Helper()
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dial}
}

// dnsServer answers with the records of these zones' names, and has names be looked up there.
// The record "NAME silent TYPE" has questions of that type for the name be left unanswered.
func dnsServer(t *testing.T, records ...string) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		for _, text := range records {
			if text == q.Question[0].Name+" silent "+dns.TypeToString[q.Question[0].Qtype] {
				return
			}
			if r, err := dns.NewRR(text); err == nil && r.Header().Name == q.Question[0].Name && r.Header().Rrtype == q.Question[0].Qtype {
				reply.Answer = append(reply.Answer, r)
			}
		}
		_ = w.WriteMsg(reply)
	})}
	ended := make(chan error)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() { conn.Close(); <-ended })
	lookUpAt(t, func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{Resolver: new(net.Resolver)} // a look-up may outlive the test, and the default one does not
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	})
}

// TestNames asks servers by names with several addresses, of which not all are well: one that
// answers is enough, and it is one server.
func TestNames(t *testing.T) {
	port := ntpServer(t, "127.0.0.1", 0, "good", time.Now)
	ntpServer(t, "::1", port, "good", time.Now)
	ntpServer(t, "127.0.0.3", port, "kiss RATE", time.Now)
	ntpServer(t, "127.0.0.4", port, "unsynced", time.Now)
	dnsServer(t, "one.test. A 127.0.0.1", // nobody is at 127.0.0.2 and at the IPv6 addresses of 2001:db8::
		"two.test. A 127.0.0.2", "two.test. A 127.0.0.1", "both.test. A 127.0.0.2", "both.test. AAAA ::1", "six.test. AAAA ::1",
		"far.test. A 127.0.0.1", "far.test. AAAA 2001:db8::1", "far.test. AAAA 2001:db8::2", "far.test. AAAA 2001:db8::3", "far.test. AAAA 2001:db8::4",
		"four.test. A 127.0.0.1", "four.test. silent AAAA", "sixth.test. silent A", "sixth.test. AAAA ::1",
		"unsynced.test. A 127.0.0.4", "unsynced.test. A 127.0.0.1", "rate.test. A 127.0.0.3", "rate.test. A 127.0.0.1", "dead.test. A 127.0.0.2")
	names := []string{"one.test", "two.test", "both.test", "six.test", "far.test", "four.test", "sixth.test", "unsynced.test", "rate.test", "dead.test", "none.test", "127.0.0.1"}
	p := askAll(names, Options{Clock: clockAt(time.Now()), port: port})
	good := make(map[string]int)
	for _, s := range p.samples {
		good[s.Server]++
	}
	want := map[string]int{"one.test": 1, "two.test": 1, "both.test": 1, "six.test": 1, "far.test": 1, "four.test": 1, "sixth.test": 1, "unsynced.test": 1, "127.0.0.1": 1}
	if fmt.Sprint(good) != fmt.Sprint(want) {
		t.Errorf("good answers of %v, want %v", good, want)
	}
	if fmt.Sprint(p.kisses) != "map[rate.test:RATE]" {
		t.Errorf("kisses: %v", p.kisses)
	}
}

// TestNamesDead: name servers that say nothing keep the answers of other time servers for no
// longer than a look-up may take.
func TestNamesDead(t *testing.T) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	lookUpAt(t, func(context.Context, string, string) (net.Conn, error) {
		<-over // whatever the resolver's own limits are
		return nil, net.ErrClosed
	})
	port := ntpServer(t, "127.0.0.1", 0, "good", time.Now)
	if p := askAll([]string{"one.test", "127.0.0.1"}, Options{Clock: clockAt(time.Now()), port: port}); len(p.samples) != 1 {
		t.Errorf("answers: %+v", p.samples)
	}
}

func TestInTurns(t *testing.T) {
	for _, c := range []struct{ all, want string }{
		{"[]", "[]"},
		{"[192.0.2.1 192.0.2.2]", "[192.0.2.1 192.0.2.2]"},
		{"[2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 192.0.2.1 192.0.2.2]", "[2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2]"},
		{"[192.0.2.1 ::ffff:192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 2001:db8::1]", "[192.0.2.1 2001:db8::1 192.0.2.2 192.0.2.3]"},
	} {
		var all []netip.Addr
		for _, a := range strings.Fields(strings.Trim(c.all, "[]")) {
			all = append(all, netip.MustParseAddr(a))
		}
		if got := fmt.Sprint(inTurns(all)); got != c.want {
			t.Errorf("%s: %s, want %s", c.all, got, c.want)
		}
	}
}
