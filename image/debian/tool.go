package debian

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Toolbox runs programs of the Tools set from the cache with their own loader and
// libraries, so that the bytes they write do not depend on the building machine.
type Toolbox struct {
	loader string
	libs   string
	dirs   []string
}

// OpenTools returns the toolbox made of the Tools set's files.
func OpenTools(files []File) (Toolbox, error) {
	var t Toolbox
	var libs []string
	for _, f := range files {
		t.dirs = append(t.dirs, f.Dir)
		for _, sub := range []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"} {
			lib := filepath.Join(f.Dir, sub)
			if _, err := os.Stat(lib); err != nil {
				continue
			}
			libs = append(libs, lib)
			if loader := filepath.Join(lib, "ld-linux-x86-64.so.2"); t.loader == "" {
				if _, err := os.Stat(loader); err == nil {
					t.loader = loader
				}
			}
		}
	}
	if t.loader == "" {
		return Toolbox{}, fmt.Errorf("lock %s: none of the packages has a program loader", Tools)
	}
	t.libs = strings.Join(libs, ":")
	return t, nil
}

// Key names the toolbox: the same key, the same programs.
func (t Toolbox) Key() string {
	h := sha256.New()
	for _, dir := range t.dirs {
		fmt.Fprintln(h, filepath.Base(dir)) // the hash of a package
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// Command prepares the program called name, with nothing in its environment but
// what env adds.
func (t Toolbox) Command(ctx context.Context, env []string, name string, args ...string) (*exec.Cmd, error) {
	for _, dir := range t.dirs {
		for _, sub := range []string{"usr/bin", "usr/sbin", "sbin", "bin"} {
			path := filepath.Join(dir, sub, name)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			cmd := exec.CommandContext(ctx, t.loader, append([]string{"--library-path", t.libs, path}, args...)...)
			cmd.Env = append([]string{"LC_ALL=C", "PATH=/nonexistent", "TZ=UTC"}, env...)
			return cmd, nil
		}
	}
	return nil, fmt.Errorf("lock %s: none of the packages has the program %s", Tools, name)
}
