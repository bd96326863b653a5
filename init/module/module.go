// Package module loads kernel modules by name, or by the alias that hardware shows
// or the kernel asks for, in the initramfs as in the root. Files in the formats of
// depmod go in; loaded modules come out. It never unloads one, and a module whose
// hardware is absent is no error.
package module

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// insertFile gives one file to the kernel.
func insertFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	switch err := unix.FinitModule(int(f.Fd()), "", 0); {
	case err == nil, errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENODEV):
		return nil
	default:
		return fmt.Errorf("module %s: %w", filepath.Base(file), err)
	}
}

// Index knows the modules of one folder by name and by alias.
type Index struct {
	dir     string
	files   map[string]string   // module name → file below dir
	depends map[string][]string // module name → files below dir, nearest first
	soft    map[string][]string // module name → names or aliases that come first
	exact   map[string][]string // alias without wildcard → module names
	globs   map[string][]glob   // text before the first ':', or anyBus → patterns

	// The kernel's side: what loads a file, and whether a module is there by now.
	insert func(file string) error
	loaded func(name string) bool
}

// anyBus holds the patterns that have a wildcard in front of the first ':'.
const anyBus = ""

// glob is an alias with wildcards. Its prefix, up to the first of them, rules out
// nearly all of the thousands that path.Match would look at from end to end.
type glob struct{ prefix, pattern, module string }

// wildcards are the characters of an alias that path.Match does not take literally.
const wildcards = `*?[\`

// Open reads modules.dep, modules.alias and modules.softdep in dir, usually
// /lib/modules/RELEASE.
func Open(dir string) (*Index, error) {
	x := newIndex(dir)
	for name, add := range map[string]func(string){"modules.dep": x.addDep, "modules.alias": x.addAlias, "modules.softdep": x.addSoftdep} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("index of modules: %w", err)
		}
		err = eachLine(f, add)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("index of modules: %s: %w", f.Name(), err)
		}
	}
	return x, nil
}

func newIndex(dir string) *Index {
	return &Index{
		dir: dir, files: map[string]string{}, depends: map[string][]string{}, soft: map[string][]string{},
		exact: map[string][]string{}, globs: map[string][]glob{},
		insert: insertFile, loaded: loaded,
	}
}

// Release returns the folder of the running kernel's modules.
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("kernel release: %w", err)
	}
	return "/lib/modules/" + unix.ByteSliceToString(u.Release[:]), nil
}

func eachLine(in io.Reader, f func(string)) error {
	sc := bufio.NewScanner(in)
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" && line[0] != '#' {
			f(line)
		}
	}
	return sc.Err()
}

// addDep reads "path/of/module.ko: path/of/dependency.ko …".
func (x *Index) addDep(line string) {
	file, deps, ok := strings.Cut(line, ":")
	if !ok {
		return
	}
	name := nameOf(file)
	x.files[name] = file
	x.depends[name] = strings.Fields(deps)
}

// addAlias reads "alias PATTERN MODULE".
func (x *Index) addAlias(line string) {
	f := strings.Fields(line)
	if len(f) != 3 || f[0] != "alias" {
		return
	}
	if !strings.ContainsAny(f[1], wildcards) {
		key := normal(f[1])
		x.exact[key] = append(x.exact[key], normal(f[2]))
		return
	}
	bus, _, _ := strings.Cut(f[1], ":")
	if strings.ContainsAny(bus, wildcards) {
		bus = anyBus // acpi*:PNP0C0C:* also stands for acpi:…
	}
	pattern := slashless(f[1])
	prefix := pattern[:strings.IndexAny(pattern, wildcards)]
	x.globs[bus] = append(x.globs[bus], glob{prefix, pattern, normal(f[2])})
}

// addSoftdep reads "softdep MODULE pre: a b post: c".
func (x *Index) addSoftdep(line string) {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "softdep" {
		return
	}
	pre := false
	for _, word := range f[2:] {
		if strings.HasSuffix(word, ":") {
			pre = word == "pre:"
		} else if pre {
			x.soft[normal(f[1])] = append(x.soft[normal(f[1])], word)
		}
	}
}

// nameOf is the kernel's name of the module in file.
func nameOf(file string) string { return normal(strings.TrimSuffix(path.Base(file), ".ko")) }

func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// slashless makes path.Match match as the kernel's tools do, for which a slash is a
// character like others: names of mainboards have them.
func slashless(text string) string { return strings.ReplaceAll(text, "/", "\x01") }

// Resolve returns the modules that a name or alias stands for, none if unknown. An
// alias of a module that the folder does not have stands for nothing.
func (x *Index) Resolve(request string) []string {
	name := normal(request)
	if x.files[name] != "" {
		return []string{name}
	}
	var names []string
	add := func(module string) {
		if x.files[module] != "" && !slices.Contains(names, module) {
			names = append(names, module)
		}
	}
	for _, module := range x.exact[name] {
		add(module)
	}
	bus, _, _ := strings.Cut(request, ":")
	text := slashless(request)
	for _, patterns := range [][]glob{x.globs[bus], x.globs[anyBus]} {
		for _, g := range patterns {
			if !strings.HasPrefix(text, g.prefix) {
				continue
			}
			if ok, _ := path.Match(g.pattern, text); ok {
				add(g.module)
			}
		}
	}
	return names
}

// LoadAll loads the named modules in order. A name that there is no module for is
// an error; errors are joined, after everything else was tried.
func (x *Index) LoadAll(names ...string) error {
	var errs []error
	for _, name := range names {
		found, err := x.Load(name)
		if err == nil && !found {
			err = fmt.Errorf("module %s does not exist", name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Load loads the modules that a name or alias stands for, with what they need.
// It returns false if there are none: most devices need no module.
func (x *Index) Load(request string) (bool, error) {
	names := x.Resolve(request)
	var errs []error
	for _, name := range names {
		errs = append(errs, x.load(name, map[string]bool{}))
	}
	return len(names) > 0, errors.Join(errs...)
}

// load inserts one module after what it needs; seen ends circles of soft dependencies.
func (x *Index) load(name string, seen map[string]bool) error {
	if seen[name] || x.loaded(name) {
		return nil
	}
	seen[name] = true
	for _, soft := range x.soft[name] {
		for _, s := range x.Resolve(soft) {
			// Only the module itself decides whether it can do without.
			_ = x.load(s, seen)
		}
	}
	// What is needed has soft dependencies of its own.
	for _, dep := range slices.Backward(x.depends[name]) {
		if err := x.load(nameOf(dep), seen); err != nil {
			return err
		}
	}
	file := x.files[name]
	if file == "" {
		return fmt.Errorf("module %s does not exist", name)
	}
	return x.insert(filepath.Join(x.dir, file))
}

// loaded says whether the kernel has the module, as far as it shows it.
func loaded(name string) bool {
	_, err := os.Stat("/sys/module/" + name + "/initstate")
	return err == nil
}
