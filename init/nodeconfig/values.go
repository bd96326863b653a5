package nodeconfig

import (
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// text1 returns the text of scalar n. YAML turns some unquoted words into numbers
// and truth values; those are refused with the quotes they need.
func (d *decoder) text1(n *yaml.Node, what string) (string, bool) {
	v := resolve(n)
	switch {
	case v.Kind == yaml.ScalarNode && v.Tag == "!!str":
		return v.Value, true
	case v.Kind == yaml.ScalarNode && slices.Contains([]string{"!!int", "!!float", "!!bool", "!!timestamp"}, v.Tag):
		d.report(n, "%s is text: put it in quotes, \"%s\"", what, v.Value)
	default:
		d.report(n, "expected text for %s, got %s", what, describe(v))
	}
	return "", false
}

// boolean returns true or false, or nil for what is neither. YAML 1.1's other
// words for them are refused: half of its readers take them for text.
func (d *decoder) boolean(n *yaml.Node) *bool {
	v := resolve(n)
	if v.Kind == yaml.ScalarNode && v.Tag == "!!bool" {
		yes := strings.EqualFold(v.Value, "true")
		return &yes
	}
	d.report(n, "expected true or false, got %s", describe(v))
	return nil
}

// number returns a whole number between low and high.
func (d *decoder) number(n *yaml.Node, low, high int64) int64 {
	v := resolve(n)
	if v.Kind != yaml.ScalarNode || v.Tag != "!!int" {
		d.report(n, "expected a whole number, got %s", describe(v))
		return 0
	}
	i, err := strconv.ParseInt(v.Value, 10, 64)
	if err != nil || i < low || i > high {
		d.report(n, "expected a number from %d to %d, got %s", low, high, v.Value)
		return 0
	}
	return i
}

// choice returns one of the given words.
func (d *decoder) choice(n *yaml.Node, words ...string) string {
	v := resolve(n)
	value := v.Value
	if v.Kind == yaml.ScalarNode && slices.Contains(words, value) {
		return value
	}
	list := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	if best := nearest(value, words); v.Kind == yaml.ScalarNode && best != "" {
		d.report(n, "expected %s, got %q: did you mean %q?", list, value, best)
		return ""
	}
	d.report(n, "expected %s, got %s", list, describe(v))
	return ""
}

func (d *decoder) hostname(n *yaml.Node) string {
	s, ok := d.text1(n, "a host name")
	if !ok {
		return ""
	}
	switch problem := label(s); {
	case strings.Contains(s, "."):
		d.report(n, "host name %q has a dot: it is one label, without a domain", s)
	case s != strings.ToLower(s):
		d.report(n, "host name %q: use lower-case letters, %q", s, strings.ToLower(s))
	case problem != "":
		d.report(n, "host name %q %s", s, problem)
	case s == "localhost":
		d.report(n, "host name %q means the local machine, on every machine: choose another", s)
	case strings.Trim(s, "0123456789") == "":
		d.report(n, "host name %q would be taken for an address: add a letter", s)
	default:
		return s
	}
	return ""
}

// domain returns a DNS name of one or more labels.
func (d *decoder) domain(n *yaml.Node) (string, bool) {
	s, ok := d.text1(n, "a domain")
	if !ok {
		return "", false
	}
	if problem := domain(s); problem != "" {
		d.report(n, "domain %q %s", s, problem)
		return "", false
	}
	return strings.ToLower(strings.TrimSuffix(s, ".")), true
}

// host returns a server's name or address.
func (d *decoder) host(n *yaml.Node) (string, bool) {
	s, ok := d.text1(n, "a server")
	if !ok {
		return "", false
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return s, d.server(n, a)
	}
	if strings.ContainsAny(s, ":/") {
		d.report(n, "server %q: give the name or address alone: NTP always uses port 123", s)
		return "", false
	}
	if problem := domain(s); problem != "" {
		d.report(n, "server %q %s", s, problem)
		return "", false
	}
	if last := s[strings.LastIndexByte(s, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		d.report(n, "server %q is neither a name nor a complete address", s)
		return "", false
	}
	return strings.ToLower(s), true
}

// match returns what chooses links: a word, a name, a pattern, or a MAC address in
// the kernel's writing.
func (d *decoder) match(n *yaml.Node) string {
	s, ok := d.text1(n, "match")
	if !ok {
		return ""
	}
	if strings.ContainsAny(s, ":-") && len(s) >= 17 {
		mac, err := net.ParseMAC(s)
		switch {
		case err != nil || len(mac) != 6:
			d.report(n, "%q is not a MAC address: expected six pairs of hex digits, like 52:54:00:12:34:56", s)
		case mac[0]&1 != 0:
			d.report(n, "%q is a multicast MAC address: no interface has one", s)
		default:
			return mac.String()
		}
		return ""
	}
	switch _, err := path.Match(s, "eth0"); {
	case s == "":
		d.report(n, "match is empty: expected wired, an interface name like eth0, or a MAC address")
	case err != nil:
		d.report(n, "%q is not a pattern: *, ? and [abc] are allowed, and a [ needs its ]", s)
	case len(s) > 15 && !strings.ContainsAny(s, "*?["):
		d.report(n, "interface name %q is longer than 15 characters", s)
	case len(s) > 64 || strings.ContainsAny(s, "/: \t\\") || !ascii(s):
		d.report(n, "%q is not an interface name", s)
	case s == "lo":
		d.report(n, "the loopback interface sets itself up")
	case OfContainers(s):
		d.report(n, "interface %q is one of the containers': the node makes them and gives them addresses by itself", s)
	default:
		return s
	}
	return ""
}

// address returns a static address with the length of its prefix.
func (d *decoder) address(n *yaml.Node) (netip.Prefix, bool) {
	s, ok := d.text1(n, "an address")
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil {
			d.report(n, "address %s lacks its prefix length: write it like %s/%d", s, s, map[bool]int{true: 24, false: 64}[a.Is4()])
		} else {
			d.report(n, "%q is not an address with prefix length, like 192.0.2.7/24 or 2001:db8::7/64", s)
		}
		return p, false
	}
	if !d.usable(n, p.Addr()) {
		return p, false
	}
	if a := p.Addr(); a.Is4() && p.Bits() < 31 {
		switch {
		case a == p.Masked().Addr():
			d.report(n, "%s is the address of the network itself, not of a host in it", s)
			return p, false
		case a == broadcast(p):
			d.report(n, "%s is the broadcast address of its network", s)
			return p, false
		}
	}
	return p, true
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

// prefix returns a network without host bits.
func (d *decoder) prefix(n *yaml.Node) netip.Prefix {
	s, ok := d.text1(n, "a network")
	if !ok {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		d.report(n, "%q is not a network, like 10.0.0.0/8 or 2001:db8::/32", s)
	case p.Addr().Is4In6():
		d.report(n, "%s is an IPv4 network written as IPv6", s)
	case p != p.Masked():
		d.report(n, "%s has bits set after its prefix: the network is %s", s, p.Masked())
	case p.Addr().IsMulticast():
		d.report(n, "%s is a multicast network", s)
	}
	return p
}

// addrs returns a list of addresses, none twice, each as one reads it.
func (d *decoder) addrs(n *yaml.Node, what string, most int, one func(*yaml.Node) (netip.Addr, bool)) []netip.Addr {
	var all []netip.Addr
	d.list(n, what, most, func(v *yaml.Node) {
		a, ok := one(v)
		if ok && slices.Contains(all, a) {
			d.report(v, "%s is already in the list", a)
		}
		if ok {
			all = append(all, a)
		}
	})
	return all
}

// addr returns an address on the links of the entry.
func (d *decoder) addr(n *yaml.Node) (netip.Addr, bool) {
	a, ok := d.parseAddr(n)
	return a, ok && d.usable(n, a)
}

// resolver returns the address of a resolver.
func (d *decoder) resolver(n *yaml.Node) (netip.Addr, bool) {
	a, ok := d.parseAddr(n)
	return a, ok && d.server(n, a)
}

func (d *decoder) parseAddr(n *yaml.Node) (netip.Addr, bool) {
	s, ok := d.text1(n, "an address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		if p, err := netip.ParsePrefix(s); err == nil {
			d.report(n, "%s has a prefix length: give the address alone, %s", s, p.Addr())
		} else {
			d.report(n, "%q is not an IP address", s)
		}
	}
	return a, err == nil
}

// server reports addresses that no server has. A link-local one may name its link.
func (d *decoder) server(n *yaml.Node, a netip.Addr) bool {
	zone := a.Zone()
	switch {
	case zone == "":
	case !a.Is6() || !a.IsLinkLocalUnicast():
		d.report(n, "%s is no link-local address: leave out %%%s", a, zone)
		return false
	case len(zone) > 15 || strings.ContainsAny(zone, "/:%\\") || !ascii(zone):
		d.report(n, "%s names an interface, and %q is not an interface name", a, zone)
		return false
	}
	return d.usable(n, a.WithZone(""))
}

// usable reports addresses that no machine on a network has.
func (d *decoder) usable(n *yaml.Node, a netip.Addr) bool {
	switch {
	case a.Zone() != "":
		d.report(n, "%s names an interface: leave out %%%s, the entry says which interface", a, a.Zone())
	case a.Is4In6():
		d.report(n, "%s is an IPv4 address written as IPv6: write %s", a, a.Unmap())
	case a.IsUnspecified():
		d.report(n, "%s is not a host address", a)
	case a.IsMulticast():
		d.report(n, "%s is a multicast address", a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		d.report(n, "%s is the broadcast address", a)
	case a.IsLoopback():
		d.report(n, "%s is the node's own loopback address", a)
	default:
		return true
	}
	return false
}

// label says what keeps s from being a DNS label (RFC 1123), or "".
func label(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 63:
		return "is longer than 63 characters"
	case s[0] == '-' || s[len(s)-1] == '-':
		return "starts or ends with a hyphen"
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
			return "has " + strconv.QuoteRune(r) + ": letters, digits and hyphens are allowed"
		}
	}
	return ""
}

