package project

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

// environment gathers the variables: those of the environment, then those of the
// environment files.
func (s *survey) environment(o Options, folder string) error {
	s.env = make(map[string]string)
	for _, pair := range o.Environ {
		if name, value, ok := strings.Cut(pair, "="); ok && name != "" {
			s.env[name] = value
		}
	}
	files := o.EnvFiles
	if len(files) == 0 {
		if _, err := os.Stat(filepath.Join(s.dir, ".env")); err == nil {
			files = []string{filepath.Join(folder, ".env")}
		}
	}
	values := make(map[string]string)
	for _, file := range files {
		if err := readEnv(file, file, values, lookupIn(s.env)); err != nil {
			return err
		}
	}
	for name, value := range values {
		if _, given := s.env[name]; !given {
			s.env[name] = value
		}
	}
	return nil
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

// readEnv adds the variables of an environment file to values. They can use those of
// lookup, and of values.
func readEnv(path, shown string, values map[string]string, lookup func(string) (string, bool)) (err error) {
	text, err := Contents(path, shown)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %v", shown, r)
		}
	}()
	total := 0
	err = dotenv.ParseWithFormat(bytes.NewReader(text), shown, values, func(name string) (string, bool) {
		value, ok := lookup(name)
		if !ok {
			value, ok = values[name]
		}
		if total += len(value); total > maxValues {
			panic(errValues) // a lookup has no error; it ends above
		}
		return value, ok
	}, "")
	if inner := errors.Unwrap(err); inner != nil { // without "failed to read"
		return fmt.Errorf("%s: %w", shown, inner)
	}
	return err
}

// includedEnv are the variables of what src includes at item: its own, then those
// of the entry's env_file, or of .env in dir.
func (s *survey) includedEnv(src *source, item *yaml.Node, dir string) map[string]string {
	var files []string
	switch given := lookup(item, "env_file").value; {
	case given != nil && given.Kind == yaml.SequenceNode:
		for _, one := range given.Content {
			files = append(files, join(src.dir, s.expand(src, resolve(one).Value)))
		}
	case given != nil:
		files = append(files, join(src.dir, s.expand(src, given.Value)))
	default:
		if _, err := os.Stat(filepath.Join(dir, ".env")); err == nil {
			files = append(files, filepath.Join(dir, ".env"))
		}
	}
	values := make(map[string]string)
	for _, file := range files {
		if file == os.DevNull {
			continue
		}
		if err := readEnv(file, s.display(file), values, lookupIn(src.env)); err != nil {
			s.report(src.origin(item), "%v", err)
		}
	}
	maps.Copy(values, src.env)
	return values
}

// errValues ends an expansion that grows without bound.
var errValues = fmt.Errorf("the variables expand to more than %d MiB", maxValues>>20)

// substitute is compose-go's, without its log and with a bound.
func (s *survey) substitute(text string, mapping template.Mapping) (string, error) {
	if s.values > maxValues {
		return "", errValues
	}
	return template.SubstituteWithOptions(text, func(name string) (string, bool) {
		value, ok := mapping(name)
		if s.values += len(value); s.values > maxValues {
			return "", true
		}
		return value, ok
	}, template.WithoutLogging)
}

// expand is the text of a path in src with its variables; what cannot be expanded
// is the loader's to report.
func (s *survey) expand(src *source, text string) string {
	expanded, err := s.substitute(text, lookupIn(src.env))
	if err != nil {
		return text
	}
	return expanded
}

// unset warns of variables in src that have neither value nor default: Compose
// takes them for empty, and few people mean that.
func (s *survey) unset(src *source) {
	warned := make(map[string]bool)
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 1; i < len(n.Content); i += 2 {
				walk(n.Content[i])
			}
		case yaml.SequenceNode:
			for _, item := range n.Content {
				walk(item)
			}
		case yaml.ScalarNode:
			if !strings.Contains(n.Value, "$") {
				return
			}
			variables := template.ExtractVariables(map[string]any{"": n.Value}, nil)
			for _, name := range slices.Sorted(maps.Keys(variables)) {
				v := variables[name]
				_, given := src.env[name]
				if name == "" || given || warned[name] || v.Required || v.DefaultValue != "" || v.PresenceValue != "" || defaulted(n.Value, name) {
					continue
				}
				warned[name] = true
				s.warn(src.origin(n), "variable %s is not set: it is empty here", name)
			}
		}
	}
	walk(src.root)
}

// defaulted says whether text gives the variable an empty default: ${NAME-},
// ${NAME:-}.
func defaulted(text, name string) bool {
	return strings.Contains(text, "${"+name+"-") || strings.Contains(text, "${"+name+":-") ||
		strings.Contains(text, "${"+name+"+") || strings.Contains(text, "${"+name+":+")
}
