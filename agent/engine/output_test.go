package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kogge.example/agent/images"
	"kogge.example/agent/workload"
)

// TestDropOutput: the output of a container that nobody wants any more goes, and no other.
func TestDropOutput(t *testing.T) {
	unknown := errors.New("a project's file is refused")
	for _, test := range []struct {
		id     string
		wanted []string
		err    error
		left   []string
	}{
		{"shop.app", []string{"web"}, nil, []string{"web.log"}},
		{"shop.app", []string{"shop.app", "web"}, nil, []string{"shop.app.log", "shop.app.log.1", "web.log"}},
		{"shop.app", nil, unknown, []string{"shop.app.log", "shop.app.log.1", "web.log"}},
		{"", nil, nil, []string{"shop.app.log", "shop.app.log.1", "web.log"}},
		{"../log/web", nil, nil, []string{"shop.app.log", "shop.app.log.1", "web.log"}},
	} {
		e := &Engine{paths: Paths{Logs: filepath.Join(t.TempDir(), "log")}}
		e.Store = images.New(nil, "", nil, nil)
		e.Wants(func() ([]workload.Container, error) {
			var all []workload.Container
			for _, id := range test.wanted {
				all = append(all, workload.Container{ID: id})
			}
			return all, test.err
		})
		if err := os.Mkdir(e.paths.Logs, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"shop.app.log", "shop.app.log.1", "web.log"} {
			if err := os.WriteFile(filepath.Join(e.paths.Logs, name), []byte("x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		e.dropOutput(test.id)
		entries, err := os.ReadDir(e.paths.Logs)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, entry := range entries {
			left = append(left, entry.Name())
		}
		if !slices.Equal(left, test.left) {
			t.Errorf("%q, wanted %q, %v: left %q", test.id, test.wanted, test.err, left)
		}
	}
}