// domain says what keeps s from being a DNS name, or "".
func domain(s string) string {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return "is longer than 253 characters"
	}
	for _, part := range strings.Split(s, ".") {
		if problem := label(part); problem != "" {
			if part == "" && s != "" {
				return "has two dots in a row, or one at its start"
			}
			return problem
		}
	}
	return ""
}

// labelKey says what keeps s from being the key of a label, or "".
func labelKey(s string) string {
	if s == "" || len(s) > 63 {
		return "needs 1 to 63 characters"
	}
	for i, r := range s {
		alnum := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !alnum && !strings.ContainsRune("._-/", r) {
			return "has " + strconv.QuoteRune(r) + ": lower-case letters, digits, '.', '_', '-' and '/' are allowed"
		}
		if !alnum && (i == 0 || i == len(s)-1) {
			return "starts or ends with " + strconv.QuoteRune(r)
		}
	}
	return ""
}

// labelValue says what keeps s from being the value of a label, or "".
func labelValue(s string) string {
	if utf8.RuneCountInString(s) > 63 {
		return "is longer than 63 characters"
	}
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return "has " + strconv.QuoteRune(r) + ", which is not printable"
		}
	}
	return ""
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// nearest returns the word that s is most likely a misspelling of, or "".
func nearest(s string, words []string) string {
	best, least := "", 3
	for _, w := range words {
		edits := distance(strings.ToLower(s), strings.ToLower(w))
		// Two slips in a word of three letters is another word.
		if edits < least && edits*2 < len(w) {
			best, least = w, edits
		}
	}
	return best
}

// distance counts the letters to insert, remove or replace between a and b. Words
// of more than 32 letters are no keys of ours.
func distance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 32
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
