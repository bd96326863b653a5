package osrelease

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestText holds the bytes, which every release since the first one has, and reads them.
func TestText(t *testing.T) {
	want := Facts{Version: "1.1", Board: "pc-x86_64", Arch: "amd64", Kernel: "6.12.1", Counter: 7, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	zone := want
	zone.Time = want.Time.In(time.FixedZone("", 3600))
	text, err := zone.Text()
	const golden = "{\n\t\"version\": \"1.1\",\n\t\"board\": \"pc-x86_64\",\n\t\"arch\": \"amd64\",\n\t\"kernel\": \"6.12.1\",\n\t\"counter\": 7,\n\t\"time\": \"2026-03-01T12:00:00Z\"\n}\n"
	if err != nil || string(text) != golden {
		t.Errorf("%s, %v", text, err)
	}
	file := filepath.Join(t.TempDir(), "release.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(file); err != nil || !reflect.DeepEqual(got, want) || got.Marks() != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(file, text[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(file); err == nil || !reflect.DeepEqual(got, Facts{}) {
		t.Errorf("half a file: %+v, %v", got, err)
	}
}

// TestMarks holds what an image says that is not of its lock.
func TestMarks(t *testing.T) {
	for _, c := range []struct {
		facts      Facts
		text, mark string
	}{
		{Facts{}, "}\n", ""},
		{Facts{Unlocked: []string{"a=2:all instead of a=1:all"}}, ",\n\t\"unlocked\": [\n\t\t\"a=2:all instead of a=1:all\"\n\t]\n}\n", "unlocked"},
		{Facts{WithoutSuites: []string{"trixie-security"}}, ",\n\t\"without_suites\": [\n\t\t\"trixie-security\"\n\t]\n}\n", "without-trixie-security"},
		{Facts{Unlocked: []string{"a"}, WithoutSuites: []string{"x", "y"}}, "]\n}\n", "unlocked,without-x,without-y"},
	} {
		text, err := c.facts.Text()
		if err != nil || !strings.HasSuffix(string(text), c.text) || c.facts.Marks() != c.mark {
			t.Errorf("%+v: %s, %q, %v", c.facts, text, c.facts.Marks(), err)
		}
	}
}
