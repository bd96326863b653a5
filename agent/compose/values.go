package compose

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
)

// text is a scalar with $$ made $. A variable is a problem.
func (p *parser) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.report(n, "expected text, got %s", describe(n))
		return ""
	}
	s, ok := dollars(n.Value)
	if !ok {
		p.report(n, "a node has no variables: write the value, or $$ for a dollar sign")
		return ""
	}
	return s
}

// dollars undoes Compose's escape, and says whether there was nothing but it.
func dollars(s string) (string, bool) {
	if strings.Contains(strings.ReplaceAll(s, "$$", ""), "$") {
		return "", false
	}
	return strings.ReplaceAll(s, "$$", "$"), true
}

func (p *parser) boolean(n *yaml.Node) bool {
	switch p.text(n) {
	case "true":
		return true
	case "false":
		return false
	}
	p.report(n, "expected true or false, got %s", describe(n))
	return false
}

func (p *parser) integer(n *yaml.Node, low, high int64) int64 {
	i, err := strconv.ParseInt(p.text(n), 10, 64)
	if err != nil || i < low || i > high {
		p.report(n, "expected a number from %d to %d, got %s", low, high, describe(n))
		return 0
	}
	return i
}

// bytes is a size such as 64m. One page is the least that the kernel counts.
func (p *parser) bytes(n *yaml.Node) int64 {
	var u types.UnitBytes
	if err := u.DecodeMapstructure(p.text(n)); err != nil || u < 4096 {
		p.report(n, "expected a size of at least 4k, such as 64m, got %s", describe(n))
		return 0
	}
	return int64(u)
}

func (p *parser) duration(n *yaml.Node, most time.Duration) time.Duration {
	var d types.Duration
	if err := d.DecodeMapstructure(p.text(n)); err != nil || d < 0 || time.Duration(d) > most {
		p.report(n, "expected a time of at most %s, such as 30s, got %s", most, describe(n))
		return 0
	}
	return time.Duration(d)
}

func (p *parser) memory(n *yaml.Node, c *workload.Container) {
	// Below this no program starts, and the message would be a riddle.
	const least = 4 << 20
	m := p.bytes(n)
	switch {
	case m == 0:
	case m < least:
		p.report(n, "memory limit %s: no container starts with less than 4m", n.Value)
	case c.Memory != 0 && c.Memory != m:
		p.report(n, "two different memory limits")
	default:
		c.Memory = m
	}
}

func (p *parser) cpus(n *yaml.Node, c *workload.Container) {
	var v types.NanoCPUs
	err := v.DecodeMapstructure(p.text(n))
	switch {
	case err != nil || !(v >= 0.01 && v <= 1024):
		p.report(n, "expected a number of CPUs, 0.01 or more, such as 0.5, got %s", describe(n))
	case c.CPUs != 0 && c.CPUs != float32(v):
		p.report(n, "two different limits on CPUs")
	default:
		c.CPUs = float32(v)
	}
}

func (p *parser) pids(n *yaml.Node, c *workload.Container) {
	v := p.integer(n, 1, 1<<22) // PID_MAX_LIMIT of the kernel
	if c.Pids != 0 && v != 0 && c.Pids != v {
		p.report(n, "two different limits on processes")
		return
	}
	c.Pids = v
}

// absolute is a folder inside the container.
func (p *parser) absolute(n *yaml.Node) string {
	s := p.text(n)
	if s != "" && (!path.IsAbs(s) || strings.ContainsRune(s, 0)) {
		p.report(n, "expected a path in the container that begins with /, got %s", describe(n))
		return ""
	}
	return path.Clean(s)
}

// target is a folder inside the container on which something can be mounted.
func (p *parser) target(n *yaml.Node, s string) string {
	s = path.Clean(s)
	switch {
	case !path.IsAbs(s) || s == "/":
		p.report(n, "expected a path in the container below / to mount on, got %q", s)
	case strings.ContainsRune(s, 0):
		p.report(n, "%q is not a path", s)
	case workload.Reserved(s):
		p.report(n, "nothing can be mounted on %s: the node fills it", s)
	default:
		return s
	}
	return ""
}

// command is a list of arguments, or a line that is split as a shell would. An empty one is
// not nil: it takes the image's away, and one that is null does not.
func (p *parser) command(n *yaml.Node, to *[]string) {
	if n.Tag == "!!null" {
		return
	}
	if n.Kind == yaml.SequenceNode {
		args := []string{}
		p.list(n, "command", func(item *yaml.Node) { args = append(args, p.text(item)) })
		*to = args
		return
	}
	c := types.ShellCommand{}
	s := p.text(n)
	if s == "" && n.Kind == yaml.ScalarNode {
		*to = c
		return
	}
	if err := c.DecodeMapstructure(s); err != nil || len(c) == 0 {
		p.report(n, "%s is not a command line", describe(n))
		return
	}
	*to = c
}

// list calls each for every item; a single scalar is a list of one.
func (p *parser) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	switch {
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			each(resolve(item))
		}
	case n.Kind == yaml.ScalarNode && n.Tag != "!!null" && (what == "tmpfs" || what == "test"):
		each(n)
	default:
		p.report(n, "%s: expected a list, got %s", what, describe(n))
	}
}

// mapping reads NAME=value as keys and values or as a list, by one of compose-go's
// types, which want what a plain YAML decoder gives.
func (p *parser) mapping(n *yaml.Node, what string, decode func(any) error) bool {
	before := p.reported()
	var plain any
	if n.Kind == yaml.SequenceNode {
		items := []any{}
		p.list(n, what, func(item *yaml.Node) { items = append(items, p.text(item)) })
		plain = items
	} else {
		values := make(map[string]any)
		p.pairs(n, what, func(k, v *yaml.Node) {
			if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
				values[k.Value] = nil
				return
			}
			values[k.Value] = p.text(v)
		})
		plain = values
	}
	if p.reported() > before {
		return false
	}
	if err := decode(plain); err != nil {
		p.report(n, "%s: %v", what, err)
		return false
	}
	return true
}
