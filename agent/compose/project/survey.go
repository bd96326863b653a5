package project

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"kogge.example/agent/compose"
	"kogge.example/init/nodeconfig"
)

// survey is what the files say before anybody expands them.
type survey struct {
	dir      string            // of the first file, absolute
	env      map[string]string // variables
	sources  []*source         // those named first, then those they include or extend
	problems nodeconfig.Problems
	warnings []nodeconfig.Problem

	nodes, services int // counted so far
	values          int // bytes of variables so far
	parents         map[*yaml.Node]parent
}

// source is one Compose file.
type source struct {
	path  string // absolute
	shown string // as the operator would name it
	dir   string // what its include and extends are relative to
	text  []byte
	lines []string
	root  *yaml.Node
	env   map[string]string
	part  bool // its services are the project's, and not only there to be extended

	services map[string]entry
	weights  map[string]int  // of services, with what they extend
	straight map[string]bool // services that do not extend themselves
}

// explore reads the files, and what they include and extend.
func explore(files []string, o Options) (*survey, error) {
	first, err := filepath.Abs(files[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files[0], err)
	}
	s := &survey{dir: filepath.Dir(first), parents: make(map[*yaml.Node]parent)}
	if err := s.environment(o, filepath.Dir(files[0])); err != nil {
		return nil, err
	}
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		text := o.Stdin
		if file != "-" {
			text, err = Contents(path, file)
		}
		if err != nil {
			return nil, err
		}
		src, err := s.read(path, file, s.dir, text, s.env)
		if err != nil {
			return nil, err
		}
		src.part = true
	}
	for _, src := range slices.Clone(s.sources) {
		s.follow(src, []*source{src})
	}
	if len(s.problems.List) > 0 {
		return nil, &s.problems
	}
	for _, src := range s.sources {
		s.circles(src)
	}
	if len(s.problems.List) > 0 {
		return nil, &s.problems
	}
	if err := s.weigh(); err != nil {
		return nil, err
	}
	for _, src := range s.sources {
		s.unset(src)
	}
	return s, nil
}

// read adds one file, which has that text, to the survey.
func (s *survey) read(path, shown, dir string, text []byte, env map[string]string) (*source, error) {
	src := &source{
		path: path, shown: shown, dir: dir, env: env, text: text,
		lines: strings.Split(string(text), "\n"), services: make(map[string]entry),
		weights: make(map[string]int), straight: make(map[string]bool),
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		s.problems.List = append(s.problems.List, compose.Syntax(shown, src.lines, err))
		return nil, &s.problems
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, s.whole(src, "it has a second document (behind a line ---): give each a file of its own")
	}
	src.root = &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1}
	if len(doc.Content) > 0 {
		src.root = resolve(doc.Content[0])
	}
	nodes, circle := expanded(src.root)
	switch {
	case circle != nil:
		return nil, s.refuse(src, circle, "alias *%s contains itself", circle.Value)
	case nodes > maxNodes/4:
		return nil, s.whole(src, "it has %d keys and values, those behind aliases counted each time: at most %d", nodes, maxNodes/4)
	}
	for _, e := range pairs(lookup(src.root, "services").value) {
		if _, twice := src.services[e.key.Value]; !twice {
			src.services[e.key.Value] = e
		}
	}
	s.services += len(src.services)
	s.sources = append(s.sources, src)
	switch {
	case s.services > maxServices:
		return nil, s.whole(src, "%d services: at most %d", s.services, maxServices)
	case len(s.sources) > maxFiles:
		return nil, s.whole(src, "more than %d Compose files", maxFiles)
	}
	return src, nil
}

// Contents reads a file of bounded size, which errors call shown. It waits for nobody: a pipe
// is no file.
func Contents(path, shown string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, inWords(err, shown)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", shown)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, inWords(err, shown)
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s is larger than %d MiB", shown, MaxFile>>20)
	}
	return text, nil
}

// inWords is err with the path as the operator wrote it.
func inWords(err error, shown string) error {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", shown, err)
}

