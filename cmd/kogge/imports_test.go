package main

import (
	"bufio"
	"bytes"
	"maps"
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

// testDoors are what the tests of a folder may import besides.
var testDoors = map[string][]string{
	// A node is adopted and asked by operators, and their side of it is the keyring.
	"agent": {"cmd/kogge/keyring"},
}

// TestArrows walks every package of the module and the arrows between them.
func TestArrows(t *testing.T) { arrows(t, `{{.ImportPath}} {{join .Imports " "}}`, doors) }

// TestArrowsOfTests does the same for what only tests import.
func TestArrowsOfTests(t *testing.T) {
	all := maps.Clone(doors)
	for top, more := range testDoors {
		all[top] = slices.Concat(all[top], more)
	}
	arrows(t, `{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}`, all)
}

// arrows lists packages by a format, a line each with the package first and then what it
// imports, and wants that each import goes through a door.
func arrows(t *testing.T, format string, doors map[string][]string) {
	out, err := exec.Command("go", "list", "-f", format, program.Module+"/...").Output()
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

// TestFleetIsPure wants that the rules of a fleet need the standard library and x/mod
// alone: update/slot asks them before it arms, and whoever checks a vote elsewhere can
// read all that they rest on.
func TestFleetIsPure(t *testing.T) {
	const rules = program.Module + "/update/fleet"
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", rules+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	found := false
	for path := range strings.FieldsSeq(string(out)) {
		found = found || path == rules
		if path != rules && !strings.HasPrefix(path, rules+"/") && !strings.HasPrefix(path, "golang.org/x/mod/") {
			t.Errorf("update/fleet needs %s", path)
		}
	}
	if !found {
		t.Errorf("go list does not name %s", rules)
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
