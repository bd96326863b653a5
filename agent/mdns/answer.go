package mdns

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// answer says what a node with these records answers to a query: to everybody on the
// link, and to the asker alone; nil: nothing. port is that of the asker: who asks from
// another than [Port] is a plain resolver, and gets what such a one understands.
func answer(q *dns.Msg, port uint16, records []dns.RR) (all, alone *dns.Msg) {
	if q.Response || q.Opcode != dns.OpcodeQuery || q.Rcode != dns.RcodeSuccess {
		return nil, nil
	}
	legacy := port != Port
	var toAll, toOne []dns.RR
	for _, question := range q.Question {
		if class := question.Qclass &^ top; class != dns.ClassINET && class != dns.ClassANY {
			continue
		}
		for _, rr := range matches(question, records) {
			switch {
			case !legacy && known(rr, q.Answer):
			case legacy || question.Qclass&top != 0:
				toOne = add(toOne, rr)
			default:
				toAll = add(toAll, rr)
			}
		}
	}
	all, alone = message(toAll, records), message(toOne, records)
	if alone != nil && legacy {
		alone = plain(alone, q)
	}
	return all, alone
}

// matches are the records that answer a question; of a name that is ours alone and has
// none, the record that says so.
func matches(question dns.Question, records []dns.RR) []dns.RR {
	var found, denied []dns.RR
	for _, rr := range records {
		switch h := rr.Header(); {
		case !sameName(h.Name, question.Name):
		case h.Rrtype == question.Qtype, question.Qtype == dns.TypeANY && h.Rrtype != dns.TypeNSEC:
			found = append(found, rr)
		case h.Rrtype == dns.TypeNSEC:
			denied = append(denied, rr)
		}
	}
	if found == nil {
		return denied
	}
	return found
}

// known says whether the asker has rr, and for long enough (section 7.1).
func known(rr dns.RR, answers []dns.RR) bool {
	return slices.ContainsFunc(answers, func(k dns.RR) bool {
		return k.Header().Ttl >= rr.Header().Ttl/2 && sameData(rr, k)
	})
}

// add appends what is not there yet.
func add(all []dns.RR, rr dns.RR) []dns.RR {
	if slices.Contains(all, rr) {
		return all
	}
	return append(all, rr)
}

// message is a response with these answers, and beside them what the asker would ask
// for next (RFC 6763, section 12).
func message(answers, records []dns.RR) *dns.Msg {
	if len(answers) == 0 {
		return nil
	}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Answer: answers, Compress: true}
	for _, rr := range records {
		if slices.ContainsFunc(answers, func(a dns.RR) bool { return leads(a, rr) }) && !slices.Contains(answers, rr) {
			m.Extra = add(m.Extra, rr)
		}
	}
	return m
}

// leads says whether who asked for a will want b.
func leads(a, b dns.RR) bool {
	kind := b.Header().Rrtype
	address := kind == dns.TypeA || kind == dns.TypeAAAA
	switch a := a.(type) {
	case *dns.PTR:
		return sameName(a.Ptr, b.Header().Name) && kind != dns.TypeNSEC || sameName(a.Hdr.Name, service) && address
	case *dns.SRV:
		return sameName(a.Target, b.Header().Name) && address
	case *dns.A, *dns.AAAA:
		return sameName(a.Header().Name, b.Header().Name) && (address || kind == dns.TypeNSEC)
	}
	return false
}

// plain makes a response one of plain DNS, to the query q (section 6.7).
func plain(m, q *dns.Msg) *dns.Msg {
	m.Id, m.Question = q.Id, q.Question
	for _, section := range []*[]dns.RR{&m.Answer, &m.Extra} {
		for i, rr := range *section {
			rr = dns.Copy(rr)
			rr.Header().Class &^= top
			rr.Header().Ttl = min(rr.Header().Ttl, legacyTTL)
			(*section)[i] = rr
		}
	}
	return m
}

