package project

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"kogge.example/agent/compose"
)

// resolver replaces what a node could not know: profiles, files and variables.
type resolver struct {
	*survey
	model    map[string]any
	profiles []string
}

func (r *resolver) resolve() {
	services, _ := r.model["services"].(map[string]any)
	r.choose(services)
	used := map[string]map[string]bool{"configs": {}, "secrets": {}}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		service, ok := services[name].(map[string]any)
		if !ok {
			continue
		}
		delete(service, "extends") // of a service that is empty
		r.variables(name, service)
		r.labels(name, service)
		for kind, names := range used {
			items, _ := service[kind].([]any)
			for _, item := range items {
				switch item := item.(type) {
				case string:
					names[item] = true
				case map[string]any:
					source, _ := item["source"].(string)
					names[source] = true
				}
			}
		}
	}
	for _, kind := range []string{"configs", "secrets"} {
		r.stores(kind, used[kind])
	}
}

// choose drops the services whose profiles are not wanted.
func (r *resolver) choose(services map[string]any) {
	off := make(map[string]string)
	for name, s := range services {
		service, _ := s.(map[string]any)
		given, ok := service["profiles"].([]any)
		if !ok {
			continue
		}
		var profiles []string
		for _, one := range given {
			profiles = append(profiles, fmt.Sprint(one))
		}
		delete(service, "profiles")
		wanted := len(profiles) == 0 || slices.ContainsFunc(r.profiles, func(p string) bool {
			return p == "*" || slices.Contains(profiles, p)
		})
		if !wanted {
			off[name] = strings.Join(profiles, " or ")
			delete(services, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		service, _ := services[name].(map[string]any)
		after, _ := service["depends_on"].(map[string]any)
		for _, other := range slices.Sorted(maps.Keys(after)) {
			how, _ := after[other].(map[string]any)
			if profile := off[other]; profile != "" && how["required"] != false {
				r.report(r.at("services", name, "depends_on", other),
					"services.%s.depends_on: %s has the profile %s, which is not enabled: use --profile", name, other, profile)
			}
		}
	}
}

// at is where the key at path was written, or what is nearest above it.
func (r *resolver) at(path ...string) compose.Origin {
	var steps []step
	for _, key := range path {
		steps = append(steps, step{key: key})
	}
	hit, ok := r.find(steps)
	switch {
	case !ok:
		return r.sources[0].origin(r.sources[0].root)
	case hit.key != nil:
		return hit.origin(hit.key)
	}
	return hit.origin(hit.value)
}

// variables puts env_file into environment, below what is there, and gives names
// without a value that of the operator's environment.
func (r *resolver) variables(name string, service map[string]any) {
	own, ok := assignments(service["environment"])
	files, _ := service["env_file"].([]any)
	if !ok || len(own) == 0 && len(files) == 0 {
		delete(service, "env_file")
		return // the parser says what is wrong with it
	}
	values := make(map[string]string)
	for _, file := range files {
		r.envFile(name, file, values)
	}
	delete(service, "env_file")
	all := make(map[string]any)
	for k, v := range values {
		all[k] = v
	}
	for k, v := range own {
		if v == nil {
			value, set := r.env[k]
			if !set {
				r.warn(r.at("services", name, "environment", k), "variable %s is not set: the container does not get it", k)
				delete(all, k)
				continue
			}
			v = value
		}
		all[k] = v
	}
	delete(service, "environment")
	if len(all) > 0 {
		service["environment"] = all
	}
}

// assignments reads a mapping, or a list of NAME=value; a name alone has the value
// nil. It says whether v is such a thing.
func assignments(v any) (map[string]any, bool) {
	all := make(map[string]any)
	switch v := v.(type) {
	case nil:
	case map[string]any:
		maps.Copy(all, v)
	case []any:
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, false
			}
			name, value, given := strings.Cut(text, "=")
			if all[name] = nil; given {
				all[name] = value
			}
		}
	default:
		return nil, false
	}
	return all, true
}

// envFile adds one entry of env_file to values.
func (r *resolver) envFile(name string, entry any, values map[string]string) {
	at := r.at("services", name, "env_file")
	path, required, format := "", true, ""
	switch entry := entry.(type) {
	case string:
		path = entry
	case map[string]any:
		path, _ = entry["path"].(string)
		format, _ = entry["format"].(string)
		required = entry["required"] != false
	}
	if path == "" {
		r.report(at, "services.%s.env_file: expected a path", name)
		return
	}
	full := join(r.dir, path)
	var err error
	switch format {
	case "":
		err = readEnv(full, r.display(full), values, lookupIn(r.env))
	case "raw":
		err = readRaw(full, r.display(full), values)
	default:
		err = fmt.Errorf("format %q: the only named format is raw", format)
	}
	if errors.Is(err, fs.ErrNotExist) && !required {
		return
	}
	if err != nil {
		r.report(at, "services.%s.env_file: %v", name, err)
	}
}

// readRaw reads NAME=value lines as they stand.
func readRaw(path, shown string, values map[string]string) error {
	text, err := Contents(path, shown)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			values[name] = value
		}
	}
	return nil
}

// labels puts label_file into labels, below what is there.
func (r *resolver) labels(name string, service map[string]any) {
	var files []string
	switch given := service["label_file"].(type) {
	case nil:
		return
	case string:
		files = append(files, given)
	case []any:
		for _, one := range given {
			files = append(files, fmt.Sprint(one))
		}
	}
	values := make(map[string]string)
	for _, file := range files {
		full := join(r.dir, file)
		if err := readEnv(full, r.display(full), values, lookupIn(nil)); err != nil {
			r.report(r.at("services", name, "label_file"), "services.%s.label_file: %v", name, err)
		}
	}
	delete(service, "label_file")
	own, ok := assignments(service["labels"])
	if !ok {
		return
	}
	all := make(map[string]any)
	for k, v := range values {
		all[k] = v
	}
	for k, v := range own {
		if v == nil {
			v = ""
		}
		all[k] = v
	}
	service["labels"] = all
}

// stores reads the configs or secrets that are used, and drops the others: a node
// shall not have what nobody there needs.
func (r *resolver) stores(kind string, used map[string]bool) {
	all, _ := r.model[kind].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !used[name] {
			delete(all, name)
			continue
		}
		one, ok := all[name].(map[string]any)
		if !ok {
			continue
		}
		for k := range one {
			if strings.HasPrefix(k, "x-") { // the loader leaves values there
				delete(one, k)
			}
		}
		if file, ok := one["file"].(string); ok {
			delete(one, "file")
			full := join(r.dir, file)
			text, err := Contents(full, r.display(full))
			if err != nil {
				r.report(r.at(kind, name, "file"), "%s.%s.file: %v", kind, name, err)
			}
			one["content"] = string(text)
		}
		if variable, ok := one["environment"].(string); ok {
			delete(one, "environment")
			value, set := r.env[variable]
			if !set {
				r.report(r.at(kind, name, "environment"), "%s.%s.environment: variable %s is not set", kind, name, variable)
			}
			one["content"] = value
		}
	}
	if len(all) == 0 {
		delete(r.model, kind)
	}
}
