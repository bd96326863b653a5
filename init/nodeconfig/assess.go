package nodeconfig

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Assess says when a boot counts as good. What every node asks of itself is not here:
// the agent and containerd answer, STATE is on the disk, a link is up if one was, and
// the containers are well that were.
//
// A release on trial that is not good in time is left for the old one. On a proven slot
// a bad boot is an alarm, and the node goes on; the third such boot in a row tries the
// other slot, if that was proven once. Containers and the checks below are an alarm there
// too, and never a reason to try the other slot.
type Assess struct {
	// For is how long all must be well without a break. 0 to 1 hour. Default: 20s.
	For time.Duration `yaml:"for,omitempty"`

	// Timeout is how long after the start of the services the boot has to be good. 10
	// seconds to 24 hours, and more than for. Default: 10m.
	Timeout time.Duration `yaml:"timeout,omitempty"`

	// Containers says whether those that were well at the last good boot must be well
	// again. Default: before.
	Containers AssessContainers `yaml:"containers,omitempty"`

	// Peers are other machines, each host:port. If one of them could be reached at the
	// last good boot and none can from a release on trial, the old release comes back;
	// once for each release, for the network may be what broke. Default: none. At most 16.
	Peers []string `yaml:"peers,omitempty,flow"`

	// Checks must pass as well. Default: none. At most 32.
	Checks []Check `yaml:"checks,omitempty"`
}

// The defaults of [Assess].
const (
	DefaultAssessFor     = 20 * time.Second
	DefaultAssessTimeout = 10 * time.Minute
)

// AssessContainers says what containers have to do with the boot assessment.
type AssessContainers string

const (
	// AsBefore wants those well that were so at the last good boot and are still wanted.
	AsBefore AssessContainers = "before"
	// Ignore leaves them out.
	Ignore AssessContainers = "ignore"
)

// Check is one thing that must work: an answer over HTTP, a TCP connection, or a
// command in a container that ends with 0. Each may take 10 seconds, and is tried
// again and again until it passes.
type Check struct {
	// HTTP is a URL whose answer has a status from 200 to 399, redirects not followed.
	// The certificate of an https URL is not checked: a clock may be wrong at boot.
	HTTP string `yaml:"http,omitempty"`
	// TCP is a host:port that takes a connection.
	TCP string `yaml:"tcp,omitempty"`
	// Container is the name of the one that Command runs in, as kogge ps shows it.
	Container string   `yaml:"container,omitempty"`
	Command   []string `yaml:"command,omitempty,flow"`
}

// String names the check, without what may be secret: a query, arguments.
func (c Check) String() string {
	switch {
	case c.HTTP != "":
		place, _, _ := strings.Cut(c.HTTP, "?")
		return "http " + place
	case c.TCP != "":
		return "tcp " + c.TCP
	case len(c.Command) > 0:
		return "command " + c.Command[0] + " in " + c.Container
	}
	return "no check"
}

const (
	maxChecks  = 32
	maxPeers   = 16
	maxCommand = 64
	maxWord    = 1024
)

// Assessment is Assess with its defaults filled in.
func (c Config) Assessment() Assess {
	a := c.Assess
	if a.For == 0 {
		a.For = DefaultAssessFor
	}
	if a.Timeout == 0 {
		a.Timeout = DefaultAssessTimeout
	}
	if a.Containers == "" {
		a.Containers = AsBefore
	}
	return a
}

func (d *decoder) assess(n *yaml.Node) (a Assess) {
	before := d.count()
	d.mapping(n, "assess", []key{
		{"for", func(v *yaml.Node) { a.For = d.duration(v, time.Second, time.Hour) }},
		{"timeout", func(v *yaml.Node) { a.Timeout = d.duration(v, 10*time.Second, 24*time.Hour) }},
		{"containers", func(v *yaml.Node) { a.Containers = AssessContainers(d.choice(v, string(AsBefore), string(Ignore))) }},
		{"peers", func(v *yaml.Node) {
			d.list(v, "peers", maxPeers, func(v *yaml.Node) {
				s, ok := d.hostPort(v)
				if ok && slices.Contains(a.Peers, s) {
					d.report(v, "%s is already in the list", s)
				}
				a.Peers = append(a.Peers, s)
			})
		}},
		{"checks", func(v *yaml.Node) {
			d.list(v, "checks", maxChecks, func(v *yaml.Node) { a.Checks = append(a.Checks, d.check(v)) })
		}},
	})
	full := Config{Assess: a}.Assessment()
	if d.count() == before && full.For >= full.Timeout {
		at := d.find(n, "timeout")
		if at == nil {
			at = d.find(n, "for")
		}
		d.report(at, "all must be well for %s, and the boot must be good within %s: make timeout longer than for", full.For, full.Timeout)
	}
	return a
}

