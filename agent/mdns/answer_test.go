package mdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"kogge.example/update/golden"
)

var example = Announcement{
	Host: "n1", Port: 7443, Node: "n1", Fleet: "hanse", FleetID: "0123456789ab", Release: "1.0", Board: "pc-x86_64", Key: "ba9876543210",
}

func ips(all ...string) []netip.Addr {
	var found []netip.Addr
	for _, a := range all {
		found = append(found, netip.MustParseAddr(a))
	}
	return found
}

// query asks; with answers, of what it knows already.
func query(class uint16, known []dns.RR, questions ...any) *dns.Msg {
	m := &dns.Msg{Answer: known}
	for i := 0; i < len(questions); i += 2 {
		m.Question = append(m.Question, dns.Question{Name: questions[i].(string), Qtype: questions[i+1].(uint16), Qclass: class})
	}
	return m
}

// TestAnswer prints what a node answers to whom.
func TestAnswer(t *testing.T) {
	all := records("n1", example, ips("192.0.2.7", "fe80::1"))
	four := records("n1", example, ips("192.0.2.7"))
	old := dns.Copy(all[1])
	old.Header().Ttl = otherTTL/2 - 1
	const in = dns.ClassINET
	response := query(in, nil, service, dns.TypePTR)
	response.Response = true
	var out strings.Builder
	for _, c := range []struct {
		title   string
		query   *dns.Msg
		port    uint16
		records []dns.RR
	}{
		{"nodes?", query(in, nil, service, dns.TypePTR), Port, all},
		{"nodes? answer me alone", query(in|top, nil, service, dns.TypePTR), Port, all},
		{"nodes? from a plain resolver", query(in, nil, service, dns.TypePTR), 40000, four},
		{"nodes? I know n1", query(in, all[1:2], service, dns.TypePTR), Port, all},
		{"nodes? I knew n1 long ago", query(in, []dns.RR{old}, service, dns.TypePTR), Port, four},
		{"which services?", query(in, nil, services, dns.TypePTR), Port, all},
		{"address, in capitals", query(in, nil, "N1.LOCAL.", dns.TypeA), Port, all},
		{"both addresses, of which it has one", query(in, nil, "n1.local.", dns.TypeA, "n1.local.", dns.TypeAAAA), Port, four},
		{"what is n1? one for all, one for me", &dns.Msg{Question: []dns.Question{{Name: "n1.local.", Qtype: dns.TypeANY, Qclass: in}, {Name: instanceName("n1"), Qtype: dns.TypeSRV, Qclass: in | top}}}, Port, four},
		{"the text", query(dns.ClassANY, nil, instanceName("n1"), dns.TypeTXT), Port, all},
		{"a type it does not have", query(in, nil, "n1.local.", dns.TypeMX), Port, all},
		{"another machine", query(in, nil, "n2.local.", dns.TypeA, "_ipp._tcp.local.", dns.TypePTR), Port, all},
		{"another class", query(dns.ClassCHAOS, nil, "n1.local.", dns.TypeA), Port, all},
		{"no query", response, Port, all},
		{"another opcode", &dns.Msg{MsgHdr: dns.MsgHdr{Opcode: dns.OpcodeUpdate}, Question: response.Question}, Port, all},
		{"nothing", &dns.Msg{}, Port, all},
	} {
		c.query.Id = 7
		toAll, alone := answer(c.query, c.port, c.records)
		fmt.Fprintf(&out, "%s\n%s%s", c.title, showMessage("for all", toAll), showMessage("alone", alone))
	}
	fmt.Fprintf(&out, "\nprobe\n%s\ngoodbye\n%s", showMessage("", probe(four)), showMessage("", goodbye(four)))
	golden.Compare(t, "answers.txt", out.String())
}