// expanded counts the nodes below n, those behind aliases each time, and finds an
// alias that is inside of what it stands for.
func expanded(n *yaml.Node) (int, *yaml.Node) {
	const most = 1<<30 - 1 // twice it fits an int of 32 bits
	known := make(map[*yaml.Node]int)
	open := make(map[*yaml.Node]bool)
	var circle *yaml.Node
	var count func(n *yaml.Node) int
	count = func(n *yaml.Node) int {
		if n.Kind == yaml.AliasNode {
			if open[n.Alias] {
				circle = n
				return 1
			}
			if c, ok := known[n.Alias]; ok {
				return c
			}
			n = n.Alias
		}
		open[n] = true
		total := 1
		for _, below := range n.Content {
			total = min(total+count(below), most)
		}
		delete(open, n)
		if n.Anchor != "" {
			known[n] = total
		}
		return total
	}
	return count(n), circle
}

// follow reads what src includes and extends; trail are the files that led there.
func (s *survey) follow(src *source, trail []*source) {
	include := lookup(src.root, "include")
	if include.value != nil && src.part {
		for _, item := range resolve(include.value).Content {
			s.included(src, resolve(item), trail)
		}
	}
	for _, entry := range pairs(lookup(src.root, "services").value) {
		file := lookup(lookup(entry.value, "extends").value, "file")
		if file.value == nil || file.value.Kind != yaml.ScalarNode {
			continue
		}
		name := s.expand(src, file.value.Value)
		s.add(src, file.value, name, "", src.env, false, trail)
	}
}

// included follows one entry of include: a path, or keys of which path is one
// path or a list of them.
func (s *survey) included(src *source, item *yaml.Node, trail []*source) {
	paths, folder, env := []*yaml.Node{item}, "", src.env
	if item.Kind == yaml.MappingNode {
		paths = nil
		if path := lookup(item, "path").value; path != nil && path.Kind == yaml.SequenceNode {
			for _, one := range path.Content {
				paths = append(paths, resolve(one))
			}
		} else if path != nil {
			paths = append(paths, path)
		}
		if dir := lookup(item, "project_directory").value; dir != nil {
			folder = s.expand(src, dir.Value)
		}
	}
	for i, path := range paths {
		if path.Kind != yaml.ScalarNode {
			s.report(src.origin(path), "include: expected paths of files")
			continue
		}
		name := s.expand(src, path.Value)
		dir := folder
		if dir == "" {
			dir = filepath.Dir(join(src.dir, s.expand(src, paths[0].Value)))
		}
		if i == 0 {
			env = s.includedEnv(src, item, join(src.dir, dir))
		}
		s.add(src, path, name, join(src.dir, dir), env, true, trail)
	}
}

// add reads the file name that src mentions at node, unless it has been read.
func (s *survey) add(src *source, node *yaml.Node, name, dir string, env map[string]string, part bool, trail []*source) {
	if strings.Contains(name, "://") || strings.HasPrefix(name, "git@") {
		s.report(src.origin(node), "%s: only files on this machine are read", name)
		return
	}
	path := join(src.dir, name)
	if dir == "" {
		dir = filepath.Dir(path)
	}
	for i, before := range trail {
		if before.path == path && part {
			var loop []string
			for _, one := range trail[i:] {
				loop = append(loop, one.shown)
			}
			s.report(src.origin(node), "an include loop: %s → %s", strings.Join(loop, " → "), before.shown)
			return
		}
	}
	for _, known := range s.sources {
		if known.path == path && (known.part || !part) {
			return
		}
	}
	if len(s.problems.List) > 0 {
		return // one is enough to stop reading
	}
	text, err := Contents(path, s.display(path))
	var next *source
	if err == nil {
		next, err = s.read(path, s.display(path), dir, text, env)
	}
	var p *nodeconfig.Problems
	switch {
	case errors.As(err, &p):
		return // reported
	case err != nil:
		s.report(src.origin(node), "%v", err)
		return
	}
	next.part = part
	s.follow(next, append(slices.Clone(trail), next))
}

