package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// chosenBy tells whether go test -run=pattern runs the test of that name. Patterns of the
// list have no brackets.
//
// Source: go help testflag
func chosenBy(pattern, name string) (bool, error) {
	parts := strings.Split(name, "/")
	for one := range strings.SplitSeq(pattern, "|") {
		all := true
		for i, p := range strings.Split(one, "/") {
			if i == len(parts) {
				break // it is about the tests below this one
			}
			ok, err := regexp.MatchString(p, parts[i])
			if err != nil {
				return false, err
			}
			all = all && ok
		}
		if all {
			return true, nil
		}
	}
	return false, nil
}

// TestParts holds the list of the parts of `make e2e` to be complete: each test of this
// package, folder of scripts and boot matrix is in one of them, and in one only.
func TestParts(t *testing.T) {
	list, err := os.ReadFile("../../.ci/e2e.txt")
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" || f[len(f)-1] != "./qemu/e2e" {
			continue
		}
		if f[1] != "KOGGE_E2E=all" || !strings.HasPrefix(f[2], "-run=") || len(f) != 4 {
			t.Errorf("line %q: want KOGGE_E2E=all and -run", line)
			continue
		}
		patterns = append(patterns, strings.TrimPrefix(f[2], "-run="))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(self, "-test.list=.").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range strings.FieldsSeq(string(out)) {
		switch name {
		case "TestScript":
			for folder := range scriptFolders {
				names = append(names, name+"/"+folder)
			}
		case "TestMatrix":
			for _, board := range matrixBoards {
				names = append(names, name+"/"+board)
			}
		default:
			names = append(names, name)
		}
	}
	if len(names) < 10 {
		t.Errorf("there are %d tests only: %q", len(names), names)
	}
	for _, name := range names {
		in := 0
		for _, p := range patterns {
			ok, err := chosenBy(p, name)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				in++
			}
		}
		if in != 1 {
			t.Errorf("%s is in %d parts, want one", name, in)
		}
	}
	// A folder of scripts that nobody knows would be in none.
	for _, dir := range scriptFolders {
		files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no scripts (%v)", dir, err)
		}
	}
	if stray, err := filepath.Glob("testdata/long/*.txt"); err != nil || len(stray) > 0 {
		t.Errorf("in no part: %v %v", stray, err)
	}
	if folders, err := os.ReadDir("testdata/long"); err != nil || len(folders) != len(scriptFolders)-1 {
		t.Errorf("testdata/long has %d folders, scriptFolders names %d (%v)", len(folders), len(scriptFolders)-1, err)
	}
}
