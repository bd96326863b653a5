// Package kernel turns a Debian kernel package into the kernel file and the
// modules that a board needs: selection in, modules with their dependencies in
// load order out. Modules come out decompressed, so that the initramfs and the
// root file system compress them once, and without their signatures.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"kogge.example/image/debian"
)

// Kernel is one unpacked kernel package.
type Kernel struct {
	// Release is what uname -r prints, the name of the modules' folder.
	Release string
	// Image is the path of the bootable kernel file.
	Image string
	// Package is where both come from.
	Package debian.Package

	modules string            // folder of the modules, holds "kernel/…"
	paths   map[string]string // module name → path below modules
	builtin map[string]bool   // names and aliases that need no module
	cache   string            // folder of decompressed modules
}

// Open finds the kernel among a board's packages. Decompressed modules are kept
// below cacheDir.
func Open(files []debian.File, cacheDir string) (*Kernel, error) {
	for _, f := range files {
		images, _ := filepath.Glob(filepath.Join(f.Dir, "boot", "vmlinuz-*"))
		if len(images) != 1 {
			continue
		}
		release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
		k := &Kernel{
			Release: release,
			Image:   images[0],
			Package: f.Package,
			modules: filepath.Join(f.Dir, "usr/lib/modules", release),
			paths:   map[string]string{},
			builtin: map[string]bool{},
			cache:   filepath.Join(cacheDir, fmt.Sprintf("%x-unsigned", f.SHA256[:8])),
		}
		if err := k.index(); err != nil {
			return nil, fmt.Errorf("kernel %s: %w", f.Package, err)
		}
		return k, nil
	}
	return nil, errors.New("kernel: none of the board's packages contains one")
}

// index learns which modules there are and what is built in.
func (k *Kernel) index() error {
	err := filepath.WalkDir(k.modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(path); ok && d.Type().IsRegular() {
			rel, err := filepath.Rel(k.modules, path)
			if err != nil {
				return err
			}
			k.paths[name] = rel
		}
		return nil
	})
	if err != nil {
		return err
	}
	names, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(names)) {
		if name, ok := moduleName(path); ok {
			k.builtin[name] = true
		}
	}
	// Aliases of built-in code, as name.alias=… strings that end in a zero byte.
	info, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin.modinfo"))
	if err != nil {
		return err
	}
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if _, alias, ok := strings.Cut(entry, ".alias="); ok {
			k.builtin[normal(alias)] = true
		}
	}
	return nil
}

// moduleName returns the name by which the kernel knows the module file at path.
func moduleName(path string) (string, bool) {
	base := filepath.Base(path)
	for _, suffix := range []string{".ko", ".ko.xz", ".ko.zst"} {
		if name, ok := strings.CutSuffix(base, suffix); ok {
			return normal(name), true
		}
	}
	return "", false
}

// normal writes a module name as the kernel does.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Select returns the modules that the words name, with everything they depend
// on, each after its dependencies. A word is a module name, an alias of built-in
// code, or a folder below kernel/ that ends in "/". Folders and modules in
// without are left out unless something depends on them.
func (k *Kernel) Select(words, without []string) ([]Module, error) {
	out := func(path, name string) bool {
		for _, w := range without {
			if strings.HasPrefix(path, w) || normal(w) == name {
				return true
			}
		}
		return false
	}
	var names []string
	for _, w := range words {
		if !strings.HasSuffix(w, "/") {
			names = append(names, normal(w))
			continue
		}
		n := len(names)
		for name, path := range k.paths {
			if strings.HasPrefix(path, w) && !out(path, name) {
				names = append(names, name)
			}
		}
		if len(names) == n {
			return nil, fmt.Errorf("kernel %s: folder %s has no modules", k.Release, w)
		}
		sort.Strings(names[n:])
	}
	r := resolver{k: k, seen: map[string]bool{}}
	if err := k.prepare(names); err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := r.add(name, false); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

// resolver walks dependencies depth first.
type resolver struct {
	k     *Kernel
	seen  map[string]bool
	order []Module
}

// add appends name after what it depends on. A soft dependency may be absent:
// its name can be an alias that another module of the selection provides.
func (r *resolver) add(name string, soft bool) error {
	name = normal(name)
	if r.seen[name] {
		return nil
	}
	r.seen[name] = true
	if _, ok := r.k.paths[name]; !ok {
		if r.k.builtin[name] || soft {
			return nil
		}
		return fmt.Errorf("kernel %s has no module %s", r.k.Release, name)
	}
	m, err := r.k.load(name)
	if err != nil {
		return err
	}
	for _, dep := range m.Softdeps {
		if err := r.add(dep, true); err != nil {
			return err
		}
	}
	for _, dep := range m.Depends {
		if err := r.add(dep, false); err != nil {
			return err
		}
	}
	r.order = append(r.order, m)
	return nil
}
