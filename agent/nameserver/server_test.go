package nameserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"kogge.example/agent/bridge"
	"kogge.example/agent/namespace"
	"kogge.example/agent/workload"
	"kogge.example/update/golden"
)

// fleet is the table that the tests ask: a shop with a network that leads outside and
// one that does not, and somebody else's.
func fleet(subnets map[string]workload.Subnet) Table {
	t := Table{Clients: map[netip.Addr]Client{
		addr("10.88.0.2"): {Networks: []string{"front", "back"}, Outside: true},
		addr("10.88.1.2"): {Networks: []string{"front", "back"}, Outside: true},
		addr("10.88.1.3"): {Networks: []string{"back"}},
		addr("10.88.2.2"): {Networks: []string{"other"}, Outside: true, Servers: []netip.Addr{addr("127.0.0.55")}},
	}}
	for name, all := range map[string]map[string][]netip.Addr{
		"front": {"web": {addr("10.88.0.2")}, "www.shop.test": {addr("10.88.0.2")}},
		"back":  {"web": {addr("10.88.1.2")}, "db": {addr("10.88.1.3"), addr("10.88.1.4")}, "sql": {addr("10.88.1.3")}},
		"other": {"spy": {addr("10.88.2.2")}},
	} {
		s := subnets[name]
		t.Networks = append(t.Networks, Network{Name: name, Device: s.Device, Prefix: s.Prefix, Gateway: s.Gateway(), Names: all})
	}
	slices.SortFunc(t.Networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return t
}

// plain are the subnets without anything behind them.
func plain() map[string]workload.Subnet {
	all := make(map[string]workload.Subnet)
	for i, name := range []string{"front", "back", "other"} {
		all[name] = workload.Subnet{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, byte(i), 0}), 24)}
	}
	return all
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestAnswers prints what each container is told about each name, "asks others" where
// the table does not know.
func TestAnswers(t *testing.T) {
	table := fleet(plain())
	var b strings.Builder
	for _, c := range []struct{ who, network, from string }{
		{"web", "front", "10.88.0.2"}, {"web", "back", "10.88.1.2"}, {"db", "back", "10.88.1.3"},
		{"spy", "other", "10.88.2.2"}, {"spy with web's address", "other", "10.88.0.2"}, {"nobody known", "front", "10.88.0.9"},
	} {
		fmt.Fprintf(&b, "%s asks on %s:\n", c.who, c.network)
		client := table.client(c.network, addr(c.from))
		for _, q := range []struct {
			name string
			kind uint16
		}{
			{"web.", dns.TypeA}, {"WeB.", dns.TypeA}, {"web.", dns.TypeAAAA}, {"db.", dns.TypeA}, {"sql.", dns.TypeA},
			{"www.shop.test.", dns.TypeA}, {"spy.", dns.TypeA}, {"example.org.", dns.TypeA}, {".", dns.TypeNS},
			{"2.0.88.10.in-addr.arpa.", dns.TypePTR}, {"3.1.88.10.in-addr.arpa.", dns.TypePTR},
			{"2.2.88.10.in-addr.arpa.", dns.TypePTR}, {"1.2.0.192.in-addr.arpa.", dns.TypePTR}, {"x.in-addr.arpa.", dns.TypePTR},
		} {
			a, ours := table.answer(client, new(dns.Msg).SetQuestion(q.name, q.kind))
			fmt.Fprintf(&b, "  %-24s %-4s ", q.name, dns.TypeToString[q.kind])
			switch {
			case !ours && client.Outside:
				b.WriteString("asks others")
			case !ours:
				b.WriteString("NXDOMAIN: nobody asks others for it")
			default:
				b.WriteString(shown(a))
			}
			b.WriteString("\n")
		}
	}
	golden.Compare(t, "answers.txt", b.String())
}

