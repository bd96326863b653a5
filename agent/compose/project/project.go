// Package project makes, on the operator's machine, one Compose file that stands
// alone out of what people have: several files, variables, environment files,
// profiles.
//
// In come the names of Compose files and [Options]; out come the text that a node
// takes, its containers, and what [compose.ParseNode] says of them, with the file
// and line where it was written. compose-go's loader resolves include, extends and
// variables; env_file, label_file, configs and secrets are read here. Everything is
// bounded: a file that loops, or that means far more than it says, is refused
// before it is expanded.
//
// It reads files, and nothing else: no network, and of the environment only what
// Options give it.
package project

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"

	"kogge.example/agent/compose"
	"kogge.example/agent/workload"
	"kogge.example/init/nodeconfig"
)

// Options are what a Compose file does not say.
type Options struct {
	// Project is what the node will call the project. Default: none, as in node.yaml.
	Project string
	// EnvFiles have variables for the files, later ones win. Default: .env beside
	// the first Compose file, if it is there.
	EnvFiles []string
	// Profiles are those whose services are wanted too; "*" is all.
	Profiles []string
	// Stdin is what the Compose file - says, of at most MaxFile bytes. What it names is
	// looked for in the working directory.
	Stdin []byte
	// Environ are NAME=value and win over EnvFiles. Default: none.
	Environ []string
}

// Answer is what a node makes of the files.
type Answer struct {
	Text       []byte // a Compose file that stands alone, secrets in clear
	Containers []workload.Container
	Warnings   []nodeconfig.Problem
}

// MaxFile is the most that is read of each file, in bytes.
const MaxFile = 1 << 20

// Limits of what is read. Each is far above what people write.
const (
	maxFiles    = 100       // Compose files, by include and extends
	maxServices = 1000      // of all files
	maxNodes    = 1_000_000 // keys and values, those behind aliases and extends counted each time
	maxValues   = 16 << 20  // bytes that variables expand to
)

// Load reads the Compose files, of which later ones override earlier ones. The
// error is a *[nodeconfig.Problems] where a file is at fault; then the Answer has
// the warnings alone.
func Load(ctx context.Context, files []string, o Options) (*Answer, error) {
	if len(files) == 0 {
		return nil, errors.New("name a Compose file")
	}
	s, err := explore(files, o)
	if err != nil {
		return nil, err
	}
	model, err := s.load(ctx, files)
	if err != nil {
		return &Answer{Warnings: s.warnings}, err
	}
	m := &resolver{survey: s, model: model, profiles: o.Profiles}
	m.resolve()
	doc, err := s.document(model)
	if err != nil {
		return nil, err
	}
	containers, warnings, err := compose.ParseNode(o.Project, doc, s.origin)
	warnings = append(s.warnings, warnings...)
	slices.SortStableFunc(warnings, s.inOrder)
	if s.include(err); len(s.problems.List) > 0 {
		return &Answer{Warnings: warnings}, &s.problems
	}
	var text bytes.Buffer
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(doc), e.Close()); err != nil {
		return nil, fmt.Errorf("write Compose file: %w", err)
	}
	// What the node reads is this text, and not the nodes it was made of.
	again, _, err := compose.Parse(o.Project, "", text.Bytes())
	if err == nil && !slices.EqualFunc(containers, again, same) {
		err = errors.New("the resolved file would mean something else")
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be written as one file: %w", files[0], err)
	}
	return &Answer{Text: text.Bytes(), Containers: containers, Warnings: warnings}, nil
}

// include adds the problems of err to those that there are, in order.
func (s *survey) include(err error) {
	var p *nodeconfig.Problems
	if errors.As(err, &p) {
		s.problems.List = append(s.problems.List, p.List...)
		s.problems.More += p.More
	}
	slices.SortStableFunc(s.problems.List, s.inOrder)
	s.problems.List = slices.Compact(s.problems.List)
}

