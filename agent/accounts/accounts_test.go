package accounts

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	passwd = "root:x:0:0::/root:/bin/sh\n#app:x:5:5::/:\nbroken:x:much:0::/:\napp:x:1000:50:The App:/home/app:/bin/sh\napp:x:1001:51::/:\nfar:x:70001:4294967295::/:\nshort:x:7:8\nnul:x:9:9::/a\x00b:\n+::::::\n"
	group  = "root:x:0:\nstaff:x:50:\naudio:x:29:somebody,app\napp:x:60:app\nvideo:x:44:app\nagain:x:44:app\nbad:x:-1:app\nplain:x:77\n"
)

// TestFind: what becomes of a USER.
func TestFind(t *testing.T) {
	a := Accounts{passwd: file{name: "/etc/passwd", text: []byte(passwd)}, group: file{name: "/etc/group", text: []byte(group)}}
	for user, want := range map[string]string{
		"":             "0:0 [0] /root",
		":50":          "0:50 [50] /root",
		"root":         "0:0 [0] /root",
		"app":          "1000:50 [29 44 50] /home/app",
		"app:":         "1000:50 [29 44 50] /home/app",
		"1000":         "1000:50 [29 44 50] /home/app",
		"1000:":        "1000:50 [29 44 50] /home/app",
		"app:audio":    "1000:29 [29] /home/app",
		"1000:0":       "1000:0 [0] /home/app",
		"2000":         "2000:0 [0] /",
		"2000:7":       "2000:7 [7] /",
		"short":        "7:8 [8] /",
		"nul":          "9:9 [9] /",
		"2147483647":   "2147483647:0 [0] /",
		"2147483648":   `user "2147483648": the highest ID is 2147483647`,
		"1:4294967296": `group "4294967296": the highest ID is 2147483647`,
		"a:b:c":        `user "a:b:c": expected NAME or ID, with :GROUP if needed`,
		"broken":       `user "broken": /etc/passwd has no such user`,
		"-1":           `user "-1": /etc/passwd has no such user`,
		"+":            `user "+": /etc/passwd has no such user`,
		"#app":         `user "#app": /etc/passwd has no such user`,
		"far":          `user "far": /etc/passwd has no such user`,
		"app:bad":      `group "bad": /etc/group has no such group`,
	} {
		u, err := a.Find(user)
		slices.Sort(u.Groups)
		got := fmt.Sprintf("%d:%d %d %s", u.UID, u.GID, u.Groups, u.Home)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", user, got, want)
		}
	}
	if got, err := a.Groups([]string{"video", "9", "plain"}); err != nil || !slices.Equal(got, []uint32{44, 9, 77}) {
		t.Errorf("groups: %v, %v", got, err)
	}
	if got, err := a.Groups([]string{"none"}); err == nil || got != nil {
		t.Errorf("a group that is not there: %v, %v", got, err)
	}
	if got := slices.Sorted(a.IDs()); !slices.Equal(got, []uint32{0, 0, 0, 0, 7, 8, 9, 9, 29, 44, 44, 50, 50, 51, 60, 77, 1000, 1001, 70001}) {
		t.Errorf("all: %v", got)
	}
}

