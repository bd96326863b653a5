// Package compose turns a Compose file into the containers of one node.
//
// In comes its text; out come complete [workload.Container]s and warnings, or
// [nodeconfig.Problems] with line and caret. It is strict: [Keys] says of every key
// of the specification whether it is done, warned of or refused (kogge help
// compose-keys is that table for people), and nothing is ignored, x- keys excepted,
// which are nobody's by definition. Values are read by compose-go's own types, so that sizes, durations,
// ports and commands mean here what they mean everywhere; its loader is left out, as
// a JSON schema validator would cost each start of the agent more than all other
// packages together and knows no lines. On an operator's machine, which has time and
// files, package project uses it.
//
// It is pure: it opens no other file, expands no variable (a node has no
// environment that somebody could know) and starts nothing.
//
// Source: github.com/compose-spec/compose-spec/blob/main/spec.md.
package compose

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// Parse reads the Compose file text of the project ("": node.yaml's own workloads),
// called file in messages, and returns its containers by name, and warnings, these also
// with an error. The error is a *[nodeconfig.Problems]. Empty text means no containers.
func Parse(project, file string, text []byte) ([]workload.Container, []nodeconfig.Problem, error) {
	p, doc, err := load(project, file, text)
	if err != nil {
		return nil, nil, err
	}
	return p.parse(doc)
}

// ParseTaken is Parse for a text that the node has taken before. An earlier release may
// have let it publish what is the node's own port: that is a warning then, and the port
// is left out, for a node that runs nothing any more after an update is no better.
func ParseTaken(project, file string, text []byte) ([]workload.Container, []nodeconfig.Problem, error) {
	p, doc, err := load(project, file, text)
	if err != nil {
		return nil, nil, err
	}
	p.taken = true
	return p.parse(doc)
}

// load makes a parser for text, and the document to parse. The error is a
// *[nodeconfig.Problems].
func load(project, file string, text []byte) (*parser, *yaml.Node, error) {
	var doc yaml.Node
	lines := strings.Split(string(text), "\n")
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, &nodeconfig.Problems{List: []nodeconfig.Problem{Syntax(file, lines, err)}}
	}
	p := newParser(project, func(n *yaml.Node) Origin { return Origin{File: file, Lines: lines, Node: n} })
	p.most = 10 // the first ones tell, and a node's console is small
	return p, &doc, nil
}

// yamlLine is how the YAML parser names a line.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// Syntax is what the YAML parser says of a file, with the line.
func Syntax(file string, lines []string, err error) nodeconfig.Problem {
	at, text := &yaml.Node{}, err.Error()
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		at.Line, _ = strconv.Atoi(found[1])
		at.Column = 1
		if at.Line > 0 && at.Line <= len(lines) {
			line := lines[at.Line-1]
			at.Column += len(line) - len(strings.TrimLeft(line, " "))
		}
		text = text[len(found[0]):]
	}
	return Origin{File: file, Lines: lines, Node: at}.Problem("%s", nodeconfig.Prose(text))
}

// Origin is where a node was written.
type Origin struct {
	File  string
	Lines []string   // of that file
	Node  *yaml.Node // as it stands there; its line is 0 for what stands nowhere
}

// Problem is something that is wrong there.
func (o Origin) Problem(format string, args ...any) nodeconfig.Problem {
	at, source := o.Node, ""
	if at.Line > 0 && at.Line <= len(o.Lines) {
		source = strings.TrimRight(o.Lines[at.Line-1], "\r")
	}
	width := 1
	if at.Kind == yaml.ScalarNode && !strings.ContainsAny(at.Value, "\n") {
		width = max(1, len([]rune(at.Value)))
	}
	return nodeconfig.NewProblem(nodeconfig.Problem{
		File: o.File, Line: at.Line, Column: at.Column, Width: width, Source: source,
	}, o.Lines, at.Value, format, args...)
}