// shown are code and records of an answer.
func shown(a *dns.Msg) string {
	text := dns.RcodeToString[a.Rcode]
	for _, rr := range a.Answer {
		text += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	return text
}

// FuzzAnswer: whatever bytes a container sends, there is an answer to send back.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.", "db.", "example.org.", "2.0.88.10.in-addr.arpa.", "."} {
		for _, kind := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY, dns.TypeAXFR} {
			q := new(dns.Msg).SetQuestion(name, kind)
			q.SetEdns0(4096, true)
			data, err := q.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	s := New(func() []netip.Addr { return nil })
	table := fleet(plain())
	s.table.Store(&table)
	f.Fuzz(func(t *testing.T, data []byte) {
		q := new(dns.Msg)
		if q.Unpack(data) != nil {
			return // the library answers FORMERR, or nothing
		}
		for _, from := range []string{"10.88.0.2", "10.88.1.3", "10.88.0.9"} {
			a := s.answer("front", addr(from), q, false)
			if a.Id != q.Id || !a.Response {
				t.Errorf("no answer to it: %v", a)
			}
			a.Truncate(dns.MinMsgSize)
			out, err := a.Pack()
			if err != nil || len(out) > max(dns.MinMsgSize, len(data)+64) {
				t.Errorf("%d bytes, %v: %v", len(out), err, a)
			}
		}
	})
}

func TestReadServers(t *testing.T) {
	got := ReadServers("# nameserver 192.0.2.1\nsearch lan\nnameserver 192.0.2.53\nnameserver x\nnameserver\n  nameserver 2001:db8::53 # second\n")
	if want := []netip.Addr{addr("192.0.2.53"), addr("2001:db8::53")}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// node is one with three networks: front, back, which has no way out, and other. nil: the test
// runs in a process and namespaces of its own, and this is the one that waits for it.
func node(t *testing.T) (*bridge.Bridges, map[string]workload.Subnet) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces and bridges")
	}
	if !namespace.Run(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS) {
		return nil, nil
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	bridges, err := bridge.Open(filepath.Join(t.TempDir(), "netns"))
	must(t, err)
	subnets := make(map[string]workload.Subnet)
	for _, n := range []workload.Network{{Name: "front"}, {Name: "back", Internal: true}, {Name: "other"}} {
		made, err := bridges.Make([]workload.Network{n})
		must(t, err)
		subnets[n.Name] = made[n.Name]
	}
	must(t, bridges.Publish(nil))
	return bridges, subnets
}

