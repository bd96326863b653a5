package nameserver

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/namespace"
)

// TestForward: servers of the world that are slow, dead, or say the same in other words
// are as good to a container as they are to any other resolver.
func TestForward(t *testing.T) {
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	servers := 0
	// serve is a server that answers a question for the nth time so; nil: it does not.
	type answer func(nth int, a *dns.Msg) *dns.Msg
	serve := func(t *testing.T, f answer) (netip.Addr, *atomic.Int32) {
		t.Helper()
		servers++
		at := fmt.Sprintf("127.0.1.%d", servers)
		asked := new(atomic.Int32)
		handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			a := new(dns.Msg).SetReply(q)
			a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 80)}}
			if a = f(int(asked.Add(1)), a); a != nil {
				_ = w.WriteMsg(a)
			}
		})
		packets, err := net.ListenPacket("udp", net.JoinHostPort(at, "53"))
		must(t, err)
		streams, err := net.Listen("tcp", net.JoinHostPort(at, "53"))
		must(t, err)
		for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}} {
			started := make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { _ = s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown() })
		}
		return addr(at), asked
	}
	good := func(_ int, a *dns.Msg) *dns.Msg { return a }
	dead := func(int, *dns.Msg) *dns.Msg { return nil }
	table := fleet(plain())
	with := func(servers ...netip.Addr) *Server {
		s := New(func() []netip.Addr { return servers })
		s.limit, s.patience = time.Minute, 200*time.Millisecond
		s.table.Store(&table)
		return s
	}
	question := func(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }
	const fine = "NOERROR 192.0.2.80"

	for name, c := range map[string]struct {
		ask    string
		edns   uint16
		answer answer
		want   string
		more   int // such records
	}{
		"lower case": {ask: "eXample.ORG.", want: fine, answer: func(_ int, a *dns.Msg) *dns.Msg {
			a.Question[0].Name = strings.ToLower(a.Question[0].Name)
			return a
		}},
		"upper case": {ask: "example.org.", want: fine, answer: func(_ int, a *dns.Msg) *dns.Msg {
			a.Question[0].Name = strings.ToUpper(a.Question[0].Name)
			return a
		}},
		"another name": {ask: "example.org.", want: fine, answer: func(nth int, a *dns.Msg) *dns.Msg {
			if nth == 1 {
				a.Question[0].Name, a.Rcode = "example.net.", dns.RcodeNameError
			}
			return a
		}},
		"another type": {ask: "example.org.", want: fine, answer: func(nth int, a *dns.Msg) *dns.Msg {
			if nth == 1 {
				a.Question[0].Qtype, a.Rcode = dns.TypeAAAA, dns.RcodeNameError
			}
			return a
		}},
		"an error without the question": {ask: "example.org.", want: "NXDOMAIN", answer: func(_ int, a *dns.Msg) *dns.Msg {
			a.Question, a.Answer, a.Rcode = nil, nil, dns.RcodeNameError
			return a
		}},
		"longer than was asked for": {ask: "example.org.", want: fine, more: 60, answer: func(_ int, a *dns.Msg) *dns.Msg {
			for range 60 {
				a.Answer = append(a.Answer, a.Answer[0])
			}
			return a
		}},
		"longer than EDNS asks for": {ask: "example.org.", edns: 512, want: fine, more: 600, answer: func(_ int, a *dns.Msg) *dns.Msg {
			for range 600 {
				a.Answer = append(a.Answer, a.Answer[0])
			}
			return a
		}},
		"a packet is lost": {ask: "example.org.", want: fine, answer: func(nth int, a *dns.Msg) *dns.Msg {
			if nth < 3 {
				return nil
			}
			return a
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t, c.answer)
			q := question(c.ask)
			if c.edns > 0 {
				q.SetEdns0(c.edns, false)
			}
			a := with(server).answer("front", addr("10.88.0.2"), q, false)
			if got := shown(a); got != c.want+strings.Repeat(" 192.0.2.80", c.more) {
				t.Errorf("%.80s, want %s and %d more", got, c.want, c.more)
			}
			if a.Id != q.Id || len(a.Question) != 1 || a.Question[0] != q.Question[0] {
				t.Errorf("answer to %v, asked %v", a.Question, q.Question)
			}
		})
	}
	t.Run("each is slow", func(t *testing.T) {
		// The first one answers when the third has been asked.
		last := make(chan struct{})
		slow := func(nth int, a *dns.Msg) *dns.Msg {
			<-last
			return a
		}
		first, _ := serve(t, slow)
		second, _ := serve(t, dead)
		third, _ := serve(t, func(nth int, a *dns.Msg) *dns.Msg {
			if nth == 1 {
				close(last)
			}
			return nil
		})
		if got := shown(with(first, second, third).answer("front", addr("10.88.0.2"), question("example.org."), false)); got != fine {
			t.Errorf("%s", got)
		}
	})
	t.Run("the first is dead", func(t *testing.T) {
		for _, tcp := range []bool{false, true} {
			gone, asked := serve(t, dead)
			there, _ := serve(t, good)
			s := with(gone, there)
			s.patience = time.Second
			const questions = 20
			for range questions {
				if got := shown(s.answer("front", addr("10.88.0.2"), question("example.org."), tcp)); got != fine {
					t.Errorf("%s", got)
				}
			}
			// The first question may have been sent again, and on a busy machine the other waits, too.
			if n := asked.Load(); n == 0 || n > questions/4 {
				t.Errorf("tcp %v: the one that is dead was asked %d times for %d questions", tcp, n, questions)
			}
		}
	})
	t.Run("all are dead", func(t *testing.T) {
		one, asked := serve(t, dead)
		s := with(one)
		s.limit = time.Second
		if got := shown(s.answer("front", addr("10.88.0.2"), question("example.org."), false)); got != "SERVFAIL" || asked.Load() < 2 {
			t.Errorf("%s, asked %d times", got, asked.Load())
		}
	})
}