// inOrder sorts by file, those named first, and line.
func (s *survey) inOrder(a, b nodeconfig.Problem) int {
	return cmp.Or(cmp.Compare(s.rank(a.File), s.rank(b.File)), a.Line-b.Line, a.Column-b.Column)
}

func same(a, b workload.Container) bool { return a.Hash() == b.Hash() }

// load has compose-go's loader make one model of the files.
func (s *survey) load(ctx context.Context, files []string) (map[string]any, error) {
	details := types.ConfigDetails{WorkingDir: s.dir, Environment: s.env}
	for _, src := range s.sources[:len(files)] {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: src.path, Content: src.text})
	}
	model, err := safely(ctx, details, func(o *loader.Options) {
		o.SetProjectName(cmp.Or(loader.NormalizeProjectName(filepath.Base(s.dir)), "project"), true)
		// compose.ParseNode is stricter than the schema, and knows lines.
		o.SkipValidation, o.SkipConsistencyCheck, o.SkipNormalization, o.SkipDefaultValues = true, true, true, true
		o.ResolvePaths = false
		o.Interpolate.Substitute = s.substitute
	})
	switch {
	case s.values > maxValues:
		return nil, s.whole(s.sources[0], "its variables expand to more than %d MiB", maxValues>>20)
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		// The parser says it better, with all the lines; what it lets pass, the
		// loader's words have to explain.
		for _, src := range s.sources {
			s.check(src)
		}
		if len(s.problems.List) == 0 {
			s.explain(err)
		}
		return nil, &s.problems
	}
	return model, nil
}

// safely is the loader without its panics: it takes the types of some values for
// granted.
func safely(ctx context.Context, details types.ConfigDetails, options func(*loader.Options)) (model map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			model, err = nil, fmt.Errorf("something in the file has the wrong form: %v", r)
		}
	}()
	return loader.LoadModelWithContext(ctx, details, options)
}

// check has the parser look at src alone, with its variables expanded.
func (s *survey) check(src *source) {
	was := make(map[*yaml.Node]*yaml.Node) // by what became of it
	now := make(map[*yaml.Node]*yaml.Node)
	var expand func(n *yaml.Node) *yaml.Node
	expand = func(n *yaml.Node) *yaml.Node {
		if known := now[n]; known != nil {
			return known
		}
		c := *n
		now[n], was[&c] = &c, n
		if n.Kind == yaml.AliasNode {
			c.Alias = expand(n.Alias)
			return &c
		}
		c.Content = make([]*yaml.Node, len(n.Content))
		for i, below := range n.Content {
			c.Content[i] = expand(below)
		}
		if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "$") {
			value, err := s.substitute(n.Value, lookupIn(src.env))
			if err != nil {
				s.report(src.origin(n), "%s", inLine(err))
			}
			c.Value = strings.ReplaceAll(value, "$", "$$")
		}
		return &c
	}
	doc := &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{expand(src.root)}}
	s.include(compose.Check(doc, func(n *yaml.Node) compose.Origin { return src.origin(was[n]) }))
}

// place finds in a message of the loader the key that it is about.
var place = regexp.MustCompile(`\b(services|jobs|volumes|networks|configs|secrets|include)(\.[A-Za-z0-9_.\[\]-]+)?`)

// explain makes a problem of the loader's error: with the line of the key that its
// text names, where it names one.
func (s *survey) explain(err error) {
	text := strings.ReplaceAll(inLine(err), s.dir+string(filepath.Separator), "")
	var path []step
	for part := range strings.SplitSeq(strings.Trim(place.FindString(text), "."), ".") {
		if part != "" && part != "[]" {
			path = append(path, step{key: part})
		}
	}
	at := s.sources[0].origin(&yaml.Node{})
	if hit, ok := s.find(path); ok && len(path) > 1 {
		at = hit.origin(hit.value)
	}
	s.report(at, "%s", text)
}

// inLine is an error's text without its line breaks.
func inLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
