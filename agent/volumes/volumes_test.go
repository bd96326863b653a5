package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// listing is what is at folder: modes, owners, names.
func listing(t *testing.T, folder string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(folder, path)
		fmt.Fprintf(&b, "%s %d %s\n", info.Mode(), info.Sys().(*syscall.Stat_t).Uid, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestFill gives an empty volume what an image has there, as if the power had been cut
// at each step of the time before.
func TestFill(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run as root: it gives files to other users")
	}
	root := t.TempDir()
	put := func(folder, name, text string) {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(root, "var/lib/data")
	put(data, "a", "a")
	put(data, "sub/b", "b")
	for _, name := range []string{"", "a", "sub"} {
		if err := os.Chown(filepath.Join(data, name), 999, 999); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/var/lib/data", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	put(root, "plain/c", "c")
	for name, mode := range map[string]os.FileMode{"private": 0o700, "spool": 0o777 | os.ModeSticky} {
		if err := errors.Join(os.Mkdir(filepath.Join(root, name), 0o700), os.Chmod(filepath.Join(root, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	const want = "drwx------ 999 .\n-rw-r----- 999 a\ndrwxr-xr-x 999 sub\n-rw-r----- 0 sub/b\n"
	const plain = "drwxr-xr-x 0 .\n"
	const users = "drwxr-xr-x 1000 .\n"
	for _, test := range []struct {
		name, target string
		before       func(volume string)
		want         string
	}{
		{"for the first time", "/var/lib/data", func(string) {}, want},
		{"by a link, which stays below the image's root", "/link", func(string) {}, want},
		{"of which the image knows nothing", "/nothing", func(string) {}, users},
		{"which is a file in the image", "/plain/c", func(string) {}, users},
		{"of root's", "/plain", func(string) {}, plain + "-rw-r----- 0 c\n"},
		{"of root's that only he enters", "/private", func(string) {}, "drwx------ 0 .\n"},
		{"of root's that all write to", "/spool", func(string) {}, "dtrwxrwxrwx 0 .\n"},
		{"after a cut in the copying", "/var/lib/data", func(volume string) { put(partOf(volume), "half", "") }, want},
		{"after a cut before the moving", "/var/lib/data", func(volume string) {
			err := Fill(t.Context(), volume, root, "/var/lib/data", 0, 0)
			if err == nil {
				err = os.Rename(volume, wholeOf(volume))
			}
			if err == nil {
				err = os.Mkdir(volume, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, want},
		{"after a cut in the moving", "/var/lib/data", func(volume string) {
			err := Fill(t.Context(), volume, root, "/var/lib/data", 0, 0)
			if err == nil {
				err = os.Mkdir(wholeOf(volume), 0o700)
			}
			if err == nil {
				err = os.Rename(filepath.Join(volume, "sub"), filepath.Join(wholeOf(volume), "sub"))
			}
			if err == nil {
				err = os.Chown(wholeOf(volume), 999, 999)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, want},
	} {
		volume := filepath.Join(t.TempDir(), "data")
		if err := Make(volume); err != nil {
			t.Fatal(err)
		}
		test.before(volume)
		err := resume(volume)
		if entries, _ := os.ReadDir(volume); err == nil && len(entries) == 0 { // as Engine.fill decides
			err = Fill(t.Context(), volume, root, test.target, 1000, 50)
		}
		if err != nil {
			t.Errorf("a volume %s: %v", test.name, err)
			continue
		}
		if got := listing(t, volume); got != test.want {
			t.Errorf("a volume %s:\n%swant:\n%s", test.name, got, test.want)
		}
		if beside, err := os.ReadDir(filepath.Dir(volume)); err != nil || len(beside) != 1 {
			t.Errorf("a volume %s: beside it is %v, %v", test.name, beside, err)
		}
	}
}

// TestUntouched: a volume that a container has made somebody's stays his, and so does one of
// an older release, which all could write to.
func TestUntouched(t *testing.T) {
	for name, touch := range map[string]func(folder string) error{
		"nobody":                                       func(string) error { return nil },
		"a job that gives it to a user":                func(folder string) error { return os.Chown(folder, 1000, 1000) },
		"a job that gives it to a group":               func(folder string) error { return os.Chown(folder, 0, 50) },
		"a job that lets all write":                    func(folder string) error { return os.Chmod(folder, 0o777) },
		"a container that is among those who share it": func(folder string) error { return os.Chmod(folder, 0o1777) },
	} {
		folder := filepath.Join(t.TempDir(), "data")
		if err := errors.Join(Make(folder), touch(folder)); err != nil {
			t.Fatal(err)
		}
		if got := untouched(folder); got != (name == "nobody") {
			t.Errorf("changed by %s: untouched %v", name, got)
		}
	}
}
