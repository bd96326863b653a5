package osrelease

import (
	"os"
	"path/filepath"
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
	if got, err := Read(file); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(file, text[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(file); err == nil || got != (Facts{}) {
		t.Errorf("half a file: %+v, %v", got, err)
	}
}