// TestOrder: who was silent is asked last, and not for ever.
func TestOrder(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	asked := ago(10)
	for name, c := range map[string]struct {
		words map[string]word
		want  string
	}{
		"nobody known":                   {nil, "[10.0.0.1 10.0.0.2 10.0.0.3]"},
		"the first answers":              {map[string]word{"10.0.0.1": {heard: ago(1)}}, "[10.0.0.1 10.0.0.2 10.0.0.3]"},
		"the first was silent":           {map[string]word{"10.0.0.1": {silent: ago(29)}}, "[10.0.0.2 10.0.0.3 10.0.0.1]"},
		"long ago":                       {map[string]word{"10.0.0.1": {silent: ago(30)}}, "[10.0.0.1 10.0.0.2 10.0.0.3]"},
		"two were silent":                {map[string]word{"10.0.0.1": {silent: ago(1)}, "10.0.0.2": {silent: ago(9)}}, "[10.0.0.3 10.0.0.1 10.0.0.2]"},
		"all were silent":                {map[string]word{"10.0.0.1": {silent: ago(1)}, "10.0.0.2": {silent: ago(9)}, "10.0.0.3": {silent: now}}, "[10.0.0.1 10.0.0.2 10.0.0.3]"},
		"silent to one question":         {map[string]word{"10.0.0.1": word{heard: ago(11)}.after(asked, now)}, "[10.0.0.2 10.0.0.3 10.0.0.1]"},
		"another was answered meanwhile": {map[string]word{"10.0.0.1": word{heard: ago(9)}.after(asked, now)}, "[10.0.0.1 10.0.0.2 10.0.0.3]"},
	} {
		servers := []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2"), addr("10.0.0.1"), addr("10.0.0.3")}
		if got := fmt.Sprint(order(servers, func(a netip.Addr) word { return c.words[a.String()] }, now)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	for w, want := range map[word]bool{{}: true, {heard: ago(29)}: false, {silent: ago(29)}: false, {heard: ago(30), silent: ago(30)}: true} {
		if w.old(now) != want {
			t.Errorf("%v is old: %v", w, !want)
		}
	}
}

// FuzzReply: whatever a server says, what fits the question can be sent on.
func FuzzReply(f *testing.F) {
	q := new(dns.Msg).SetQuestion("eXample.org.", dns.TypeA)
	for _, a := range []*dns.Msg{
		new(dns.Msg).SetReply(q), new(dns.Msg).SetRcode(q, dns.RcodeNameError),
		{MsgHdr: dns.MsgHdr{Response: true, Rcode: dns.RcodeFormatError}},
	} {
		if len(a.Question) > 0 {
			a.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: "example.ORG.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "www.example.org."}}
		}
		data, err := a.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a := new(dns.Msg)
		if a.Unpack(data) != nil || !fits(q, a) {
			return
		}
		a.Question = q.Question
		a.Truncate(dns.MinMsgSize)
		if out, err := a.Pack(); err == nil && len(out) > dns.MinMsgSize && len(data) <= dns.MinMsgSize {
			t.Errorf("%d bytes: %v", len(out), a)
		}
	})
}