// display is path as the operator would write it: beside the first file.
func (s *survey) display(path string) string {
	base := filepath.Dir(s.sources[0].shown)
	if rel, err := filepath.Rel(s.dir, path); err == nil {
		return filepath.Join(base, rel)
	}
	return path
}

func join(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// weigh bounds what extends expands to.
func (s *survey) weigh() error {
	for _, src := range s.sources {
		if !src.part {
			continue
		}
		for _, entry := range pairs(lookup(src.root, "services").value) {
			s.nodes += s.weight(src, entry.key.Value, 0)
			if s.nodes > maxNodes {
				return s.refuse(src, entry.key, "with what they extend, services have more than %d keys and values", maxNodes)
			}
		}
	}
	return nil
}

// circles reports services of src that extend themselves, by way of others.
func (s *survey) circles(src *source) {
	for _, first := range pairs(lookup(src.root, "services").value) {
		at, name := src, first.key.Value
		trail := []string{name}
		for !at.straight[name] && len(trail) < 2*maxServices {
			entry := at.services[name]
			if entry.value == nil {
				break
			}
			if at, name = s.extended(at, entry.value); name == "" {
				break
			}
			trail = append(trail, name)
			if at == src && name == first.key.Value {
				s.report(src.origin(lookup(first.value, "extends").key), "services.%s extends itself: %s", name, strings.Join(trail, " → "))
				return // the others in the circle say the same
			}
		}
		src.straight[first.key.Value] = true
	}
}

// weight is how many nodes the service name of src has, with what it extends.
func (s *survey) weight(src *source, name string, depth int) int {
	if w, ok := src.weights[name]; ok {
		return w
	}
	entry := src.services[name]
	if entry.value == nil || depth > maxServices {
		return 0
	}
	src.weights[name] = 0 // until it is known
	total, _ := expanded(entry.value)
	if base, service := s.extended(src, entry.value); service != "" {
		total += s.weight(base, service, depth+1)
	}
	src.weights[name] = min(total, maxNodes+1)
	return src.weights[name]
}

// extended says which service of which file the service at n extends; "" is none.
func (s *survey) extended(src *source, n *yaml.Node) (*source, string) {
	extends := lookup(n, "extends").value
	if extends == nil {
		return src, ""
	}
	if extends.Kind == yaml.ScalarNode {
		return src, s.expand(src, extends.Value)
	}
	service, file := lookup(extends, "service").value, lookup(extends, "file").value
	if service == nil {
		return src, ""
	}
	if file != nil {
		path := join(src.dir, s.expand(src, file.Value))
		for _, other := range s.sources {
			if other.path == path {
				return other, s.expand(src, service.Value)
			}
		}
		return src, ""
	}
	return src, s.expand(src, service.Value)
}

// rank is the place of a file among those that were read.
func (s *survey) rank(shown string) int {
	return slices.IndexFunc(s.sources, func(src *source) bool { return src.shown == shown })
}

func (src *source) origin(n *yaml.Node) compose.Origin {
	return compose.Origin{File: src.shown, Lines: src.lines, Node: n}
}

const maxProblems = 100

func (s *survey) report(at compose.Origin, format string, args ...any) {
	if len(s.problems.List) == maxProblems {
		s.problems.More++
		return
	}
	s.problems.List = append(s.problems.List, at.Problem(format, args...))
}

func (s *survey) warn(at compose.Origin, format string, args ...any) {
	if len(s.warnings) < maxServices {
		s.warnings = append(s.warnings, at.Problem(format, args...))
	}
}

// whole reports what is wrong with a file as a whole, and returns all problems.
func (s *survey) whole(src *source, format string, args ...any) error {
	return s.refuse(src, &yaml.Node{}, format, args...)
}

func (s *survey) refuse(src *source, n *yaml.Node, format string, args ...any) error {
	s.report(src.origin(n), format, args...)
	return &s.problems
}