// TestRead: whatever is at the place of the files, it is read if it is a file below the
// root, and nobody waits for it.
func TestRead(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run as root: it makes devices")
	}
	outside := filepath.Join(t.TempDir(), "passwd")
	must(t, os.WriteFile(outside, []byte("app:x:666:666::/:\n"), 0o600))
	write := func(name, text string) func(root string) error {
		return func(root string) error {
			name := filepath.Join(root, name)
			return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600))
		}
	}
	link := func(to string) func(root string) error {
		return func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.Symlink(to, filepath.Join(root, "etc/passwd")))
		}
	}
	node := func(mode, device int) func(root string) error {
		return func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), unix.Mknod(filepath.Join(root, "etc/passwd"), uint32(mode)|0o600, device))
		}
	}
	const app = "app:x:70001:70002::/:\n"
	tape := int(unix.Mkdev(9, 0)) // a driver that is not there: to open it is ENXIO
	for name, c := range map[string]struct {
		make func(root string) error
		want string
	}{
		"a file":                     {write("etc/passwd", app), "70001"},
		"a long line first":          {write("etc/passwd", "x:"+strings.Repeat("y", 200_000)+":1:1::/:\n"+app), "70001"},
		"no file":                    {write("etc/none", ""), `user "app": there is no /etc/passwd`},
		"an empty file":              {write("etc/passwd", ""), `user "app": /etc/passwd has no such user`},
		"too large a file":           {write("etc/passwd", strings.Repeat("\n", MaxFile)+app), `user "app": not in the first 4 MiB of /etc/passwd, and more are not read`},
		"a pipe":                     {node(unix.S_IFIFO, 0), `user "app": /etc/passwd is no regular file`},
		"a device":                   {node(unix.S_IFCHR, tape), `user "app": /etc/passwd is no regular file`},
		"a folder":                   {func(root string) error { return os.MkdirAll(filepath.Join(root, "etc/passwd"), 0o755) }, `user "app": /etc/passwd is no regular file`},
		"a link by the root":         {all(link("/store/passwd"), write("store/passwd", app)), "70001"},
		"a link that leads out":      {all(link("../../../store/passwd"), write("store/passwd", app)), "70001"},
		"a link to the node's files": {link(outside), `user "app": there is no /etc/passwd`},
		"a link to itself":           {link("passwd"), `user "app": /etc/passwd: too many levels of symbolic links`},
		"a file of the kernel's":     {all(link("/proc/version"), proc(t)), `user "app": /etc/passwd is on a file system that is not for files, such as /proc`},
		"a folder by the root": {all(write("store/etc/passwd", app), func(root string) error {
			return os.Symlink("/store/etc", filepath.Join(root, "etc"))
		}), "70001"},
		"a file that is held": {all(write("etc/passwd", app), lease(t)), `user "app": /etc/passwd is held by somebody who has a lease of it`},
	} {
		root := t.TempDir()
		must(t, c.make(root))
		u, err := Read(root).Find("app")
		got := fmt.Sprint(u.UID)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")).Find("app"); err == nil {
		t.Error("without a root: no error")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func all(steps ...func(root string) error) func(root string) error {
	return func(root string) error {
		for _, step := range steps {
			if err := step(root); err != nil {
				return err
			}
		}
		return nil
	}
}

// proc mounts the kernel's files.
func proc(t *testing.T) func(root string) error {
	return func(root string) error {
		at := filepath.Join(root, "proc")
		if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount("/proc", at, "", unix.MS_BIND, "")); err != nil {
			return err
		}
		t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
		return nil
	}
}

// lease holds /etc/passwd so that whoever opens it has to wait.
func lease(t *testing.T) func(root string) error {
	return func(root string) error {
		f, err := os.OpenFile(filepath.Join(root, "etc/passwd"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { f.Close() })
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		return err
	}
}

// TestManyGroups: one who is in very many groups costs little.
func TestManyGroups(t *testing.T) {
	var b strings.Builder
	for n := range 100_000 {
		fmt.Fprintf(&b, "g%d:x:%d:app\n", n, n+1)
	}
	a := Accounts{passwd: file{text: []byte("app:x:7:0::/:\n")}, group: file{text: []byte(b.String())}}
	if u, err := a.Find("app"); err != nil || len(u.Groups) != MaxGroups {
		t.Errorf("%d groups, %v", len(u.Groups), err)
	}
}

func FuzzFind(f *testing.F) {
	f.Add(passwd, group, "app", "video")
	f.Add("a:b:1:2\n:::", "::::\n\x00:x:3:\xff", "1:2", "")
	f.Fuzz(func(t *testing.T, passwd, group, user, named string) {
		a := Accounts{passwd: file{name: "/etc/passwd", text: []byte(passwd)}, group: file{name: "/etc/group", text: []byte(group)}}
		u, err := a.Find(user)
		if err == nil {
			if u.UID > math.MaxInt32 || u.GID > math.MaxInt32 || !slices.Contains(u.Groups, u.GID) || u.Home == "" || strings.ContainsRune(u.Home, 0) || strings.Contains(u.Home, "\n") {
				t.Errorf("%q is %+v", user, u)
			}
			name, _, _ := strings.Cut(user, ":")
			if u.UID == 0 && strings.Trim(name, "0") != "" && !strings.Contains(passwd, name) {
				t.Errorf("%q is root", user)
			}
		}
		if gids, err := a.Groups([]string{named}); err == nil && (len(gids) != 1 || gids[0] > math.MaxInt32) {
			t.Errorf("group %q is %v", named, gids)
		}
		for id := range a.IDs() {
			if id == math.MaxUint32 {
				t.Error("an ID that is none")
			}
		}
	})
}