// ParseNode is Parse for a document that somebody else put together; origin says of
// each of its nodes where to show what is wrong with it.
func ParseNode(project string, doc *yaml.Node, origin func(*yaml.Node) Origin) ([]workload.Container, []nodeconfig.Problem, error) {
	p := newParser(project, origin)
	p.advise = true
	return p.parse(doc)
}

// Check says what is wrong with the keys of a file that does not stand alone yet:
// what package project resolves is passed over, and what is missing or is declared
// elsewhere may still come. The error is a *[nodeconfig.Problems], or nil.
func Check(doc *yaml.Node, origin func(*yaml.Node) Origin) error {
	p := newParser("", origin)
	p.part = true
	_, _, err := p.parse(doc)
	return err
}

func newParser(project string, origin func(*yaml.Node) Origin) *parser {
	return &parser{
		project: project, origin: origin, most: maxProblems, ports: make(map[string]string), volumes: make(map[string]string),
		declaredNetworks: make(map[string]workload.Attachment), onNetwork: make(map[string]int), configs: make(map[string]stored), secrets: make(map[string]stored),
	}
}

func (p *parser) parse(doc *yaml.Node) ([]workload.Container, []nodeconfig.Problem, error) {
	var all []workload.Container
	if len(doc.Content) > 0 {
		all = p.top(doc.Content[0])
	}
	slices.SortStableFunc(p.warnings, inOrder)
	if len(p.problems.List) > 0 {
		slices.SortStableFunc(p.problems.List, inOrder)
		// What several services extend is wrong once.
		p.problems.List = slices.CompactFunc(p.problems.List, nodeconfig.Problem.Same)
		return nil, p.warnings, &p.problems
	}
	p.qualify(all)
	slices.SortFunc(all, func(a, b workload.Container) int { return strings.Compare(a.ID, b.ID) })
	return all, p.warnings, nil
}

// qualify gives containers the names that they have on the node.
func (p *parser) qualify(all []workload.Container) {
	for i := range all {
		all[i].ID = workload.Join(p.project, all[i].ID)
		for j := range all[i].After {
			all[i].After[j].ID = workload.Join(p.project, all[i].After[j].ID)
		}
	}
}

func inOrder(a, b nodeconfig.Problem) int {
	return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column)
}

// maxProblems is how many problems are kept.
const maxProblems = 100

// maxWarnings is how many warnings are kept.
const maxWarnings = 1000

type parser struct {
	project  string
	origin   func(*yaml.Node) Origin
	most     int  // problems that are kept
	part     bool // the file does not stand alone
	advise   bool // there is no node that knows what it allows
	taken    bool // a node has taken it before
	problems nodeconfig.Problems
	warnings []nodeconfig.Problem
	at       position
	volumes  map[string]string // declared at the top, with the folder's name
	// declaredNetworks are those of the top level.
	declaredNetworks map[string]workload.Attachment
	onNetwork        map[string]int // services

	configs map[string]stored
	secrets map[string]stored
	ports   map[string]string // who publishes a port
	merges  int
}

// position is where the parser stands: path as in [Key], shown with the file's names.
type position struct{ path, shown string }

func (a position) below(key string) position { return a.named(key, key) }

func (a position) named(pattern, key string) position {
	if a.path == "" {
		return position{pattern, key}
	}
	return position{a.path + "." + pattern, a.shown + "." + key}
}

func (p *parser) report(n *yaml.Node, format string, args ...any) {
	if len(p.problems.List) == p.most {
		p.problems.More++
		return
	}
	p.problems.List = append(p.problems.List, p.problem(n, format, args...))
}

// reported is how many problems there are so far.
func (p *parser) reported() int { return len(p.problems.List) + p.problems.More }

func (p *parser) warn(n *yaml.Node, format string, args ...any) {
	if len(p.warnings) < maxWarnings {
		p.warnings = append(p.warnings, p.problem(n, format, args...))
	}
}

