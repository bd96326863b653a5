package nodeconfig

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// MaxSize is the largest node.yaml in bytes.
const MaxSize = 1 << 20

// maxNodes bounds what aliases may expand to: far more than a hand-written file
// has, far less than what a "billion laughs" needs.
const maxNodes = 100_000

// ReadFile parses the file at path, whose last element names it in problems. An error that
// does not wrap [Problems] is from reading the file; one that does shows what [Public] does:
// who reads the file again is not who wrote it.
func ReadFile(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return Config{}, err
	}
	config, err := Parse(path[strings.LastIndexByte(path, '/')+1:], data)
	return config, Hide(err)
}

// Parse reads node.yaml. name is how problems call it. An empty file, or one of
// nothing but comments, is the zero Config. A file as a Windows editor saves it
// (byte order mark, CR LF) is fine. The error is always [*Problems], and the
// Config is then of no use.
func Parse(name string, data []byte) (Config, error) {
	d := &decoder{file: name}
	root := d.load(data)
	var c Config
	if root != nil {
		d.config(root, &c)
	}
	if len(d.problems.List) > 0 {
		d.sort()
		return Config{}, &d.problems
	}
	return c, nil
}

// load turns the text into a YAML tree that is safe to walk. It returns nil for a
// file that says nothing and for one with problems.
func (d *decoder) load(data []byte) *yaml.Node {
	text, ok := d.text(data)
	if !ok {
		return nil
	}
	d.lines = strings.Split(text, "\n")
	var doc yaml.Node
	if err := yaml.Load([]byte(text), &doc); err != nil && !d.syntax(err) {
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	sizes := expansion{done: make(map[*yaml.Node]int)}
	if at := sizes.check(root); at != nil {
		d.report(at, "aliases expand to more than %d values, or to themselves", maxNodes)
		return nil
	}
	return root
}

// text checks that data can be a text file and brings its line ends to LF, so that
// lines mean the same to the YAML parser and to us.
func (d *decoder) text(data []byte) (string, bool) {
	switch {
	case len(data) > MaxSize:
		d.whole("larger than 1 MiB: is this the right file?")
		return "", false
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		d.whole("is UTF-16 text: save it as UTF-8")
		return "", false
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if bytes.IndexByte(data, 0) >= 0 {
		d.whole("is not a text file: it has NUL bytes (a torn write, or a wrong file)")
		return "", false
	}
	text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
	// Where lines matter, say which one it is.
	d.lines = strings.Split(text, "\n")
	for i, line := range d.lines {
		column := 0
		for at, r := range line {
			column++
			switch {
			case r == utf8.RuneError && !utf8.ValidString(line[at:min(at+3, len(line))]):
				d.at(i+1, column, 1, "not valid UTF-8: save the file as UTF-8")
				return "", false
			case r < ' ' && r != '\t', r == 0x7f, r > 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
				d.at(i+1, column, 1, "control character U+%04X: remove it", r)
				return "", false
			}
		}
	}
	return text, true
}

// syntax reports what the YAML parser could not read, and says whether the tree is
// good all the same.
func (d *decoder) syntax(err error) bool {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		d.whole("%v", Prose(err.Error()))
		return false
	}
	message, mark := load.Message, load.Mark
	switch {
	case strings.Contains(message, "no documents"):
		return true
	case strings.Contains(message, "multiple"):
		for i, line := range d.lines {
			if i > 0 && strings.HasPrefix(line, "---") && strings.TrimSpace(strings.Join(d.lines[:i], "")) != "" {
				mark.Line, mark.Column = i+1, 1
			}
		}
		message = "a second document starts here: node.yaml is one document"
	case strings.Contains(message, "cannot start any token"):
		message = "this character cannot start a value: put the value in quotes"
		if line := d.line(mark.Line); strings.Contains(line[:indent(line)], "\t") {
			message = "a tab indents this line: YAML needs spaces"
		}
	case strings.Contains(message, "mapping values are not allowed"):
		message = "a second ': ' in one line: put the value in quotes, or the key on a line of its own"
	case strings.Contains(message, "did not find expected key"):
		message = "the indentation of this line matches no line above it"
	case strings.Contains(message, "unexpected end of stream") && load.ContextMark.Line > 0:
		message, mark = "the quote that opens here is never closed", load.ContextMark
	case strings.Contains(message, "did not find expected ','") && load.ContextMark.Line > 0:
		message, mark = "the bracket that opens here is not closed, or a comma is missing in it", load.ContextMark
	case strings.Contains(message, "unknown anchor"):
		message = "alias without an anchor of that name (a value that starts with '*' needs quotes)"
	}
	if mark.Line == 0 {
		d.whole("%s", Prose(message))
		return false
	}
	d.at(mark.Line, mark.Column, 1, "%s", Prose(message))
	return false
}

// indent is how many bytes of white space the line starts with.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// expansion counts how many values a tree has once its aliases are followed.
type expansion struct {
	done map[*yaml.Node]int // -1 while its children are being counted
}

// check returns the first node at which the count is out of bounds, or nil.
func (e *expansion) check(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		if e.done[n.Alias] < 0 {
			return n
		}
		e.done[n] = e.done[n.Alias]
		return nil
	}
	e.done[n] = -1
	total := 1
	for _, child := range n.Content {
		if at := e.check(child); at != nil {
			return at
		}
		if total += e.done[child]; total > maxNodes {
			return child
		}
	}
	e.done[n] = total
	return nil
}

// report adds a problem about node n.
func (d *decoder) report(n *yaml.Node, format string, args ...any) {
	d.place(n.Line, n.Column, d.width(n), n.Value, format, args...)
}

// whole adds a problem about the file as a whole.
func (d *decoder) whole(format string, args ...any) { d.at(0, 0, 0, format, args...) }

// at adds a problem about a place in the text.
func (d *decoder) at(line, column, width int, format string, args ...any) {
	d.place(line, column, width, "", format, args...)
}

func (d *decoder) place(line, column, width int, value, format string, args ...any) {
	if len(d.problems.List) == maxProblems {
		d.problems.More++
		return
	}
	d.problems.List = append(d.problems.List, NewProblem(Problem{
		File: d.file, Line: line, Column: column, Width: width, Source: d.line(line),
	}, d.lines, value, format, args...))
}

// line returns the text of a line counted from 1, or "" for one that is not there.
func (d *decoder) line(number int) string {
	if number < 1 || number > len(d.lines) {
		return ""
	}
	return d.lines[number-1]
}

// width says how many characters of its first line node n takes up.
func (d *decoder) width(n *yaml.Node) int {
	line := []rune(d.line(n.Line))
	if n.Column < 1 || n.Column > len(line) {
		return 1
	}
	rest := line[n.Column-1:]
	switch {
	case n.Kind == yaml.ScalarNode && (rest[0] == '"' || rest[0] == '\''):
		for i := 1; i < len(rest); i++ {
			if rest[i] == '\\' && rest[0] == '"' {
				i++
			} else if rest[i] == rest[0] {
				return i + 1
			}
		}
	case n.Kind == yaml.ScalarNode && strings.HasPrefix(string(rest), n.Value):
		return len([]rune(n.Value))
	case n.Kind == yaml.AliasNode:
		return len([]rune(n.Value)) + 1
	}
	// A collection, or a scalar of several lines: its first word.
	for i, r := range rest {
		if r == ' ' || r == '\t' {
			return i
		}
	}
	return len(rest)
}
