package images

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// TestRefusals: what one release refuses another one looks at, and a file that cannot be read
// refuses nothing.
func TestRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kogge", "preloads.json")
	if got := readRefusals(file, "1.0"); got != nil {
		t.Errorf("no file: %v", got)
	}
	all := refusals{"web.tar 7 8": "it is empty"}
	if err := all.write(file, "1.0"); err != nil {
		t.Fatal(err)
	}
	if got := readRefusals(file, "1.0"); !maps.Equal(got, all) {
		t.Errorf("%v, want %v", got, all)
	}
	if got := readRefusals(file, "1.1"); got != nil {
		t.Errorf("another release: %v", got)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readRefusals(file, "1.0"); got != nil {
		t.Errorf("half a file: %v", got)
	}
}