func (d *decoder) check(n *yaml.Node) (c Check) {
	before := d.count()
	d.mapping(n, "check", []key{
		{"http", func(v *yaml.Node) { c.HTTP = d.httpURL(v) }},
		{"tcp", func(v *yaml.Node) { c.TCP, _ = d.hostPort(v) }},
		{"container", func(v *yaml.Node) {
			if c.Container = d.containerName(v); c.Container == "*" {
				d.report(v, "a command runs in one container: give its name")
			}
		}},
		{"command", func(v *yaml.Node) {
			d.list(v, "command", maxCommand, func(v *yaml.Node) {
				s, ok := d.text1(v, "a word of a command")
				if ok && (len(s) > maxWord || strings.ContainsRune(s, 0)) {
					d.report(v, "a word of a command has at most %d bytes, and no NUL", maxWord)
				}
				c.Command = append(c.Command, s)
			})
		}},
	})
	if d.count() > before {
		return c
	}
	kinds := 0
	for _, is := range []bool{c.HTTP != "", c.TCP != "", c.Container != "" || len(c.Command) > 0} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		d.report(n, `expected one of "http: URL", "tcp: host:port", or "container" with "command"`)
	case c.Container == "" && len(c.Command) > 0:
		d.report(n, `this check needs "container", the one to run its command in`)
	case c.Container != "" && len(c.Command) == 0:
		d.report(n, `this check needs "command", a list of words`)
	case len(c.Command) > 0 && c.Command[0] == "":
		d.report(d.find(n, "command"), "the first word of a command is its program, and here it is empty")
	}
	return c
}

// duration returns a time between low and high, in whole milliseconds.
func (d *decoder) duration(n *yaml.Node, low, high time.Duration) time.Duration {
	v := resolve(n)
	t, err := time.ParseDuration(v.Value)
	switch {
	case v.Kind != yaml.ScalarNode || err != nil:
		d.report(n, "expected a time with its unit, like 30s or 5m, got %s", describe(v))
	case t < low || t > high:
		d.report(n, "expected a time from %s to %s, got %s", low, high, v.Value)
	default:
		return t.Round(time.Millisecond)
	}
	return 0
}

// hostPort returns a name or address with a port.
func (d *decoder) hostPort(n *yaml.Node) (string, bool) {
	s, ok := d.text1(n, "a host with its port")
	if !ok {
		return "", false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		d.report(n, "%q is not a host:port, like db.example.net:5432 or [2001:db8::7]:443", s)
		return "", false
	}
	if problem := hostProblem(host); problem != "" {
		d.report(n, "host %q %s", host, problem)
		return "", false
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		d.report(n, "port %q: expected a number from 1 to 65535", port)
		return "", false
	}
	return s, true
}

// hostProblem says what keeps s from being the name or address of a machine, or "".
// The node's own addresses are fine here.
func hostProblem(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		switch {
		case a.IsUnspecified():
			return "is not a host address"
		case a.IsMulticast():
			return "is a multicast address"
		}
		return ""
	}
	return domain(s)
}

func (d *decoder) httpURL(n *yaml.Node) string {
	s, ok := d.text1(n, "a URL")
	if !ok {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(s) > maxWord:
		d.report(n, "%q is not a URL, like http://127.0.0.1:8080/health", s)
	case u.User != nil:
		d.report(n, "secrets do not belong in node.yaml: this URL has a user")
	case u.Fragment != "":
		d.report(n, "a server never sees what stands behind the #: leave it out")
	case hostProblem(u.Hostname()) != "":
		d.report(n, "host %q %s", u.Hostname(), hostProblem(u.Hostname()))
	default:
		return s
	}
	return ""
}
