package sbom

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"

	"kogge.example/image/rootfs"
)

// Where the three files are in the root file system.
const (
	DocumentPath = "/usr/share/kogge/sbom.spdx.json"
	LicensesPath = "/usr/share/kogge/licenses.tar.zst"
	ManifestPath = "/usr/share/kogge/manifest.json"
)

// Manifest is the file at ManifestPath.
type Manifest struct {
	Board    string            `json:"board"`
	Version  string            `json:"version"`
	Built    map[string]string `json:"toolchains"` // "go", "gcc" → version
	Packages []Package         `json:"packages"`   // Debian's, by name
	Files    []File            `json:"files"`      // by path, without the manifest itself
}

// Package is a Debian package as the manifest lists it.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	SHA256  string `json:"sha256"` // of the .deb
}

// File is one entry of the root file system.
type File struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"` // octal permission bits
	Size   int64  `json:"size"` // bytes; 0 for what is no regular file
	SHA256 string `json:"sha256,omitempty"`
	Link   string `json:"link,omitempty"` // target of a symbolic link
	Dir    bool   `json:"dir,omitempty"`

	sha1    [sha1.Size]byte
	elf     bool     // an executable or a kernel module
	modules []Module // of a Go executable
}

// ReadFiles hashes every entry, and looks into those that are executables.
func ReadFiles(entries []rootfs.Entry) ([]File, error) {
	files := make([]File, len(entries))
	var g errgroup.Group
	g.SetLimit(runtime.NumCPU())
	for i, e := range entries {
		g.Go(func() error {
			var err error
			if files[i], err = readEntry(e); err != nil {
				return fmt.Errorf("manifest: %s: %w", e.Path, err)
			}
			return nil
		})
	}
	return files, g.Wait()
}

func readEntry(e rootfs.Entry) (File, error) {
	f := File{Path: e.Path, Mode: fmt.Sprintf("%04o", e.Mode), Link: e.Link, Dir: e.Dir}
	if e.Dir || e.Link != "" {
		return f, nil
	}
	var content io.ReaderAt = bytes.NewReader(e.Data)
	if e.File != "" {
		file, err := os.Open(e.File)
		if err != nil {
			return f, err
		}
		defer file.Close()
		content = file
	}
	sum, old, size, err := hashes(io.NewSectionReader(content, 0, 1<<62))
	if err != nil {
		return f, err
	}
	f.SHA256, f.sha1, f.Size = hex.EncodeToString(sum[:]), old, size
	if f.elf, err = isELF(content); f.elf && err == nil && !strings.HasSuffix(f.Path, ".ko") {
		f.modules = goModules(content)
	}
	return f, err
}

// List returns the manifest as JSON.
func List(in Input, files []File, goVersion string) ([]byte, error) {
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	m := Manifest{Board: in.Board, Version: in.Version, Built: map[string]string{"go": goVersion}, Files: files}
	if in.Compiler != "" {
		m.Built["gcc"] = in.Compiler
	}
	for _, p := range in.Packages {
		m.Packages = append(m.Packages, Package{p.Name, p.Version, p.Arch, hex.EncodeToString(p.SHA256[:])})
	}
	sort.Slice(m.Packages, func(i, j int) bool { return m.Packages[i].Name < m.Packages[j].Name })
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return append(data, '\n'), nil
}