// showMessage prints a message after it went over the network.
func showMessage(whom string, m *dns.Msg) string {
	if m == nil {
		return ""
	}
	raw, err := m.Pack()
	if err != nil {
		return "    " + err.Error() + "\n"
	}
	if err := m.Unpack(raw); err != nil {
		return "    " + err.Error() + "\n"
	}
	var b strings.Builder
	if whom != "" {
		fmt.Fprintf(&b, "    %s, id %d:\n", whom, m.Id)
	}
	for _, q := range m.Question {
		class := "IN"
		if q.Qclass&top != 0 {
			class += " alone"
		}
		fmt.Fprintf(&b, "      ? %s %s %s\n", q.Name, class, dns.TypeToString[q.Qtype])
	}
	for mark, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			class := "IN"
			if isOwn(rr) {
				class += " own"
			}
			rr = dns.Copy(rr)
			rr.Header().Class = dns.ClassINET
			f := strings.Fields(rr.String())
			fmt.Fprintf(&b, "      %s %s %s %s %s\n", []string{"=", "!", "+"}[mark], f[0], f[1], class, strings.Join(f[3:], " "))
		}
	}
	return b.String()
}

// TestConflicts tells whose a name is.
func TestConflicts(t *testing.T) {
	mine := func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.7") }
	own := records("n1", example, ips("192.0.2.7"))
	says := func(all []dns.RR) *dns.Msg { return announcement(all) }
	other := example
	other.Key = "000000000000"
	elsewhere := records("n1", example, ips("198.51.100.7"))
	moved := example
	moved.Port = 443
	for name, c := range map[string]struct {
		m    *dns.Msg
		want bool
	}{
		"ourselves":                    {says(own), false},
		"ourselves on another link":    {says(elsewhere[4:5]), false},
		"another machine":              {says(records("n2", example, ips("192.0.2.8"))), false},
		"another address":              {says(records("n1", example, ips("192.0.2.8"))[4:5]), true},
		"another address, in capitals": {says(records("N1", example, ips("192.0.2.8"))[4:5]), true},
		"another text":                 {says(records("n1", other, ips("192.0.2.7"))[3:4]), true},
		"another port":                 {says(records("n1", moved, ips("192.0.2.7"))[2:3]), true},
		"its goodbye":                  {goodbye(records("n1", other, ips("192.0.2.8"))), false},
		"a question with an answer":    {query(dns.ClassINET, records("n1", other, ips("192.0.2.8")), "n1.local.", dns.TypeA), false},
	} {
		if got := conflicts(c.m, own, mine); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLoses has two machines try one name at the same time: exactly one gives way, and
// nobody to himself.
func TestLoses(t *testing.T) {
	sets := map[string][]dns.RR{
		"low":  records("n1", example, ips("192.0.2.7")),
		"high": records("n1", example, ips("192.0.2.8")),
		"more": records("n1", example, ips("192.0.2.7", "192.0.2.9")),
		"six":  records("n1", example, ips("2001:db8::1")),
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for n := range sets {
			if !yield(n) {
				return
			}
		}
	})
	for _, a := range names {
		for _, b := range names {
			ab, ba := loses(probe(sets[b]), sets[a]), loses(probe(sets[a]), sets[b])
			if a == b && (ab || ba) || a != b && ab == ba {
				t.Errorf("%s against %s: %v and %v", a, b, ab, ba)
			}
		}
	}
	if !loses(probe(sets["high"]), sets["low"]) {
		t.Error("the later data goes first")
	}
	if loses(probe(records("n2", example, ips("192.0.2.8"))), sets["low"]) || loses(announcement(sets["high"]), sets["low"]) {
		t.Error("that is no probe of our name")
	}
}

// TestRecent says one thing once a second, and never more than it can remember.
func TestRecent(t *testing.T) {
	r := make(recent)
	for _, c := range []struct {
		what string
		at   time.Duration
		want bool
	}{{"a", 0, true}, {"a", 999 * time.Millisecond, false}, {"b", 999 * time.Millisecond, true}, {"a", time.Second, true}} {
		if got := r.pass(c.what, t0.Add(c.at), repeatGap); got != c.want {
			t.Errorf("%s after %s: %v", c.what, c.at, got)
		}
	}
	passed := 0
	for i := range 10 * maxRecent {
		if r.pass(fmt.Sprint(i), t0.Add(1500*time.Millisecond), repeatGap) {
			passed++
		}
	}
	if passed > maxRecent || len(r) > maxRecent {
		t.Errorf("%d things in a moment, %d remembered", passed, len(r))
	}
	if !r.pass("later", t0.Add(time.Minute), repeatGap) {
		t.Error("it never speaks again")
	}
}

// TestText: what one node says the other side reads, and what is no text is left out.
func TestText(t *testing.T) {
	got := parseText(example.text())
	got.Host, got.Port = example.Host, example.Port
	if got != example {
		t.Errorf("%+v, want %+v", got, example)
	}
	for _, c := range []struct{ line, want string }{
		{"FLEET=x", "x"}, {"fleet", ""}, {"fleet=", ""}, {"fleet=a=b", "a=b"}, {"fleet=\x1b[31m", ""}, {`fleet=\027`, ""},
		{"fleet=" + strings.Repeat("x", maxValue+1), ""}, {"fleets=x", ""},
	} {
		if got := parseText([]string{"v=1", c.line}).Fleet; got != c.want {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
	if got := parseText([]string{"fleet=a", "fleet=b"}).Fleet; got != "a" {
		t.Errorf("the first counts (RFC 6763, section 6.4): %q", got)
	}
	if long := (Announcement{Host: "n", Board: strings.Repeat("x", 300)}).text(); len(long) != 1 {
		t.Errorf("%v", long)
	}
}

// TestNodes reads nodes out of what comes from the network.
func TestNodes(t *testing.T) {
	m := announcement(records("n1", example, ips("fe80::1", "2001:db8::7", "192.0.2.7", "169.254.1.1")))
	got := nodes(m, "eth0")
	if len(got) != 1 || got[0].Announcement != example || fmt.Sprint(got[0].Addresses) != "[192.0.2.7 2001:db8::7 169.254.1.1 fe80::1%eth0]" {
		t.Fatalf("%+v", got)
	}
	for name, m := range map[string]*dns.Msg{
		"a query":            query(dns.ClassINET, m.Answer, service, dns.TypePTR),
		"a goodbye":          goodbye(m.Answer),
		"no address":         announcement(records("n1", example, nil)),
		"a loopback address": announcement(records("n1", example, ips("127.0.0.1", "::", "224.0.0.1"))),
		"an odd name":        announcement(records(`n\0271`, example, ips("192.0.2.7"))),
	} {
		if got := nodes(m, "eth0"); len(got) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// FuzzMessages has a node and an operator's computer hear anything.
func FuzzMessages(f *testing.F) {
	own := records("n1", example, ips("192.0.2.7", "fe80::1"))
	for _, m := range []*dns.Msg{
		query(dns.ClassINET, own[:2], service, dns.TypePTR), query(dns.ClassINET|top, nil, "n1.local.", dns.TypeANY),
		probe(own), announcement(own), goodbye(own), announcement(records("n1", example, ips("192.0.2.8"))),
	} {
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, uint16(Port))
		f.Add(raw, uint16(40000))
	}
	f.Fuzz(func(t *testing.T, raw []byte, port uint16) {
		m := unpack(raw)
		if len(raw) > maxMessage || m == nil {
			return
		}
		if len(m.Question) > maxQuestions || len(m.Answer)+len(m.Ns)+len(m.Extra) > maxRecords {
			t.Fatalf("%d questions, %d, %d and %d records", len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra))
		}
		before := showMessage("own", announcement(own))
		conflicts(m, own, func(netip.Addr) bool { return false })
		loses(m, own)
		twin(m, "eth0", example.Key, func(netip.Addr) bool { return false })
		toAll, alone := answer(m, port, own)
		for _, reply := range []*dns.Msg{toAll, alone} {
			if reply == nil {
				continue
			}
			packed, err := reply.Pack()
			if err != nil {
				t.Fatalf("an answer that cannot be sent: %v", err)
			}
			if len(packed) > 2048+len(raw) {
				t.Fatalf("an answer of %d bytes to %d", len(packed), len(raw))
			}
		}
		for _, found := range nodes(m, "eth0") {
			if !isLabel(found.Host) || len(found.Addresses) == 0 || len(found.Addresses) > maxAddresses {
				t.Fatalf("%+v", found)
			}
			for _, text := range found.text() {
				if !isPlain(text) {
					t.Fatalf("%q", text)
				}
			}
		}
		if showMessage("own", announcement(own)) != before {
			t.Fatal("what the node says has changed")
		}
	})
}