func (p *parser) problem(n *yaml.Node, format string, args ...any) nodeconfig.Problem {
	return p.origin(n).Problem(format, args...)
}

// fields reads the mapping n, which stands at p.at: the table of keys says what
// becomes of each; read has what is to be read of those that are done.
func (p *parser) fields(n *yaml.Node, read map[string]func(*yaml.Node)) {
	at := p.at
	defer func() { p.at = at }()
	if n.Tag == "!!null" && strings.Count(at.path, ".") > 1 {
		return // "deploy:" and nothing below it; a service says something
	}
	p.pairs(n, cmp.Or(at.shown, "a Compose file"), func(k, v *yaml.Node) {
		p.at = at.below(k.Value)
		row, known := byPath()[p.at.path]
		switch {
		case extension(k.Value), p.part && (row.Verdict == Resolved || v.Tag == "!reset"):
		case !known && at.shown == "":
			p.report(k, "unknown key %q%s", k.Value, meant("", k.Value))
		case !known:
			p.report(k, "%s: unknown key %q%s", at.shown, k.Value, meant(at.path, k.Value))
		case row.Verdict == Warned && off(v):
		case row.Verdict == Warned:
			p.warn(k, "%s means nothing on a node: %s", p.at.shown, row.Note)
			if read[k.Value] != nil {
				read[k.Value](v)
			}
		case row.Verdict != Done && off(v):
		case row.Verdict != Done:
			p.report(k, "%s: not supported on a node: %s", p.at.shown, row.Note)
		case read[k.Value] != nil:
			read[k.Value](v)
		}
	})
}

// off says whether v asks for nothing: what a node does not do, it may be told not
// to do.
func off(v *yaml.Node) bool {
	return v.Kind == yaml.ScalarNode && (v.Tag == "!!null" || v.Tag == "!!bool" && v.Value == "false") ||
		v.Kind != yaml.ScalarNode && v.Kind != yaml.AliasNode && len(v.Content) == 0
}

// names calls each for every entry of the mapping n, which stands at p.at and has
// names of the file's own as keys.
func (p *parser) names(n *yaml.Node, each func(name, v *yaml.Node)) {
	at := p.at
	defer func() { p.at = at }()
	p.pairs(n, at.shown, func(k, v *yaml.Node) {
		p.at = at.named("*", k.Value) // x-name is a name as well
		each(k, v)
	})
}

// pairs calls each for every key of a mapping, merges (<<) included, and reports
// what is no mapping and keys given twice. what names n in messages.
func (p *parser) pairs(n *yaml.Node, what string, each func(k, v *yaml.Node)) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		p.report(n, "%s: expected keys and values, got %s", what, describe(n))
		return
	}
	own := make(map[string]bool)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0 {
			merged = append(merged, v)
			continue
		}
		if k.Kind != yaml.ScalarNode {
			p.report(k, "expected a plain word as a key")
			continue
		}
		if own[k.Value] {
			p.report(k, "key %q is given twice", k.Value)
			continue
		}
		own[k.Value] = true
		each(k, resolve(v))
	}
	for _, m := range merged {
		p.merge(resolve(m), own, each)
	}
}

// maxMerges is how many merges a file can have, those inside of merges counted
// each time: they can multiply.
const maxMerges = 1000

// merge adds the keys of m, a mapping or a list of them, that are not own yet.
func (p *parser) merge(m *yaml.Node, own map[string]bool, each func(k, v *yaml.Node)) {
	p.merges++
	switch {
	case p.merges > maxMerges:
		if p.merges == maxMerges+1 {
			p.report(m, "more than %d merges", maxMerges)
		}
	case m.Kind == yaml.SequenceNode:
		for _, child := range m.Content {
			p.merge(resolve(child), own, each)
		}
	case m.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(m.Content); i += 2 {
			k, v := m.Content[i], resolve(m.Content[i+1])
			switch {
			case k.Value == "<<":
				p.merge(v, own, each)
			case !own[k.Value]:
				own[k.Value] = true
				each(k, v)
			}
		}
	default:
		p.report(m, "only groups of keys and values can be merged")
	}
}

