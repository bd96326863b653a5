package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "health")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := takeTail(path); got != "" {
		t.Errorf("%q of nothing", got)
	}
	put(path, "ok")
	if got := takeTail(path); got != "ok\n" {
		t.Errorf("%q", got)
	}
	if got := takeTail(path); got != "" {
		t.Errorf("%q, again", got)
	}
	put(path+".1", strings.Repeat("ä", kept))
	put(path, "\xff end\n")
	if got := takeTail(path); len(got) > kept+16 || !strings.HasPrefix(got, "…") || !strings.HasSuffix(got, "ä\uFFFD end\n") {
		t.Errorf("%d bytes: %.20q … %q", len(got), got, got[len(got)-20:])
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