// TestServer asks from real network namespaces, by Go's resolver, the C library's and a
// client of our own.
func TestServer(t *testing.T) {
	bridges, subnets := node(t)
	if bridges == nil {
		return
	}
	web := attach(t, bridges, "web", workload.Address{Network: "front", Addr: addr("10.88.0.2")}, workload.Address{Network: "back", Addr: addr("10.88.1.2")})
	db := attach(t, bridges, "db", workload.Address{Network: "back", Addr: addr("10.88.1.3")})
	spy := attach(t, bridges, "spy", workload.Address{Network: "other", Addr: addr("10.88.2.2")})

	node := newUpstream(t, "127.0.0.54")
	own := newUpstream(t, "127.0.0.55")
	// The first of the node's servers is not there.
	s := New(func() []netip.Addr { return []netip.Addr{addr("127.0.0.99"), addr("10.88.0.1"), addr("127.0.0.54")} })
	s.patience = time.Minute // each question is asked once, however busy the machine is
	t.Cleanup(s.Close)
	s.Set(fleet(subnets))

	for _, c := range []struct {
		who, ns, server, name string
		kind                  uint16
		want                  string
	}{
		{"web", web, "10.88.0.1", "db.", dns.TypeA, "NOERROR 10.88.1.3 10.88.1.4"},
		{"web", web, "10.88.0.1", "web.", dns.TypeA, "NOERROR 10.88.0.2"},
		{"web, by its other network", web, "10.88.1.1", "web.", dns.TypeA, "NOERROR 10.88.0.2"},
		{"web", web, "10.88.0.1", "web.", dns.TypeAAAA, "NOERROR"},
		{"web", web, "10.88.0.1", "2.0.88.10.in-addr.arpa.", dns.TypePTR, "NOERROR web. www.shop.test."},
		{"web", web, "10.88.0.1", "example.org.", dns.TypeA, "NOERROR 192.0.2.80"},
		{"web", web, "10.88.0.1", "spy.", dns.TypeA, "NXDOMAIN"},
		{"db", db, "10.88.1.1", "sql.", dns.TypeA, "NOERROR 10.88.1.3"},
		{"db", db, "10.88.1.1", "example.org.", dns.TypeA, "NXDOMAIN"},
		{"spy", spy, "10.88.2.1", "db.", dns.TypeA, "NXDOMAIN"},
		{"spy", spy, "10.88.2.1", "example.org.", dns.TypeA, "NOERROR 192.0.2.80"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			a, err := ask(t, c.ns, network, c.server, new(dns.Msg).SetQuestion(c.name, c.kind))
			if err != nil {
				t.Errorf("%s asks for %s by %s: %v", c.who, c.name, network, err)
			} else if got := shown(a); got != c.want {
				t.Errorf("%s asks for %s by %s: %s, want %s", c.who, c.name, network, got, c.want)
			}
		}
	}
	if n := own.asked.Load(); n == 0 {
		t.Error("the container's own server was never asked")
	}
	// Nobody but containers, and they by their own networks alone.
	for name, c := range map[string]struct{ ns, server string }{
		"another network":   {spy, "10.88.0.1"},
		"an internal one":   {db, "10.88.0.1"},
		"the node's server": {web, "127.0.0.54"},
	} {
		if a, err := ask(t, c.ns, "udp", c.server, new(dns.Msg).SetQuestion("web.", dns.TypeA)); err == nil {
			t.Errorf("%s: %s", name, shown(a))
		}
	}

	t.Run("Go's resolver", func(t *testing.T) {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
			return c, in(web, func() error { c, err = new(net.Dialer).DialContext(ctx, network, "10.88.0.1:53"); return err })
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := r.LookupHost(ctx, "db")
		if slices.Sort(got); err != nil || !slices.Equal(got, []string{"10.88.1.3", "10.88.1.4"}) {
			t.Errorf("db: %v, %v", got, err)
		}
		// Longer than a packet: the resolver asks again by TCP.
		long, err := r.LookupTXT(ctx, "long.example.org")
		if err != nil || len(long) != 1 || len(long[0]) != 20*250 {
			t.Errorf("long.example.org: %d texts, %v", len(long), err)
		}
		names, err := r.LookupAddr(ctx, "10.88.1.3")
		if slices.Sort(names); err != nil || !slices.Equal(names, []string{"db.", "sql."}) {
			t.Errorf("10.88.1.3: %v, %v", names, err)
		}
	})
	t.Run("the C library's resolver", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		must(t, os.WriteFile(file, []byte("nameserver 10.88.0.1\n"), 0o644))
		must(t, unix.Mount(file, "/etc/resolv.conf", "", unix.MS_BIND, ""))
		defer func() { must(t, unix.Unmount("/etc/resolv.conf", 0)) }()
		for name, want := range map[string]string{"db": "10.88.1.3 10.88.1.4", "www.shop.test": "10.88.0.2", "example.org": "192.0.2.80", "spy": ""} {
			out, err := exec.Command("nsenter", "--net="+web, "getent", "ahostsv4", name).Output()
			var got []string
			for line := range strings.Lines(string(out)) {
				if f := strings.Fields(line); len(f) > 1 && f[1] == "STREAM" {
					got = append(got, f[0])
				}
			}
			if slices.Sort(got); strings.Join(got, " ") != want || (err == nil) != (want != "") {
				t.Errorf("%s: %v, %v, want %s", name, got, err, want)
			}
		}
	})
	t.Run("a server that is link-local", func(t *testing.T) {
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "lan1"}))
		lan, err := netlink.LinkByName("lan0")
		must(t, err)
		must(t, netlink.LinkSetUp(lan))
		must(t, netlink.AddrAdd(lan, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::53"), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}))
		newUpstream(t, "fe80::53%lan0")
		local := New(func() []netip.Addr { return ReadServers("nameserver fe80::53%lan0\n") })
		table := fleet(subnets)
		local.table.Store(&table)
		for _, tcp := range []bool{false, true} {
			got := ""
			for range 10 { // a busy machine takes longer than the node waits for a server
				if got = shown(local.answer("front", addr("10.88.0.2"), new(dns.Msg).SetQuestion("example.org.", dns.TypeA), tcp)); got != "SERVFAIL" {
					break
				}
			}
			if got != "NOERROR 192.0.2.80" {
				t.Errorf("by tcp %v: %s", tcp, got)
			}
		}
	})
	t.Run("a liar", func(t *testing.T) {
		// What comes with a number that was not asked, or to another question, is no answer.
		node.lie.Store(true)
		defer node.lie.Store(false)
		if a, err := ask(t, web, "udp", "10.88.0.1", new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); err != nil || shown(a) != "NOERROR 192.0.2.80" {
			t.Errorf("%v, %v", a, err)
		}
	})
	t.Run("many questions", func(t *testing.T) {
		node.hold.Lock()
		var answered sync.WaitGroup
		var refused atomic.Int32
		before := node.asked.Load()
		for range 4 * maxOfOne {
			answered.Go(func() {
				a, err := ask(t, web, "udp", "10.88.0.1", new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
				if err == nil && a.Rcode == dns.RcodeServerFailure {
					refused.Add(1)
				}
			})
		}
		until(t, "those above the limit to be refused", func() bool { return refused.Load() >= 3*maxOfOne })
		if n := node.asked.Load() - before; n > maxOfOne {
			t.Errorf("%d questions of one container are under way", n)
		}
		// Nobody else waits for that, nor do names of containers.
		if a, err := ask(t, spy, "udp", "10.88.2.1", new(dns.Msg).SetQuestion("example.org.", dns.TypeA)); err != nil || a.Rcode != dns.RcodeSuccess {
			t.Errorf("spy: %v, %v", a, err)
		}
		if a, err := ask(t, web, "udp", "10.88.0.1", new(dns.Msg).SetQuestion("db.", dns.TypeA)); err != nil || len(a.Answer) != 2 {
			t.Errorf("web: %v, %v", a, err)
		}
		node.hold.Unlock()
		answered.Wait()
	})
	t.Run("changes", func(t *testing.T) {
		table := fleet(subnets)
		table.Networks[1].Names["web"] = []netip.Addr{addr("10.88.0.7")} // front
		s.Set(table)
		if a, err := ask(t, web, "udp", "10.88.0.1", new(dns.Msg).SetQuestion("web.", dns.TypeA)); err != nil || shown(a) != "NOERROR 10.88.0.7" {
			t.Errorf("%v, %v", a, err)
		}
		for range 3 {
			s.Set(Table{Networks: table.Networks[:1]})
			if got := s.String(); got != "back (10.88.1.1)" {
				t.Errorf("listening on %s", got)
			}
			s.Set(table)
		}
		if got := s.String(); got != "back (10.88.1.1), front (10.88.0.1), other (10.88.2.1)" {
			t.Errorf("listening on %s", got)
		}
		s.Close()
		if a, err := ask(t, web, "udp", "10.88.0.1", new(dns.Msg).SetQuestion("web.", dns.TypeA)); err == nil {
			t.Errorf("after the end: %s", shown(a))
		}
	})
}