func resolve(n *yaml.Node) *yaml.Node {
	// A chain of aliases cannot be longer than the document has anchors.
	for range 100 {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			return n
		}
		n = n.Alias
	}
	return n
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		return fmt.Sprintf("%q", n.Value)
	}
	return "something else"
}

// top reads the top level. What services use comes before them.
func (p *parser) top(root *yaml.Node) []workload.Container {
	var services *yaml.Node
	p.fields(root, map[string]func(*yaml.Node){
		"services": func(v *yaml.Node) { services = v },
		"networks": p.networks,
		"volumes":  p.declared,
		"configs":  func(v *yaml.Node) { p.stores(v, p.configs) },
		"secrets":  func(v *yaml.Node) { p.stores(v, p.secrets) },
	})
	if services == nil || services.Tag == "!!null" {
		if p.reported() == 0 && services == nil && !p.part {
			p.report(root, "no services: a Compose file lists its containers under \"services:\"")
		}
		return nil
	}
	p.at = position{"services", "services"}
	var all []workload.Container
	wanted := make(map[string][]dependency)
	p.names(services, func(k, v *yaml.Node) {
		if !label(k.Value) {
			p.report(k, "service name %q: use lower-case letters, digits and hyphens, at most 63: it is a host name", k.Value)
			return
		}
		s := p.service(k, v)
		all, wanted[s.ID] = append(all, s.Container), s.after
	})
	if !p.part {
		p.dependencies(all, wanted)
	}
	return all
}

func (p *parser) service(name, n *yaml.Node) *service {
	s := &service{parser: p, Container: workload.Container{
		ID: name.Value, Hostname: name.Value, Restart: workload.Restart{Policy: workload.No}, StopGrace: workload.DefaultStopGrace,
	}}
	before := p.reported()
	p.fields(n, s.keys())
	if s.restart != nil {
		s.Restart = *s.restart
	}
	s.capabilities()
	s.rights(name)
	if p.part {
		return s
	}
	if s.Image == "" && p.reported() == before {
		p.report(name, "%s: no image", p.at.shown)
	}
	if s.Pids == 0 {
		s.Pids = workload.DefaultPids
	}
	s.attach(name)
	p.published(name, s.Container)
	s.files(name)
	p.targets(name, s.Container)
	return s
}

// published reports a port of the node that two containers want.
func (p *parser) published(name *yaml.Node, c workload.Container) {
	for _, port := range c.Ports {
		ip := "every address"
		if port.HostIP.IsValid() && port.HostIP != netip.IPv4Unspecified() {
			ip = port.HostIP.String()
		}
		key := fmt.Sprintf("%s, port %d/%s", ip, port.HostPort, port.Protocol)
		if other, taken := p.ports[key]; taken {
			p.report(name, "services.%s.ports: %s is published by %s already", c.ID, key, other)
		}
		p.ports[key] = "services." + c.ID
	}
}

// targets reports a folder of the container on which two things are mounted.
func (p *parser) targets(name *yaml.Node, c workload.Container) {
	seen := make(map[string]bool)
	check := func(target string) {
		if seen[target] {
			p.report(name, "services.%s: two mounts on %s", c.ID, target)
		}
		seen[target] = true
	}
	for _, t := range c.Tmpfs {
		check(t.Target)
	}
	for _, v := range c.Volumes {
		check(v.Target)
	}
	for _, f := range c.Files {
		check(f.Target)
	}
	for _, b := range c.Rights.Binds {
		check(b.Target)
	}
}

// label says whether s is a DNS label in lower case.
func label(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, r := range s {
		if r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return true
}
