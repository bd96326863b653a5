// Package golden is, for tests, text in testdata that one would rather read than
// assert.
//
// In comes what the code makes of a test's input; it is compared with a file of
// testdata, or, by `go test -update`, becomes that file. The diff of such a file is
// what a reviewer reads. The package knows nothing of what the text means, and
// touches no other file.
package golden

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update belongs to this package alone: a test binary registers a flag once.
var update = flag.Bool("update", false, "rewrite the files in testdata that the tests compare with")

// Updating says whether the files of testdata are to be rewritten, for a test whose
// files something else compares.
func Updating() bool { return *update }

// Compare fails the test, and lets it go on, where got differs from the file name
// below testdata: the failure shows the difference and the command that accepts it.
// With -update it writes got to that file instead. A file that is not there ends the
// test.
func Compare(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (%s makes it)", err, command(t))
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; %s accepts it):\n%s", path, command(t), diff)
	}
}

// command rewrites the files of this test, from the top of the module. A test runs in
// the folder of its package.
func command(t testing.TB) string {
	test, _, _ := strings.Cut(t.Name(), "/")
	pkg := "."
	here, err := os.Getwd()
	for top := here; err == nil && top != filepath.Dir(top); top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			pkg += strings.TrimPrefix(here, top)
			break
		}
	}
	return "go test " + pkg + " -run '^" + test + "$' -update"
}
