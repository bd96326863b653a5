package identity

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"kogge.example/init/nodeconfig"
	"kogge.example/update/fleet"
	"kogge.example/update/fleet/token"
)

// ParseJoinFile reads join.yaml; file is how problems call it. A file as a Windows editor
// saves it (byte order mark, CR LF) is fine. The error is always
// [*nodeconfig.Problems], and shows no token.
func ParseJoinFile(file string, text []byte) (*fleet.JoinFile, error) {
	p := joinParser{file: file}
	j := p.parse(text)
	if len(p.problems.List) > 0 {
		sort.SliceStable(p.problems.List, func(a, b int) bool { return p.problems.List[a].Line < p.problems.List[b].Line })
		return nil, &p.problems
	}
	return j, nil
}

// joinParser collects what is wrong with one join.yaml.
type joinParser struct {
	file     string
	lines    []string // with every secret hidden
	problems nodeconfig.Problems
}

// joinKeys are the keys of the file, and enrolKeys those of one by which the node comes into its
// fleet by itself. Each is there once.
var (
	joinKeys  = []string{"fleet", "token", "genesis"}
	enrolKeys = []string{"record", "members"}
)

func (p *joinParser) parse(text []byte) *fleet.JoinFile {
	if len(text) > 2*fleet.MaxGenesis {
		return p.whole("larger than %d KiB: is this the right file?", 2*fleet.MaxGenesis>>10)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return p.whole("is not UTF-8 text: a torn write, or a wrong file")
	}
	plain := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text))
	empty := true
	for line := range strings.SplitSeq(plain, "\n") {
		p.lines = append(p.lines, hideSecret(line))
		line = strings.TrimSpace(line)
		empty = empty && (line == "" || line[0] == '#')
	}
	if empty {
		return p.whole("is empty: kogge fleet token makes one")
	}
	var doc yaml.Node
	if err := yaml.Load([]byte(plain), &doc); err != nil {
		return p.syntax(err)
	}
	values := p.values(&doc)
	if values == nil {
		return nil
	}
	j := &fleet.JoinFile{}
	var err error
	if n := values["token"]; n != nil {
		if j.Token, err = fleet.ParseToken(n.Value); err != nil {
			p.report(n, "%v: copy the file again, or make another: kogge fleet token", err)
		}
	}
	if n := values["genesis"]; n != nil {
		if j.Genesis, err = fleet.ParseGenesis([]byte(n.Value)); err != nil {
			p.report(n, "%v", err)
		}
	}
	if n := values["record"]; n != nil {
		p.record(n, j)
	}
	if n := values["members"]; n != nil {
		p.members(n, j)
	}
	if n := values["fleet"]; n != nil {
		switch {
		case !fleet.IsHash(n.Value):
			p.report(n, "a fleet's id has 64 hexadecimal digits in lower case")
		case j.Genesis != nil && j.Genesis.ID() != n.Value:
			p.report(n, "the genesis in this file is that of %s…: it was edited, or belongs to another fleet", fleet.Short(j.Genesis.ID()))
		}
	}
	return j
}

// record reads what an operator has said of the token.
func (p *joinParser) record(n *yaml.Node, j *fleet.JoinFile) {
	const again = "copy the file again, or make another: kogge fleet token"
	raw, err := base64.StdEncoding.Strict().DecodeString(n.Value)
	if err != nil {
		p.report(n, "this is not base64: "+again)
		return
	}
	paper, err := token.ParsePaper(raw)
	var r token.Record
	if err == nil {
		r, err = token.OpenRecord(paper)
	}
	if err != nil {
		p.report(n, "%v: "+again, err)
		return
	}
	if j.Genesis != nil && paper.Fleet.String() != j.Genesis.ID() {
		p.report(n, "it is of fleet %s…: it belongs to another file", paper.Fleet.Short())
		return
	}
	if key, err := token.KeyOf(j.Token); err == nil && key != r.Key {
		p.report(n, "it is the record of another token: "+again)
		return
	}
	j.Record = raw
}

