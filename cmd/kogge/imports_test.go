package main

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	"cmd":  {"image", "qemu", "agent/api", "agent/compose", "agent/engine", "agent/images", "agent/machine", "agent/identity", "agent/install", "agent/mdns", "agent/namespace", "agent/registry", "agent/serve", "agent/tarball", "agent/wanted", "agent/workload", "update", "boards", "init/nodeconfig", "init/rights"},
}

// testDoors are what the tests of a folder may import besides.
var testDoors = map[string][]string{
	// A node is adopted and asked by operators, and their side of it is the keyring.
	"agent": {"cmd/kogge/keyring", "cmd/kogge/operate", "cmd/kogge/admission"},
	// And operators found a fleet with nodes that keep its ledger.
	"cmd": {"agent/pinned", "agent/papers", "init/control"},
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

// worlds are what lies outside of this program, each with the packages that are its door:
// nobody else imports what begins with one of these paths.
var worlds = []struct {
	paths []string
	doors []string
}{
	// containerd: its client, its server, the registries' protocol, the shim.
	{[]string{"github.com/containerd/containerd/v2/"}, []string{"agent/engine", "agent/confine", "agent/images", "agent/containerd", "agent/registry", "agent/shim"}},
	// The kernel's networks: those of containers, and the node's own.
	{[]string{"github.com/vishvananda/netlink", "github.com/mdlayher/netlink", "github.com/google/nftables"}, []string{"agent/bridge", "init/network"}},
	// The DHCP servers of the node's links.
	{[]string{"github.com/insomniacslk/dhcp"}, []string{"init/network/dhcp"}},
	// etcd: its server, its client.
	{[]string{"go.etcd.io/etcd/"}, []string{"agent/etcd", "agent/etcd/store"}},
	// The boot partition, while the node runs.
	{[]string{program.Module + "/update/bootpart"}, []string{"init", "agent/install"}},
}

// TestDoors wants each world to be entered by its doors alone.
func TestDoors(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, program.Module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	used := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, _ := inside(f[0])
		for _, w := range worlds {
			i := slices.IndexFunc(f[1:], func(path string) bool { return below(path, w.paths) })
			switch {
			case i < 0:
			case slices.Contains(w.doors, pkg):
				used[pkg] = true
				f = slices.DeleteFunc(f, func(path string) bool { return below(path, w.paths) })
			default:
				t.Errorf("package %s imports %s: the doors there are %v", pkg, f[1+i], w.doors)
			}
		}
	}
	if len(used) < 8 {
		t.Errorf("of the doors only these are used: %v", slices.Sorted(maps.Keys(used)))
	}
}

// below says whether path is one of paths, or a package below it.
func below(path string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/") })
}

// TestDescriptions wants what only says what a thing is, and whoever talks of it, to reach
// no door, however many packages lie between.
func TestDescriptions(t *testing.T) {
	for _, pkg := range []string{
		"agent/workload", "agent/compose", "agent/compose/project", "agent/wanted", "agent/events", "agent/redaction", "agent/probe", "agent/keeper", "agent/imageref", "agent/tarball", "agent/etcd/membership", "agent/gossip/wire",
		"agent/api", "agent/door", "cmd/kogge",
	} {
		out, err := exec.Command("go", "list", "-deps", program.Module+"/"+pkg).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for path := range strings.FieldsSeq(string(out)) {
			for _, w := range worlds {
				if own, _ := inside(path); own == "" && (below(path, w.paths) || strings.HasPrefix(path, "github.com/containerd/")) {
					t.Errorf("package %s needs %s", pkg, path)
				}
			}
		}
	}
}

// TestBootPartitionByItsDoor wants nobody on a node to open the FAT of the boot partition
// past its door, which holds the lock.
func TestBootPartitionByItsDoor(t *testing.T) {
	allowed := map[string]string{
		"agent/install/stick.go": "the FAT of somebody's USB stick",
	}
	read := 0
	for _, top := range []string{"init", "agent"} {
		err := filepath.WalkDir(filepath.Join("..", "..", top), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			read++
			name := filepath.ToSlash(strings.TrimPrefix(file, filepath.Join("..", "..")+string(filepath.Separator)))
			if bytes.Contains(text, []byte("fat.Open(")) && allowed[name] == "" {
				t.Errorf("%s opens a FAT volume: the boot partition is edited by update/bootpart alone", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if read < 100 {
		t.Errorf("only %d files were read", read)
	}
}

// large are packages with more exported names than a reader keeps in mind, or more lines
// than one subject needs, and why they are no two packages.
var large = map[string]string{
	"agent/workload": "the vocabulary of containers: most names are the words of a state, an event or a policy",
	"cmd/kogge":      "a file for each verb of the command line",
}

// Limits of a package that has no line above: exported names without methods, and lines
// without tests and generated code.
const (
	maxExported = 60
	maxLines    = 3000
)

// TestLarge counts.
func TestLarge(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{.Dir}} {{join .GoFiles " "}}`, program.Module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	over := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg, _ := inside(f[0])
		exported, lines := 0, 0
		for _, file := range f[2:] {
			if strings.HasSuffix(file, ".pb.go") || strings.HasSuffix(file, ".connect.go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(f[1], file))
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, text, 0)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(text, []byte("\n"))
			for _, o := range parsed.Scope.Objects {
				if ast.IsExported(o.Name) {
					exported++
				}
			}
		}
		if exported <= maxExported && lines <= maxLines {
			continue
		}
		over[pkg] = true
		if large[pkg] == "" {
			t.Errorf("package %s has %d exported names and %d lines: split it, or say here why not", pkg, exported, lines)
		}
	}
	for pkg := range large {
		if !over[pkg] {
			t.Errorf("package %s is not large any more: its line here can go", pkg)
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

// TestTree holds README's tree to the folders: each package has its row, and each name in
// it is a package, or a folder, of the part where it stands.
func TestTree(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte("\n## The tree\n"))
	if !found {
		t.Fatal("README.md has no tree")
	}
	name := regexp.MustCompile(`[a-z0-9]+(/[a-z0-9]+)*/`)
	rows := make(map[string][]string) // names by the top folder under which they stand
	top := ""
	for line := range strings.Lines(string(text)) {
		row, ok := strings.CutPrefix(line, "    ")
		if !ok && strings.TrimSpace(line) != "" && top != "" {
			break
		}
		names := name.FindAllString(row, -1)
		if row != strings.TrimLeft(row, " ") {
			rows[top] = append(rows[top], names...)
		} else if len(names) > 0 {
			top, _, _ = strings.Cut(names[0], "/")
			rows[top] = append(rows[top], names...)
		}
	}
	known := make(map[string]bool) // names of folders that are packages
	out, err := exec.Command("go", "list", program.Module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for path := range strings.FieldsSeq(string(out)) {
		pkg, top := inside(path)
		last := pkg[strings.LastIndexByte(pkg, '/')+1:] + "/"
		known[top+" "+last] = true
		inner := strings.Contains(pkg, "/kogge/v1") || strings.HasPrefix(pkg, "qemu/e2e/programs/") // generated, and of a test
		if !inner && !slices.Contains(rows[top], last) && !slices.Contains(rows[top], pkg+"/") {
			t.Errorf("README's tree has no row for %s", pkg)
		}
	}
	for top, names := range rows {
		for _, one := range names {
			if _, err := os.Stat(filepath.Join("..", "..", one)); err != nil && !known[top+" "+one] {
				if _, err := os.Stat(filepath.Join("..", "..", top, one)); err != nil && one != "pages/" {
					t.Errorf("README's tree has %s under %s, where nothing is called so", one, top)
				}
			}
		}
	}
}
