package sbom

import (
	"debug/buildinfo"
	"io"
	"runtime/debug"

	"kogge.example/image/program"
)

// Stdlib is the name under which Go's standard library is listed.
const Stdlib = "stdlib"

// Module is a Go module that executables were built from.
type Module struct {
	Path    string
	Version string
	Sum     string // as in go.sum
	Own     bool   // the module that this file belongs to
}

// String is path@version.
func (m Module) String() string { return m.Path + "@" + m.Version }

// goModules lists what a Go executable says it was built from, the standard library
// first; nil for one that is not written in Go.
func goModules(executable io.ReaderAt) []Module {
	info, err := buildinfo.Read(executable)
	if err != nil {
		return nil // a C program: buildinfo tells no reasons apart
	}
	modules := []Module{{Path: Stdlib, Version: info.GoVersion}}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Path != "" {
			modules = append(modules, Module{Path: m.Path, Version: m.Version, Sum: m.Sum, Own: m.Path == program.Module})
		}
	}
	return modules
}

// Modules lists the modules of all Go executables among the files, each once and by
// name, and the version of Go.
func Modules(files []File) (modules []Module, goVersion string) {
	all := map[string]Module{}
	names := map[string]string{}
	for _, f := range files {
		for _, m := range f.modules {
			all[m.String()], names[m.String()] = m, ""
			if m.Path == Stdlib {
				goVersion = m.Version
			}
		}
	}
	for _, name := range sortedKeys(names) {
		modules = append(modules, all[name])
	}
	return modules, goVersion
}