// members reads where members of the fleet may answer.
func (p *joinParser) members(n *yaml.Node, j *fleet.JoinFile) {
	for _, text := range strings.Fields(n.Value) {
		a, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
			p.report(n, "%.60q is no address with a port, as 192.0.2.1:7443", text)
			return
		case len(j.Members) == maxMembers:
			p.report(n, "more than %d addresses", maxMembers)
			return
		}
		j.Members = append(j.Members, a)
	}
}

// values are the values of the file's keys, by key; nil if there is no telling.
func (p *joinParser) values(doc *yaml.Node) map[string]*yaml.Node {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.whole("is not one YAML document: copy the file again, or make another: kogge fleet token")
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		p.report(root, "expected the keys %s", strings.Join(joinKeys, ", "))
		return nil
	}
	values := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		known := false
		for _, name := range slices.Concat(joinKeys, enrolKeys) {
			known = known || k.Kind == yaml.ScalarNode && k.Value == name
		}
		switch {
		case !known:
			p.report(k, "unknown key: join.yaml has %s", strings.Join(slices.Concat(joinKeys, enrolKeys), ", "))
		case values[k.Value] != nil:
			p.report(k, "key %q is already on line %d", k.Value, values[k.Value].Line)
		case v.Kind != yaml.ScalarNode || v.Tag != "!!str":
			p.report(k, "the value of %q must be text", k.Value)
			values[k.Value] = v // it is not missing
		default:
			values[k.Value] = v
		}
	}
	for _, name := range joinKeys {
		if values[name] == nil {
			p.whole("key %q is missing", name)
		}
	}
	if len(p.problems.List) > 0 {
		return nil
	}
	return values
}

// syntax reports what the YAML parser could not read.
func (p *joinParser) syntax(err error) *fleet.JoinFile {
	var load *yaml.LoadError
	if !errors.As(err, &load) || load.Mark.Line == 0 {
		return p.whole("is not YAML: copy the file again, or make another: kogge fleet token")
	}
	// The parser's message may quote the text, which may be the token.
	p.at(load.Mark.Line, load.Mark.Column, 1, "this is not YAML: copy the file again, or make another: kogge fleet token")
	return nil
}

// report adds a problem about a value or key.
func (p *joinParser) report(n *yaml.Node, format string, args ...any) {
	width := 1
	if n.Kind == yaml.ScalarNode && !strings.Contains(n.Value, "\n") {
		width = len([]rune(n.Value))
	}
	p.at(n.Line, n.Column, width, format, args...)
}

// whole adds a problem about the file as a whole.
func (p *joinParser) whole(format string, args ...any) *fleet.JoinFile {
	p.at(0, 0, 0, format, args...)
	return nil
}

func (p *joinParser) at(line, column, width int, format string, args ...any) {
	const most = 10
	if len(p.problems.List) == most {
		p.problems.More++
		return
	}
	source := ""
	if line > 0 && line <= len(p.lines) {
		source = p.lines[line-1]
	}
	p.problems.List = append(p.problems.List, nodeconfig.Problem{
		File: p.file, Line: line, Column: column, Width: width, Source: source, Message: fmt.Sprintf(format, args...),
	})
}

// hideSecret replaces what could be a token, or a part of one, by dots: problems are
// shown on consoles and kept in logs. A genesis holds no secret, and its long lines
// may be hidden too.
func hideSecret(line string) string {
	const tail = 12 // characters of base32: 60 bits of 256
	runes := []rune(line)
	for from := 0; from < len(runes); from++ {
		to := from
		for to < len(runes) && (runes[to] >= 'a' && runes[to] <= 'z' || runes[to] >= 'A' && runes[to] <= 'Z' || runes[to] >= '0' && runes[to] <= '9') {
			to++
		}
		if to-from > tail && !fleet.IsHash(string(runes[from:to])) {
			for i := from + 4; i < to; i++ {
				runes[i] = '·'
			}
		}
		from = to
	}
	return string(runes)
}
