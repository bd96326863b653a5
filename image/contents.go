package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"kogge.example/image/debian"
	"kogge.example/image/kernel"
	"kogge.example/image/program"
	"kogge.example/image/rootfs"
	"kogge.example/image/sbom"
)

// addContents completes the entries with the three files that say what the image is
// made of: SBOM, licences and manifest.
func (r release) addContents(ctx context.Context, o Options, k *kernel.Kernel, entries []rootfs.Entry) ([]rootfs.Entry, error) {
	layout, err := rootfs.Layout(entries)
	if err != nil {
		return nil, err
	}
	files, err := sbom.ReadFiles(layout)
	if err != nil {
		return nil, err
	}
	modules, goVersion := sbom.Modules(files)
	in := sbom.Input{
		Board: o.Board.Name, Arch: o.Board.Arch, Version: o.Version, When: o.When,
		Packages: r.contributors(k), CompilerUses: []string{"/bin/runc"},
	}
	in.Origin = r.origins(k, entries)
	if in.Compiler, err = program.Compiler(ctx, o.Board.Arch); err != nil {
		return nil, err
	}
	licenses, err := r.licenses(ctx, o, modules, in.Packages)
	if err != nil {
		return nil, err
	}
	document, err := sbom.Document(in, files)
	if err != nil {
		return nil, err
	}
	added := []rootfs.Entry{{Path: sbom.DocumentPath, Data: document}, {Path: sbom.LicensesPath, File: licenses}}
	more, err := rootfs.Layout(added)
	if err != nil {
		return nil, err
	}
	moreFiles, err := sbom.ReadFiles(more)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, f := range files {
		have[f.Path] = true
	}
	for _, f := range moreFiles {
		if !have[f.Path] { // both have folders such as /usr
			files = append(files, f)
		}
	}
	manifest, err := sbom.List(in, files, goVersion)
	if err != nil {
		return nil, err
	}
	return append(append(entries, added...), rootfs.Entry{Path: sbom.ManifestPath, Data: manifest}), nil
}

// contributors are the Debian packages of which the image holds files or code: the
// board's without meta packages, and what runc is linked with.
func (r release) contributors(k *kernel.Kernel) []debian.File {
	var list []debian.File
	for _, f := range r.files {
		if f.Package == k.Package || !strings.HasPrefix(f.Name, "linux-image-") {
			list = append(list, f)
		}
	}
	for _, f := range r.sysroot {
		if f.Name != "libc6" { // the shared library; what is linked is in libc6-dev
			list = append(list, f)
		}
	}
	return list
}

// origins returns the function that names the Debian packages behind an entry.
func (r release) origins(k *kernel.Kernel, entries []rootfs.Entry) func(string) []string {
	from := map[string][]string{}
	for _, e := range entries {
		switch {
		case e.Path == "/bin/runc":
			for _, f := range r.sysroot {
				if f.Name != "libc6" {
					from[e.Path] = append(from[e.Path], f.Name)
				}
			}
		case strings.HasPrefix(e.Path, "/lib/modules/"):
			from[e.Path] = []string{k.Package.Name}
		default:
			for _, f := range r.files {
				if strings.HasPrefix(e.File, f.Dir+string(filepath.Separator)) {
					from[e.Path] = []string{f.Name}
				}
			}
		}
	}
	return func(path string) []string { return from[path] }
}

// licenses returns the file with the licence texts.
func (r release) licenses(ctx context.Context, o Options, modules []sbom.Module, packages []debian.File) (string, error) {
	s := sbom.Sources{Checkout: o.Source, Common: r.common}
	key, err := sbom.LicensesKey(modules, packages, s, o.When)
	if err != nil {
		return "", err
	}
	return cached(o, "licenses-"+key+".tar.zst", func(out string) error {
		o.Say("licences")
		cmd := program.Go(ctx, "env", "GOROOT", "GOMODCACHE")
		cmd.Dir = o.Source
		text, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("licences: go env: %w", err)
		}
		dirs := strings.Split(strings.TrimSpace(string(text)), "\n")
		if len(dirs) != 2 {
			return fmt.Errorf("licences: go env printed %q", text)
		}
		s.GoRoot, s.ModuleCache = dirs[0], dirs[1]
		data, err := sbom.Licenses(modules, packages, s, o.When)
		if err != nil {
			return err
		}
		return os.WriteFile(out, data, 0o644)
	})
}