// upstream is a name server of the world.
type upstream struct {
	asked atomic.Int32
	lie   atomic.Bool
	hold  sync.RWMutex // held: it answers nobody
}

func newUpstream(t *testing.T, at string) *upstream {
	t.Helper()
	u := &upstream{}
	packets, err := net.ListenPacket("udp", net.JoinHostPort(at, "53"))
	must(t, err)
	streams, err := net.Listen("tcp", net.JoinHostPort(at, "53"))
	must(t, err)
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: u}, {Listener: streams, Handler: u}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return u
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	u.asked.Add(1)
	u.hold.RLock()
	defer u.hold.RUnlock()
	a := new(dns.Msg).SetReply(q)
	head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
	switch q.Question[0].Name {
	case "example.org.":
		a.Answer = append(a.Answer, &dns.A{Hdr: head, A: net.IPv4(192, 0, 2, 80)})
	case "long.example.org.":
		a.Answer = append(a.Answer, &dns.TXT{Hdr: head, Txt: slices.Repeat([]string{strings.Repeat("x", 250)}, 20)})
	default:
		a.Rcode = dns.RcodeNameError
	}
	if u.lie.Load() {
		wrong := a.Copy()
		wrong.Id++
		wrong.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(6, 6, 6, 6)}}
		_ = w.WriteMsg(wrong)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		a.Truncate(dns.MinMsgSize)
	}
	_ = w.WriteMsg(a)
}

// ask asks server from the namespace ns. Silence is what some are to meet.
func ask(t *testing.T, ns, network, server string, q *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	var c *dns.Conn
	client := dns.Client{Net: network + "4", Timeout: 10 * time.Second}
	err := in(ns, func() (err error) {
		client.Dialer = &net.Dialer{Timeout: 2 * time.Second}
		c, err = client.Dial(server + ":53")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	a, _, err := client.ExchangeWithConn(q, c)
	return a, err
}

func attach(t *testing.T, b *bridge.Bridges, id string, at ...workload.Address) string {
	t.Helper()
	place, err := b.Attach(id, at, false)
	must(t, err)
	t.Cleanup(func() { must(t, b.Detach(id)) })
	return place.Net
}

// in runs f on a thread inside the namespace ns, or here if ns is empty. A socket
// belongs for ever to the namespace it was made in.
func in(ns string, f func() error) error {
	if ns == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		file, err := os.Open(ns)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited for %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
