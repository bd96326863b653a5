package main

import (
	"bufio"
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"kogge.example/image/program"
)

// doors are the packages that a folder of this module may import besides itself
// and the packages below it: arrows run from programs to the work, to the formats,
// to the facts, and never back.
var doors = map[string][]string{
	"boards": {},
	"update": {"boards"},
	"init":   {"update", "boards"},
	"image":  {"update", "boards", "init/nodeconfig"},
	"agent":  {"update", "boards", "init/nodeconfig", "init/rights", "init/control"},
	// Tests of whole systems and the bench build the images they run.
	"qemu": {"image", "update", "boards", "init/nodeconfig"},
	"cmd":  {"image", "qemu", "agent/api", "agent/compose", "agent/engine", "agent/machine", "agent/identity", "agent/install", "agent/mdns", "agent/namespace", "agent/registry", "agent/serve", "agent/wanted", "agent/workload", "update", "boards", "init/nodeconfig", "init/rights"},
}

// TestArrows walks every package of the module and the arrows between them, those
// of its tests included.
func TestArrows(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, program.Module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		pkg, top := inside(f[0])
		allowed, ok := doors[top]
		if !ok {
			t.Errorf("package %s: folder %q has no rule", pkg, top)
		}
		for _, path := range f[1:] {
			imported, other := inside(path)
			if imported == "" || other == top {
				continue
			}
			if !slices.ContainsFunc(allowed, func(d string) bool { return imported == d || strings.HasPrefix(imported, d+"/") }) {
				t.Errorf("package %s imports %s: %s may import only %v", pkg, imported, top, allowed)
			}
		}
	}
}

// inside splits the path of one of our packages; "" if it is none.
func inside(path string) (pkg, top string) {
	pkg, ok := strings.CutPrefix(path, program.Module+"/")
	if !ok {
		return "", ""
	}
	top, _, _ = strings.Cut(pkg, "/")
	return pkg, top
}
