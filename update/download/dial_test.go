package download

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolver answers with the records of these zones' names. The record "NAME silent TYPE" has
// questions of that type for the name be left unanswered.
func resolver(t *testing.T, records ...string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		reply.RecursionAvailable = true
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
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// introduce says to all who connect where they are.
func introduce(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, "this is ", l.Addr())
		c.Close()
	}
}

// TestDial connects to names of which one family is not well: the other one is enough. A name
// server that never answers costs its limit, and no more.
func TestDial(t *testing.T) {
	four, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { four.Close() })
	_, port, _ := net.SplitHostPort(four.Addr().String())
	six, err := net.Listen("tcp6", net.JoinHostPort("::1", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { six.Close() })
	for _, l := range []net.Listener{four, six} {
		go introduce(l)
	}
	names := resolver(t, "four.test. A 127.0.0.1", "six.test. AAAA ::1", "both.test. A 127.0.0.1", "both.test. AAAA ::1",
		"no6.test. A 127.0.0.1", "no6.test. silent AAAA", "no4.test. AAAA ::1", "no4.test. silent A", "silent.test. silent A", "silent.test. silent AAAA",
		"far6.test. A 127.0.0.1", "far6.test. AAAA 2001:db8::1", "far4.test. A 127.0.0.2", "far4.test. AAAA ::1",
		"refused.test. A 127.0.0.2", "half.test. A 127.0.0.2", "half.test. silent AAAA")
	dial := Dial(&net.Dialer{Timeout: 2 * time.Second, Resolver: names})
	for host, want := range map[string]string{
		"four.test": "this is 127.0.0.1", "six.test": "this is [::1]", "both.test": "this is [::1]", "no6.test": "this is 127.0.0.1", "no4.test": "this is [::1]",
		"far6.test": "this is 127.0.0.1", "far4.test": "this is [::1]", "127.0.0.1": "this is 127.0.0.1", "::1": "this is [::1]", "localhost": "this is ",
		"none.test": "no such host", "silent.test": "timeout", "refused.test": "connection refused", "half.test": "connection refused",
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			got := ""
			conn, err := dial(context.Background(), "tcp", net.JoinHostPort(host, port))
			if err != nil {
				got = err.Error()
			} else {
				said, _ := io.ReadAll(conn)
				got = string(said)
				conn.Close()
			}
			if !strings.Contains(got, want) {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}