// probe asks whether somebody has the names that are to be ours, and shows what we
// would say (section 8.1).
func probe(records []dns.RR) *dns.Msg {
	m := &dns.Msg{Compress: true}
	for _, rr := range records {
		if !isOwn(rr) || rr.Header().Rrtype == dns.TypeNSEC {
			continue
		}
		name := rr.Header().Name
		if !slices.ContainsFunc(m.Question, func(q dns.Question) bool { return q.Name == name }) {
			m.Question = append(m.Question, dns.Question{Name: name, Qtype: dns.TypeANY, Qclass: dns.ClassINET | top})
		}
		shown := dns.Copy(rr)
		shown.Header().Class &^= top
		m.Ns = append(m.Ns, shown)
	}
	return m
}

// announcement says everything, unasked; goodbye says that it holds no more.
func announcement(records []dns.RR) *dns.Msg {
	return &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Answer: records, Compress: true}
}

func goodbye(records []dns.RR) *dns.Msg {
	m := announcement(nil)
	for _, rr := range records {
		if rr.Header().Name != services { // other machines have the service too
			rr = dns.Copy(rr)
			rr.Header().Ttl = 0
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// conflicts says whether a response gives one of our own names to another machine.
// mine says of an address whether it is this machine's, on whichever link: a repeater
// may have carried it here.
func conflicts(m *dns.Msg, records []dns.RR, mine func(netip.Addr) bool) bool {
	if !m.Response {
		return false
	}
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		h := rr.Header()
		if h.Ttl == 0 || h.Class&^top != dns.ClassINET || h.Rrtype == dns.TypeNSEC || !owned(h.Name, records) {
			continue
		}
		if ip, ok := address(rr); ok && mine(ip) {
			continue
		}
		if !slices.ContainsFunc(records, func(own dns.RR) bool { return sameData(own, rr) }) {
			return true
		}
	}
	return false
}

// owned says whether name is to be ours alone.
func owned(name string, records []dns.RR) bool {
	return slices.ContainsFunc(records, func(own dns.RR) bool { return isOwn(own) && sameName(own.Header().Name, name) })
}

// address is that of an address record.
func address(rr dns.RR) (netip.Addr, bool) {
	var ip []byte
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// loses says whether a query is the probe of a machine that tries one of our names at
// the same time, and goes before us: its records are the later ones (section 8.2).
func loses(m *dns.Msg, records []dns.RR) bool {
	if m.Response {
		return false
	}
	for _, question := range m.Question {
		if !owned(question.Name, records) {
			continue
		}
		theirs, ours := claimed(question.Name, m.Ns), claimed(question.Name, records)
		if len(theirs) > 0 && slices.CompareFunc(theirs, ours, bytes.Compare) > 0 {
			return true
		}
	}
	return false
}

// claimed are the records of a name as they are compared: class, type, data.
func claimed(name string, records []dns.RR) [][]byte {
	var all [][]byte
	for _, rr := range records {
		h := rr.Header()
		if !sameName(h.Name, name) || h.Rrtype == dns.TypeNSEC {
			continue
		}
		class := h.Class &^ top
		all = append(all, append([]byte{byte(class >> 8), byte(class), byte(h.Rrtype >> 8), byte(h.Rrtype)}, data(rr)...))
	}
	slices.SortFunc(all, bytes.Compare)
	return all
}

// recent remembers what was said a moment ago, so that nobody can have a node talk all
// the time. It is bounded: full, it lets nothing new pass.
type recent map[string]time.Time

const maxRecent = 128

// pass says whether what may be said now, if it was not within gap.
func (r recent) pass(what string, now time.Time, gap time.Duration) bool {
	if last, ok := r[what]; ok && now.Sub(last) < gap {
		return false
	}
	if len(r) >= maxRecent {
		for key, last := range r {
			if now.Sub(last) >= repeatGap {
				delete(r, key)
			}
		}
		if len(r) >= maxRecent {
			return false
		}
	}
	r[what] = now
	return true
}

// One record goes to all once a second (section 6), and as the answer to a probe four
// times; one question of one asker is answered once a second.
const (
	repeatGap = time.Second
	probeGap  = probePause
)
